//! Bad input and broken surroundings: one clear line, and the right exit code.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::fake::Fake;
use crate::support::{finish, run, spawn, swarmctl};

#[test]
fn a_dead_socket_says_how_to_start_swarmd() {
    let fake = Fake::new();
    let path = fake.folder().join("none.sock");
    for make in [false, true] {
        if make {
            // A socket that nobody listens on any more.
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        }
        let line = format!("--host unix://{} node ls", path.display());
        run(&fake, &line).failed(&format!(
            "error: cannot connect to swarmd at {}: is it running? start it with: swarmd",
            path.display()
        ));
    }
}

/// Every command there is, and words that it takes.
const COMMANDS: [(&str, &str); 45] = [
    ("init", ""),
    ("join", "--token T 192.0.2.1:2377"),
    ("join-token", "worker"),
    ("ca", ""),
    ("update", "--autolock"),
    ("unlock", ""),
    ("unlock-key", ""),
    ("leave", ""),
    ("swarm init", ""),
    ("swarm join", "--token T 192.0.2.1:2377"),
    ("swarm join-token", "worker"),
    ("swarm ca", ""),
    ("swarm update", "--autolock"),
    ("swarm unlock", ""),
    ("swarm unlock-key", ""),
    ("swarm leave", ""),
    ("info", ""),
    ("backup", "/no/such/file"),
    ("node ls", ""),
    ("node inspect", "n"),
    ("node ps", ""),
    ("node update", "--availability drain n"),
    ("node promote", "n"),
    ("node demote", "n"),
    ("node rm", "n"),
    ("network create", "n"),
    ("network ls", ""),
    ("network inspect", "n"),
    ("network rm", "n"),
    ("network prune", "-f"),
    ("service create", "nginx"),
    ("service update", "--force web"),
    ("service scale", "web=1"),
    ("service ls", ""),
    ("service ps", "web"),
    ("service inspect", "web"),
    ("service logs", "web"),
    ("service rm", "web"),
    ("task ls", ""),
    ("task inspect", "web.1"),
    ("task logs", "web.1"),
    ("task exec", "web.1 true"),
    ("image load", "-i /no/such/file"),
    ("image ls", ""),
    ("image rm", "nginx"),
];

/// The commands that help lists, the playground's apart: those are another program's.
fn listed(fake: &Fake, group: &str) -> Vec<String> {
    let help = run(fake, &format!("{group} --help")).ok();
    let Some((_, commands)) = help.split_once("\nCommands:\n") else {
        return vec![group.trim().to_owned()];
    };
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !["help", "playground"].contains(name))
        .flat_map(|name| listed(fake, &format!("{group} {name}")))
        .collect()
}

#[test]
fn every_command_fails_in_one_form() {
    let fake = Fake::new();
    let mut known: Vec<&str> = COMMANDS.iter().map(|(command, _)| *command).collect();
    let mut listed = listed(&fake, "");
    known.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, known);

    let dead = fake.folder().join("none.sock");
    for (command, words) in COMMANDS {
        let ran = run(&fake, &format!("--host unix://{} {command} {words}", dead.display()));
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{command}: {ran:?}");
        assert!(ran.stderr.starts_with("error: cannot connect to swarmd"), "{command}: {ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{command}: {ran:?}");

        let ran = run(&fake, &format!("{command} --nonsense {words}"));
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{command}: {ran:?}");
        assert!(ran.stderr.starts_with("error: "), "{command}: {ran:?}");
        let help = format!("(see 'swarmctl {command} --help')\n");
        assert!(ran.stderr.ends_with(&help), "it names the form that was typed: {ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{command}: {ran:?}");
    }
    assert!(fake.world().asked.is_empty(), "nobody was asked");
}

#[test]
fn others_than_root_are_told_to_be_root() {
    let fake = Fake::new();
    std::fs::set_permissions(fake.folder(), PermissionsExt::from_mode(0o700)).unwrap();
    let program = fake.folder().parent().unwrap().join(format!("swarmctl-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_swarmctl"), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).arg("info");
    let ran = finish(spawn(command.env("SWARM_HOST", fake.host())));
    std::fs::remove_file(&program).unwrap();
    ran.failed(&format!(
        "error: permission denied on the socket of swarmd at {}/swarmd.sock: run as root",
        fake.folder().display()
    ));
}

