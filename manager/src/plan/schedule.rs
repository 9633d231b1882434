//! Which node a pending task goes to: spread each service over the nodes that take tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_model::{Availability, Node, NodeId, ServiceId, Task, TaskState};
use swarm_state::{Change, State};

use super::Plan;

/// Places the pending tasks of the services in `dirty`, on no node in `dead`.
pub(super) fn place(
    state: &State,
    dirty: &BTreeSet<ServiceId>,
    dead: &BTreeSet<&NodeId>,
    plan: &mut Plan,
) {
    let takes_tasks = |node: &&Arc<Node>| node.takes_tasks() && !dead.contains(&node.id);
    let candidates: Vec<&NodeId> = state.nodes().filter(takes_tasks).map(|node| &node.id).collect();
    let mut total: BTreeMap<&NodeId, usize> =
        candidates.iter().map(|id| (*id, state.task_count(id))).collect();
    for service in dirty {
        let pending: Vec<_> = state.tasks_of(service).filter(|task| is_pending(task)).collect();
        if pending.is_empty() {
            continue;
        }
        let mut of_service: BTreeMap<&NodeId, usize> = BTreeMap::new();
        for task in state.tasks_of(service).filter(|task| task.is_wanted() && !task.is_finished()) {
            *of_service.entry(&task.node_id).or_default() += 1;
        }
        for task in pending {
            let fewest = candidates.iter().min_by_key(|node| {
                (of_service.get(**node).copied().unwrap_or(0), total[**node], node.as_str())
            });
            let Some(node) = fewest else {
                explain(state, task, plan);
                continue;
            };
            *of_service.entry(node).or_default() += 1;
            *total.entry(node).or_default() += 1;
            plan.changes.push(Change::AssignTask { id: task.id.clone(), node: (*node).clone() });
        }
    }
}

fn is_pending(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.is_wanted()
}

/// Says why no node takes a task, in the words of what rules each node out.
fn explain(state: &State, task: &Task, plan: &mut Plan) {
    plan.waiting.insert(task.service_id.clone());
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for node in state.nodes() {
        *reasons.entry(ruled_out_by(node)).or_default() += 1;
    }
    let reasons: Vec<String> = reasons
        .into_iter()
        .map(|(reason, count)| {
            format!("{count} node{} {reason}", if count == 1 { "" } else { "s" })
        })
        .collect();
    let err = format!("no suitable node ({})", reasons.join("; "));
    if task.status.err != err {
        plan.changes.push(Change::ExplainTask { id: task.id.clone(), err });
    }
}

fn ruled_out_by(node: &Node) -> &'static str {
    match node.spec.availability {
        _ if !node.is_alive() => "down",
        Availability::Pause => "paused",
        Availability::Drain => "drained",
        Availability::Active => "available",
    }
}
