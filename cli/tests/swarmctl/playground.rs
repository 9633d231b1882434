//! `swarmctl playground` becomes another program: beside it, or in `PATH`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Ran, finish, spawn};

/// A program of that name which says who it is and what it was told.
fn stand_in(dir: &Path, who: &str) {
    let path = dir.join("swarm-playground");
    let script = format!(
        "#!/bin/bash\nprintf '%s|' {who} \"$@\"\n[ \"$1\" != kill ] || kill -$2 $$\nexit 42\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// A copy of `swarmctl`, alone in its directory.
fn alone(dir: &Path) -> PathBuf {
    let copy = dir.join("swarmctl");
    fs::copy(env!("CARGO_BIN_EXE_swarmctl"), &copy).unwrap();
    copy
}

fn run(swarmctl: &Path, path: &str, words: &[&str]) -> Ran {
    let mut command = Command::new(swarmctl);
    finish(spawn(command.env("PATH", path).arg("playground").args(words).stdin(Stdio::null())))
}

#[test]
fn it_is_found_and_told_every_word() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let swarmctl = alone(own.path());
    let path = format!("/bin::{}", other.path().display());
    run(&swarmctl, &path, &["up"]).failed(
        "error: cannot find swarm-playground, which `swarmctl playground` runs, beside swarmctl or in PATH",
    );
    stand_in(other.path(), "path");
    let words = ["exec", "pg-1", "--", "sh", "-c", "a  b", "--", "--help", "-H", ""];
    let ran = run(&swarmctl, &path, &words);
    let told = format!("{}|", words.join("|"));
    assert_eq!((ran.code, ran.stdout), (Some(42), format!("path|{told}")));
    stand_in(own.path(), "own");
    let ran = run(&swarmctl, &path, &["--help"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(42), "own|--help|"));
    let ran = run(&swarmctl, &path, &["kill", "TERM"]);
    assert_eq!(ran.code, None, "the signal that ended it ended swarmctl: they are one process");
}

#[test]
fn what_cannot_be_run_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let swarmctl = alone(dir.path());
    let program = dir.path().join("swarm-playground");
    fs::write(&program, "").unwrap();
    run(&swarmctl, "", &["ls"]).failed(&format!(
        "error: cannot run {}: Permission denied (os error 13)",
        program.display()
    ));
}
