//! What a test looks at on a host itself, beside `swarmctl`.

use std::collections::BTreeSet;
use std::process::Output;

use swarm_playground::{Binaries, Node};

/// Process ids, on the machine, of the containers of `whoami` on a host.
///
/// # Panics
/// When the host's processes cannot be listed.
#[must_use]
#[track_caller]
pub fn containers(node: &Node) -> BTreeSet<i32> {
    let is_whoami = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "whoami")
    };
    node.processes().expect("processes of a host").into_iter().filter(is_whoami).collect()
}

/// Runs `swarmd` itself on a host, for what it does before it serves, such as `swarmd restore`; a minute at most.
///
/// # Panics
/// When it is not built.
#[must_use]
#[track_caller]
pub fn swarmd(node: &Node, words: &[&str]) -> Output {
    let program = Binaries::locate().expect("built programs").swarmd;
    let program = program.to_string_lossy();
    node.exec(["timeout", "60", &program].iter().chain(words)).expect("swarmd runs")
}

/// What a command said on stderr.
#[must_use]
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
}
