//! What the tests share: playgrounds whose daemon is a stand-in, and a look at what a playground leaves behind.
#![allow(dead_code, reason = "each test executable uses its part")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use swarm_playground::{Guard, Options, Playground};
use tempfile::TempDir;

/// A playground that is gone when this is.
pub(crate) struct Fixture {
    pub(crate) playground: Playground,
    // Dropped in this order: first the hosts, then the script that they run.
    pub(crate) guard: Guard,
    pub(crate) dir: TempDir,
}

/// Short, and of this process alone.
pub(crate) fn unique_name(test: &str) -> String {
    format!("{test}-t{}", std::process::id())
}

pub(crate) fn options(name: &str, nodes: usize, daemon: &Path) -> Options {
    Options {
        name: name.to_owned(),
        nodes,
        managers: None,
        swarmd: daemon.to_owned(),
        swarmctl: PathBuf::from("/bin/true"),
        playground: PathBuf::from(env!("CARGO_BIN_EXE_swarm-playground")),
        whoami: None,
        subnet: None,
        insecure_registries: Vec::new(),
        form_swarm: false,
    }
}

/// A daemon that runs the test function `stand_in_daemon` of this executable.
pub(crate) fn stand_in(dir: &Path) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let run = format!(
        "STATE_DIR=\"$2\" RUN_DIR=\"$4\" exec {} --ignored --exact stand_in_daemon --nocapture",
        exe.display()
    );
    script(dir, &run)
}

pub(crate) fn script(dir: &Path, body: &str) -> PathBuf {
    let path = dir.join("swarmd");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

pub(crate) fn up(test: &str, nodes: usize) -> Fixture {
    let dir = TempDir::new().unwrap();
    let options = options(&unique_name(test), nodes, &stand_in(dir.path()));
    let playground = Playground::up(&options).unwrap();
    let guard = playground.guard();
    for node in playground.nodes() {
        node.wait_for_daemon().unwrap();
    }
    Fixture { playground, guard, dir }
}

/// Everything on the machine that bears the playground's name.
pub(crate) fn leftovers(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |what: &str, text: String| {
        let lines = text.lines().filter(|line| line.contains(name));
        found.extend(lines.map(|line| format!("{what}: {line}")));
    };
    look("mount", fs::read_to_string("/proc/self/mountinfo").unwrap());
    look("netns", output("ip", &["netns", "list"]));
    look("link", output("ip", &["-o", "link"]));
    look("nft", output("nft", &["list", "tables"]));
    look("cgroup", output("find", &["/sys/fs/cgroup", "-type", "d"]));
    look(
        "file",
        output("find", &["/run/swarm-playground", "/var/lib/swarm-playground", "/run/netns"]),
    );
    look("process", processes());
    found
}

/// The command lines of all processes but this test's own.
fn processes() -> String {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| {
        let pid = entry.file_name().into_string().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        (pid != own)
            .then(|| format!("{pid} {}", String::from_utf8_lossy(&command).replace('\0', " ")))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the stand-in for `swarmd` does: it listens, and starts a process that outlives it as a shim does.
pub(crate) fn run_stand_in_daemon() {
    let state_dir =
        PathBuf::from(std::env::var("STATE_DIR").expect("run by the script of common::stand_in"));
    let run_dir = PathBuf::from(std::env::var("RUN_DIR").unwrap());
    let mut boots =
        fs::OpenOptions::new().create(true).append(true).open(state_dir.join("boots")).unwrap();
    writeln!(boots, "boot").unwrap();
    // What a shim is to the real one: a process that outlives its daemon.
    let mut shim = Command::new("sleep").arg("100000").spawn().unwrap();
    fs::write(state_dir.join("shim"), shim.id().to_string()).unwrap();
    fs::create_dir_all(&run_dir).unwrap();
    let socket = run_dir.join("swarmd.sock");
    let _ = fs::remove_file(&socket); // of the daemon's former life
    for stream in UnixListener::bind(socket).unwrap().incoming() {
        let _ = stream.unwrap().write_all(b"pong"); // the asker may be gone
    }
    shim.wait().unwrap();
}
