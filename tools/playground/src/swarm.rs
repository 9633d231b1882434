//! Makes one swarm of booted hosts with the same `swarmctl` commands that a person would type.

use crate::wait::wait_until;
use crate::{Error, Node, Result};
use std::path::Path;
use std::time::Duration;

const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// `swarmctl init` on the first, `join` on the others (the first `managers` of all as managers), until all are Ready.
pub(crate) fn form(nodes: &[Node], managers: usize) -> Result<()> {
    for node in nodes {
        node.wait_for_daemon()?;
    }
    let (first, others) =
        nodes.split_first().ok_or_else(|| Error::Options("a swarm needs a node".to_owned()))?;
    let address = first.address().to_string();
    first.swarmctl(["init", "--advertise-addr", &address])?;
    let (other_managers, workers) = others.split_at(managers - 1);
    // Managers one after the other, as each join is a change of Raft's membership.
    join(other_managers, first, "manager")?;
    join(workers, first, "worker")?;
    wait_ready(first, nodes.len())
}

fn join(nodes: &[Node], first: &Node, role: &str) -> Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let token = first.swarmctl(["join-token", "-q", role])?;
    let manager = format!("{}:2377", first.address());
    for node in nodes {
        node.swarmctl(["join", "--token", token.trim(), &manager])?;
    }
    Ok(())
}

fn wait_ready(manager: &Node, wanted: usize) -> Result<()> {
    wait_until("readiness of every node", READY_TIMEOUT, || {
        let text =
            manager.swarmctl(["node", "ls", "--format", "json"]).map_err(|e| e.to_string())?;
        let ready = count_ready(&text)?;
        if ready == wanted {
            return Ok(());
        }
        Err(format!("{ready} of {wanted} nodes are Ready:\n{text}"))
    })
}

/// Counts the Ready nodes of `node ls --format json`, one object a line.
fn count_ready(text: &str) -> std::result::Result<usize, String> {
    let mut ready = 0;
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let node: serde_json::Value =
            serde_json::from_str(line).map_err(|e| format!("{line}: {e}"))?;
        if node["Status"] == "Ready" {
            ready += 1;
        }
    }
    Ok(ready)
}

/// Loads an image archive on every node at once.
pub(crate) fn load_image(nodes: &[Node], archive: &Path) -> Result<()> {
    let load = |node: &Node| {
        node.wait_for_daemon()?;
        node.swarmctl(["image".as_ref(), "load".as_ref(), "-i".as_ref(), archive.as_os_str()])
    };
    std::thread::scope(|scope| {
        let loads: Vec<_> = nodes.iter().map(|node| scope.spawn(move || load(node))).collect();
        for handle in loads {
            handle.join().expect("loading an image does not panic")?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ready_nodes_count() {
        let text = "{\"ID\":\"a\",\"Hostname\":\"pg-1\",\"Status\":\"Ready\"}\n{\"ID\":\"b\",\"Status\":\"Down\"}\n";
        assert_eq!(count_ready(text), Ok(1));
        assert!(count_ready("ID HOSTNAME\n").is_err());
    }
}
