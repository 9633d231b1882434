//! Withdraw before stop: a task is told to stop only when every live node that balances or resolves to
//! it has acknowledged that it no longer does. So scaling down loses no request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_model::{NetworkId, NodeId, Task, TaskState};
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
        let alive = state.node(&node).is_some_and(|node| node.is_alive());
        !alive || facts.nodes.get(&node).is_some_and(|heard| heard.in_force >= revision)
    })
}

/// A node that the same plan brings back into a network may still send there what it knew when it left: it is waited
/// for, too.
pub(super) fn heed_joining(state: &State, facts: &Facts, plan: &mut Plan) {
    let joining: BTreeSet<(NetworkId, NodeId)> = plan
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::AssignTask { id, node } => Some((state.task(id)?, node)),
            _ => None,
        })
        .flat_map(|(task, node)| {
            task.spec.networks.iter().map(move |network| (network.target.clone(), node.clone()))
        })
        .collect();
    if joining.is_empty() {
        return;
    }
    let too_early = |task: &Task| {
        let withdrawn = task.withdrawn?;
        let mut networks = task.networks_attachments.iter().map(|a| &a.network.id);
        let lags =
            |node: &NodeId| facts.nodes.get(node).is_none_or(|heard| heard.in_force < withdrawn);
        let joined = |network: &NetworkId| {
            joining.iter().any(|(joined, node)| joined == network && lags(node))
        };
        networks.any(joined).then(|| task.service_id.clone())
    };
    let Plan { changes, waiting, .. } = plan;
    changes.retain(|change| {
        let Change::StopTask { id, .. } = change else { return true };
        let service = state.task(id).and_then(|task| too_early(task));
        let stays = service.is_none();
        waiting.extend(service);
        stays
    });
}
