//! A manager whose state machine cannot read a command or a snapshot ends its part in Raft, and loses nothing.
#![allow(missing_docs)]

mod support;

use bytes::Bytes;
use support::{Node, cluster, eventually, journal_without, leader};
use swarm_raft::Role;
use tempfile::tempdir;

fn failed(node: &Node) -> Option<String> {
    match node.status().role {
        Role::Failed(reason) => Some(reason),
        _ => None,
    }
}

/// The manager again, with a state machine that cannot read what begins with `unknown`.
async fn without(node: Node, unknown: &'static [u8]) -> Node {
    let (options, addr) = node.stop().await;
    Node::start_with(journal_without(unknown), options, &addr).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_read_ends_this_manager_and_no_other() {
    let dir = tempdir().unwrap();
    let mut nodes = cluster(dir.path(), 3, |_| {}).await;
    let old = nodes.remove(0); // it leads
    nodes.insert(0, without(old, b"new").await);
    let led = leader(&nodes).await;
    nodes[led].propose("old 1").await;
    eventually("the first command", || nodes[0].journal.contains(b"old 1")).await;
    nodes[0].wait("a leader", |status| status.leader.is_some()).await;
    if leader(&nodes).await != 0 {
        let led = leader(&nodes).await;
        nodes[led].raft.transfer_leadership(Some(1)).await.unwrap();
        nodes[0].wait("leadership", |status| status.role == Role::Leader).await;
    }
    // As another version would, that it passes on for.
    let _ = nodes[0].raft.propose(Bytes::from_static(b"new 2")).await.unwrap_err();
    nodes[0].wait("the end", |status| matches!(status.role, Role::Failed(_))).await;
    assert_eq!(failed(&nodes[0]).as_deref(), Some("what is new 2 is not known here"));
    assert!(!nodes[0].journal.contains(b"new 2"));
    let others = &nodes[1..];
    let led = leader(others).await;
    others[led].propose("old 3").await;
    for node in others {
        eventually("the others' commands", || node.journal.contains(b"old 3")).await;
        assert!(node.journal.contains(b"new 2") && failed(node).is_none());
    }

    // Started again, it says the same, and takes no part.
    let again = without(nodes.remove(0), b"new").await;
    again.wait("the end", |status| matches!(status.role, Role::Failed(_))).await;
    assert_eq!(failed(&again).as_deref(), Some("what is new 2 is not known here"));
    let votes = again.status().voters.len();
    assert_eq!(votes, 3, "it still knows who does");
    // By a version that can read it, it goes on with all of it.
    let again = again.restart().await;
    eventually("all commands", || again.journal.contains(b"old 3")).await;
    assert_eq!(again.journal.commands(), nodes[0].journal.commands());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_read_ends_this_manager_and_stays() {
    let dir = tempdir().unwrap();
    let adjust = |options: &mut swarm_raft::Options| {
        options.snapshot_every = 10;
        options.keep_entries = 1;
    };
    let mut nodes = cluster(dir.path(), 3, adjust).await;
    let snapshot = dir.path().join("manager-3/snapshot");
    for n in 0..40 {
        nodes[0].propose(format!("new {n}")).await;
    }
    eventually("a snapshot", || snapshot.exists()).await;
    let node = without(nodes.remove(2), b"new").await;
    assert!(failed(&node).is_some_and(|reason| reason.starts_with("what is new 0")), "at once");
    nodes[0].propose("one more").await;
    assert!(!node.journal.contains(b"one more"));
    assert!(snapshot.exists());
    let node = node.restart().await;
    eventually("all commands", || node.journal.commands().len() == 41).await;
    assert_eq!(node.journal.commands(), nodes[0].journal.commands());
}
