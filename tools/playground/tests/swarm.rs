//! How a swarm is formed, against a `swarmctl` that writes down what it is asked.

mod common;

use common::{Fixture, leftovers, options, script, stand_in, unique_name};
use std::fs;
use std::path::Path;
use swarm_playground::Playground;
use tempfile::TempDir;

#[test]
#[ignore = "no test: the daemon that the hosts of the other tests run"]
fn stand_in_daemon() {
    common::run_stand_in_daemon();
}

/// A `swarmctl` that logs `HOSTNAME ARGS` and says what `node ls` shall show.
fn recorder(dir: &Path, node_ls: &str) -> std::path::PathBuf {
    let dir = dir.join("ctl");
    fs::create_dir(&dir).unwrap();
    let body = format!(
        r#"echo "$(hostname) $*" >> {log}
case "$*" in
"join-token -q "*) echo "TOKEN-$3" ;;
"node ls"*) printf '{node_ls}' ;;
esac"#,
        log = dir.join("log").display(),
    );
    script(&dir, &body)
}

/// The head of a static ELF executable for x86-64, with no segments.
fn static_elf(dir: &Path) -> std::path::PathBuf {
    let mut elf = vec![0; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 62;
    let path = dir.join("whoami");
    fs::write(&path, elf).unwrap();
    path
}

#[test]
fn managers_join_first_and_every_node_gets_the_sample_image() {
    let dir = TempDir::new().unwrap();
    let name = unique_name("s");
    let mut options = options(&name, 4, &stand_in(dir.path()));
    options.swarmctl = recorder(dir.path(), &r#"{"Status":"Ready"}\n"#.repeat(4));
    options.form_swarm = true;
    options.managers = Some(2);
    options.whoami = Some(static_elf(dir.path()));
    let playground = Playground::up(&options).unwrap();
    let guard = playground.guard();
    let f = Fixture { playground, guard, dir };

    let log = fs::read_to_string(f.dir.path().join("ctl/log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let first = f.playground.node(1).address();
    assert_eq!(
        lines[..7],
        [
            format!("{name}-1 init --advertise-addr {first}"),
            format!("{name}-1 join-token -q manager"),
            format!("{name}-2 join --token TOKEN-manager {first}:2377"),
            format!("{name}-1 join-token -q worker"),
            format!("{name}-3 join --token TOKEN-worker {first}:2377"),
            format!("{name}-4 join --token TOKEN-worker {first}:2377"),
            format!("{name}-1 node ls --format json"),
        ]
    );
    let mut loads = lines[7..].to_vec();
    loads.sort_unstable();
    let archive = format!("/var/lib/swarm-playground/{name}/whoami.tar");
    let expected: Vec<String> =
        (1..=4).map(|i| format!("{name}-{i} image load -i {archive}")).collect();
    assert_eq!(loads, expected);
    assert!(fs::metadata(archive).unwrap().len() > 1000);
}

#[test]
fn a_failing_command_is_shown_and_nothing_is_left() {
    let dir = TempDir::new().unwrap();
    let name = unique_name("e");
    let mut options = options(&name, 2, &stand_in(dir.path()));
    options.swarmctl = recorder(dir.path(), "");
    let text = fs::read_to_string(&options.swarmctl).unwrap();
    let failing =
        text.replace("case ", "[ \"$1\" = join ] && { echo wrong token >&2; exit 1; }\ncase ");
    fs::write(&options.swarmctl, failing).unwrap();
    options.form_swarm = true;
    let error = Playground::up(&options).unwrap_err().to_string();
    assert!(error.contains(&format!("{name}-2: ")) && error.ends_with("wrong token"), "{error}");
    assert_eq!(leftovers(&name), Vec::<String>::new());
}
