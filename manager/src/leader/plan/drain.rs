//! Withdraw before stop: a task is told to stop only when every live node that balances or resolves to
//! it has acknowledged that it no longer does. So scaling down loses no request.

use std::collections::BTreeMap;

use swarm_model::{NetworkId, NodeId, Task, TaskState};
use swarm_state::{Change, State};

use super::slots::Slot;
use super::{Facts, Plan};

/// What the nodes that carry each network are at, looked for once for all tasks in it.
pub(super) struct Reached<'a> {
    state: &'a State,
    facts: &'a Facts,
    lowest: BTreeMap<NetworkId, u64>,
}

impl<'a> Reached<'a> {
    pub(super) fn new(state: &'a State, facts: &'a Facts) -> Reached<'a> {
        Reached { state, facts, lowest: BTreeMap::new() }
    }

    /// The revision that is in force on every live node that carries a network.
    fn lowest(&mut self, network: &NetworkId) -> u64 {
        if let Some(revision) = self.lowest.get(network) {
            return *revision;
        }
        let is_alive = |node: &&NodeId| self.state.node(node).is_some_and(|node| node.is_alive());
        let live = self.state.carriers(network).filter(is_alive);
        let lowest = live.map(|node| in_force(self.facts, node)).min().unwrap_or(u64::MAX);
        self.lowest.insert(network.clone(), lowest);
        lowest
    }

    fn is_withdrawn_everywhere(&mut self, task: &Task) -> bool {
        let Some(revision) = task.withdrawn else { return true };
        let mut networks = task.networks_attachments.iter().map(|a| &a.network.id);
        networks.all(|network| self.lowest(network) >= revision)
    }
}

/// What a node is known to be at.
fn in_force(facts: &Facts, node: &NodeId) -> u64 {
    facts.nodes.get(node).map_or(0, |heard| heard.in_force)
}

/// Tells withdrawn tasks to stop whose withdrawal is in force everywhere.
pub(super) fn advance(
    state: &State,
    slots: &BTreeMap<u64, Slot<'_>>,
    reached: &mut Reached<'_>,
    plan: &mut Plan,
) {
    let leaving = slots.values().flat_map(|slot| &slot.leaving);
    for task in leaving.filter(|task| task.desired_state <= TaskState::Running) {
        if plan.is_full() {
            return;
        }
        if reached.is_withdrawn_everywhere(task) {
            plan.push(stop(state, task));
        } else {
            plan.waiting.insert(task.service_id.clone());
        }
    }
}

/// Tells a task to stop, unless a node comes back before that is decided.
pub(super) fn stop(state: &State, task: &Task) -> Change {
    Change::StopTask { id: task.id.clone(), as_of: state.revision() }
}

/// A node that the same plan makes carry a network again may still send there what it knew when it left: it is waited
/// for, too.
pub(super) fn heed_joining(state: &State, facts: &Facts, plan: &mut Plan) {
    // What the nodes that come to carry each network are at.
    let mut joining: BTreeMap<&NetworkId, u64> = BTreeMap::new();
    for change in &plan.changes {
        let (spec, node) = match change {
            Change::CreateTask { service, node: Some(node), .. } => {
                (state.service(service).map(|service| &service.spec.task_template), node)
            }
            Change::AssignTask { id, node } => (state.task(id).map(|task| &*task.spec), node),
            _ => continue,
        };
        for network in spec.iter().flat_map(|spec| &spec.networks) {
            let at = joining.entry(&network.target).or_insert(u64::MAX);
            *at = in_force(facts, node).min(*at);
        }
    }
    if joining.is_empty() {
        return;
    }
    let too_early = |task: &Task| {
        let withdrawn = task.withdrawn?;
        let mut networks = task.networks_attachments.iter().map(|a| &a.network.id);
        let lags = |network: &NetworkId| joining.get(network).is_some_and(|at| *at < withdrawn);
        networks.any(lags).then(|| task.service_id.clone())
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
