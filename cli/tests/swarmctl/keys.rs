//! `ca`, `unlock`, `unlock-key` and `update --autolock`.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;

use rustix::termios::{LocalModes, tcgetattr};

use crate::fake::Fake;
use crate::support::{Ran, finish, run, spawn, swarmctl, terminal, until, wait};

#[test]
fn keys_are_rotated_when_asked_and_it_says_where_to_look() {
    let fake = Fake::new();
    let said = run(&fake, "ca --rotate-network-keys").ok();
    assert!(said.contains("'swarmctl network inspect'"), "{said}");
    assert_eq!(fake.world().asked, ["rotate_network_keys"]);
}

#[test]
fn unlock_keys_are_shown_with_what_to_do_with_them() {
    let fake = Fake::new();
    run(&fake, "unlock-key").failed("error: no unlock key is set");
    let said = run(&fake, "update --autolock").ok();
    assert!(said.starts_with("Swarm updated.\n\nTo unlock a swarm manager"), "{said}");
    assert!(said.contains("\n    SWMKEY-1-k\n"), "{said}");
    assert_eq!(run(&fake, "unlock-key -q").ok(), "SWMKEY-1-k\n");
    let said = run(&fake, "unlock-key --rotate").ok();
    assert!(said.starts_with("Successfully rotated manager unlock key.\n"), "{said}");
    assert_eq!(run(&fake, "unlock-key -q").ok(), "SWMKEY-1-k-new\n");
    assert_eq!(run(&fake, "update --autolock=false").ok(), "Swarm updated.\n");
    assert!(!run(&fake, "init").ok().contains("unlock"));
    assert!(run(&fake, "init --autolock").ok().contains("\n    SWMKEY-1-k\n"));
}

#[test]
fn managers_that_need_a_former_key_are_named_beside_the_new_one() {
    let fake = Fake::new();
    fake.world().unlock_key = "SWMKEY-1-k".to_owned();
    fake.world().key_warnings = vec!["keep it for b".to_owned()];
    let said = run(&fake, "unlock-key -q --rotate");
    assert_eq!((said.code, &*said.stdout), (Some(0), "SWMKEY-1-k-new\n"), "{said:?}");
    assert_eq!(said.stderr, "warning: keep it for b\n");
    assert_eq!(run(&fake, "unlock-key -q").ok(), "SWMKEY-1-k-new\n");
    let said = run(&fake, "update --autolock=false");
    assert_eq!((&*said.stdout, &*said.stderr), ("Swarm updated.\n", "warning: keep it for b\n"));
}

fn piped(fake: &Fake, text: &str) -> Ran {
    let mut child = spawn(swarmctl(fake, "unlock").stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    finish(child)
}

#[test]
fn the_key_is_read_from_a_pipe_or_unseen_from_the_terminal() {
    let fake = Fake::new();
    assert_eq!(piped(&fake, "SWMKEY-1-k\n").ok(), "");
    piped(&fake, "SWMKEY-1-x\n").failed("error: invalid key");
    let (main, other) = terminal();
    let open = || other.try_clone().unwrap();
    let mut unlock = swarmctl(&fake, "unlock");
    let mut child = unlock.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
    let echoes = || tcgetattr(&other).unwrap().local_modes.contains(LocalModes::ECHO);
    until("hidden input", || !echoes());
    let mut main = File::from(main);
    let mut shown = Vec::new();
    while !shown.ends_with(b"key: ") {
        let mut byte = [0];
        main.read_exact(&mut byte).unwrap();
        shown.push(byte[0]);
    }
    main.write_all(b"SWMKEY-1-k\n").unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
    assert!(echoes());
    let mut rest = [0; 100];
    let length = main.read(&mut rest).unwrap();
    let rest = String::from_utf8_lossy(&rest[..length]);
    assert!(!rest.contains("SWMKEY"), "{rest}");
}

#[test]
fn the_root_is_printed_and_nothing_is_changed() {
    let fake = Fake::new();
    assert_eq!(run(&fake, "ca").ok(), "-----BEGIN CERTIFICATE-----\n");
    assert!(fake.world().asked.is_empty());
}

#[test]
fn a_rotation_is_shown_until_every_node_has_changed_over() {
    let fake = Fake::new();
    let run = run(&fake, "ca --rotate");
    assert_eq!(
        run.stderr.lines().collect::<Vec<_>>(),
        [
            "desired root digest: sha256:00ff",
            "  rotated TLS certificates: 1/2 nodes",
            "  rotated CA certificates:  0/2 nodes",
            "  waiting for: b (it is down)",
            "  rotated TLS certificates: 2/2 nodes",
            "  rotated CA certificates:  2/2 nodes",
        ]
    );
    assert_eq!((run.code, &*run.stdout), (Some(0), "-----BEGIN CERTIFICATE-----\n"));
    let world = fake.world();
    assert_eq!((&*world.asked, world.looks), (&["rotate_root".to_owned()][..], 4));
}

#[test]
fn a_rotation_is_not_waited_for_or_not_shown_as_asked() {
    let fake = Fake::new();
    assert_eq!(run(&fake, "ca --rotate --detach").ok(), "");
    assert_eq!(fake.world().looks, 0);
    let quiet = run(&fake, "ca --rotate -q");
    assert_eq!((quiet.stderr.as_str(), fake.world().looks), ("", 3));
    assert_eq!(quiet.ok(), "");
}