#[test]
fn what_is_no_swarmd_is_an_error() {
    let fake = Fake::new();
    let path = fake.folder().join("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let other = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let ran = run(&fake, &format!("--host unix://{} node ls", path.display()));
    other.join().unwrap();
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.starts_with("error: lost the connection to swarmd: "), "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
}

#[test]
fn swarmd_s_message_is_all_there_is() {
    let fake = Fake::new();
    run(&fake, "network rm used").failed("error: network used is in use by service web");
    run(&fake, "join --token bad 192.0.2.1:2377").failed("error: invalid join token");
    run(&fake, "leave").failed("error: this is the last manager: use --force");
}

#[test]
fn usage_errors_are_one_line_and_exit_2() {
    let fake = Fake::new();
    for (line, part) in [
        ("service create --replicas -1 nginx", "a whole number, 0 or more"),
        ("service scale web", "SERVICE=REPLICAS"),
        ("network ls --filter colour=red", "unknown filter \"colour\""),
        ("service ps web --filter desired-state=odd", "running"),
        ("node", "swarmctl"),
        ("nonsense", "unrecognized subcommand 'nonsense'"),
        ("network prune", "--force"),
        (
            "network create --subnet fd00::/64 n",
            "subnet fd00::/64 is IPv6, which is not served yet",
        ),
        ("network create --gateway fd00::1 n", "gateway fd00::1 is IPv6, which is not served yet"),
        ("network create --ip-range fd00::/80 n", "fd00::/80 is IPv6, which is not served yet"),
        ("init --default-addr-pool fd00::/8", "fd00::/8 is IPv6, which is not served yet"),
        ("--host tcp://1.2.3.4 info", "unix://PATH"),
    ] {
        let ran = run(&fake, line);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{line}: {ran:?}");
        assert!(ran.stderr.contains(part), "{line}: {ran:?}");
        if line != "node" {
            assert_eq!(ran.stderr.lines().count(), 1, "{line}: {ran:?}");
        }
    }
    assert!(fake.world().asked.is_empty(), "usage errors change nothing");
}

#[test]
fn help_goes_to_stdout() {
    let fake = Fake::new();
    let help = run(&fake, "service create --help").ok();
    assert!(help.contains("Usage: swarmctl service create [OPTIONS] IMAGE [ARG]..."), "{help}");
    assert!(help.contains("Examples:"), "{help}");
    assert!(run(&fake, "--version").ok().starts_with("swarmctl "));
}

#[test]
fn swarm_commands_print_docker_s_words() {
    let fake = Fake::new();
    assert_eq!(
        run(&fake, "init --advertise-addr 192.0.2.1").ok(),
        "Swarm initialized: current node (n1) is now a manager.\n\n\
         To add a worker to this swarm, run the following command:\n\n    \
         swarmctl join --token SWMTKN-1-w 192.0.2.1:2377\n\n\
         To add a manager to this swarm, run 'swarmctl join-token manager' and follow the instructions.\n\n"
    );
    assert_eq!(run(&fake, "join-token -q worker").ok(), "SWMTKN-1-worker\n");
    let text = run(&fake, "join-token --rotate manager").ok();
    assert!(text.starts_with("Successfully rotated manager join token.\n"), "{text}");
    assert!(
        text.contains("    swarmctl join --token SWMTKN-1-manager-new 192.0.2.1:2377\n"),
        "{text}"
    );
    let joined = run(&fake, "join --token good 192.0.2.1:2377").ok();
    assert_eq!(joined, "This node joined a swarm as a worker.\n");
    assert_eq!(run(&fake, "leave --force").ok(), "Node left the swarm.\n");
    assert_eq!(run(&fake, "node rm --force a b").ok(), "a\nb\n");
    assert_eq!(run(&fake, "network create net").ok(), "net-id\n");
    assert_eq!(run(&fake, "network prune -f").ok(), "Deleted Networks:\nnet2\nnet10\n\n");
}

#[test]
fn nodes_are_changed_in_docker_s_words() {
    let fake = Fake::new();
    fake.world().nodes = vec![crate::lists::node("n1", "pg-1", true)];
    let line = "node update --availability drain --label-add a=1 --label-add b --label-rm c n1";
    assert_eq!(run(&fake, line).ok(), "n1\n");
    let asked = fake.world().asked.clone();
    assert_eq!(asked, [r#"update_node n1 drain  {"a": "1", "b": ""} ["c"]"#]);
    assert_eq!(run(&fake, "node promote n1").ok(), "Node n1 is already a manager.\n");
    assert_eq!(run(&fake, "node demote n1").ok(), "Manager n1 demoted in the swarm.\n");
    run(&fake, "node promote x").failed("error: node x was not promoted: node x not found");
    for usage in ["node update n1", "node update --availability off n1", "node promote"] {
        assert_eq!(run(&fake, usage).code, Some(2), "{usage}");
    }
}

#[test]
fn a_backup_is_whole_or_not_there() {
    let fake = Fake::new();
    let file = fake.folder().join("swarm.backup");
    let line = format!("backup {}", file.display());
    let ran = run(&fake, &line);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("Backup written to") && ran.stderr.contains("secret"), "{ran:?}");
    assert_eq!(std::fs::read(&file).expect("the backup"), b"backup");
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let again = format!("error: cannot write {}: it exists already", file.display());
    run(&fake, &line).failed(&again);

    std::fs::remove_file(&file).expect("the backup is removed");
    fake.world().stale = "no quorum".into();
    run(&fake, &line).failed("error: no quorum");
    let left = std::fs::read_dir(fake.folder()).expect("a folder").count();
    assert_eq!(left, 1, "only the socket");
}

#[test]
fn a_closed_stdout_is_no_panic() {
    let fake = Fake::new();
    let mut child = spawn(&mut swarmctl(&fake, "init"));
    drop(child.stdout.take());
    let ran = finish(child);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}
