//! Withdraw before stop: a task is told to stop only when every live node that balances or resolves to
//! it has acknowledged that it no longer does. So scaling down loses no request.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_model::{Task, TaskState};
use swarm_state::{Change, State};

use super::slots::Slot;
use super::{Facts, Plan};

/// Tells withdrawn tasks to stop whose withdrawal is in force everywhere.
pub(super) fn advance(
    state: &State,
    slots: &BTreeMap<u64, Slot<'_>>,
    facts: &Facts,
    plan: &mut Plan,
) {
    let leaving = slots.values().flat_map(|slot| &slot.leaving);
    for task in leaving.filter(|task| task.desired_state <= TaskState::Running) {
        if is_withdrawn_everywhere(state, task, facts) {
            plan.changes.push(stop(state, task));
        } else {
            plan.waiting.insert(task.service_id.clone());
        }
    }
}

/// Tells a task to stop, unless a node comes back before that is decided.
pub(super) fn stop(state: &State, task: &Task) -> Change {
    Change::StopTask { id: task.id.clone(), as_of: state.revision() }
}

fn is_withdrawn_everywhere(state: &State, task: &Arc<Task>, facts: &Facts) -> bool {
    let Some(revision) = task.withdrawn else { return true };
    let networks = task.networks_attachments.iter().map(|attachment| &attachment.network.id);
    networks.flat_map(|network| state.nodes_in(network)).all(|node| {
        let alive = state.node(node.as_str()).is_some_and(|node| node.is_alive());
        !alive || facts.nodes.get(&node).is_some_and(|heard| heard.in_force >= revision)
    })
}
