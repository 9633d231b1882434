//! Bugs made on purpose in what leaders propose, past all that a manager looks at before it does.

use std::sync::Arc;
use std::time::Duration;

use swarm_manager::{Manager, clock};
use swarm_model::{Task, TaskState};
use swarm_state::{Change, Command};

use crate::leader::leader;
use crate::ledger::Ledger;
use crate::node::Node;
use crate::versions::Version;

/// The bug of [`crate::Break::Level`].
pub(crate) fn speak_too_soon(nodes: &[Node], ledger: &Ledger) {
    let Some((node, manager)) = leader(nodes) else { return };
    if ledger.state.feature_level() == Version::New.level() {
        return;
    }
    let command = Command { now: clock::now(), changes: vec![Change::RotateNetworkKeys] };
    propose(node, &manager, command.seal(Version::New.level(), "broken"));
}

/// The bug of [`crate::Break::WithdrawOrder`].
pub(crate) fn stop_too_soon(nodes: &[Node]) {
    let Some((node, manager)) = leader(nodes) else { return };
    let state = manager.store().read();
    let withdrawn =
        |task: &&Arc<Task>| task.withdrawn.is_some() && task.desired_state <= TaskState::Running;
    let stop = |task: &Arc<Task>| Change::SetDesiredState {
        id: task.id.clone(),
        state: TaskState::Shutdown,
    };
    let changes: Vec<Change> = state.tasks().filter(withdrawn).map(stop).collect();
    if changes.is_empty() {
        return;
    }
    let command = Command { now: clock::now(), changes };
    propose(node, &manager, command.seal(state.feature_level(), "broken"));
}

fn propose(node: &Node, manager: &Manager, command: Vec<u8>) {
    let raft = manager.raft().clone();
    node.spawn(async move {
        // It is only a bug: whether it succeeds is no matter.
        let _ = tokio::time::timeout(Duration::from_secs(1), raft.propose(command.into())).await;
    });
}
