//! The processes of a playground's host that are ours.

use std::fs;

use anyhow::Result;
use swarm_playground::Node;

/// The daemon and the shims of a node, by process id on this machine.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    pub(crate) daemon: Option<i32>,
    pub(crate) shims: Vec<i32>,
}

/// Finds them by their command lines.
pub(crate) fn processes(node: &Node) -> Result<Processes> {
    let mut found = Processes::default();
    for pid in node.processes()? {
        // One that has ended meanwhile is none.
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let mut words = line.split(|byte| *byte == 0);
        let program = words.next().unwrap_or_default();
        let role = words.next().unwrap_or_default();
        if !program.ends_with(b"swarmd") {
            continue;
        }
        match role {
            b"shim" | b"shim-watch" => found.shims.push(pid),
            b"shim-exec" => {}
            _ => found.daemon = Some(pid),
        }
    }
    Ok(found)
}
