//! `ca`.

use crate::fake::Fake;
use crate::support::run;

#[test]
fn keys_are_rotated_when_asked_and_it_says_where_to_look() {
    let fake = Fake::new();
    let said = run(&fake, "ca --rotate-network-keys").ok();
    assert!(said.contains("'swarmctl network inspect'"), "{said}");
    assert_eq!(fake.world().asked, ["rotate_network_keys"]);
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
