//! Which node a pending task goes to: spread each service over the nodes that take tasks, and that can have
//! its networks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_model::{Availability, Node, NodeId, ServiceId, Task, TaskState};
use swarm_state::{Change, State};

use super::Plan;

/// Nodes that an explanation names; of more it says how many.
const MOST_NAMED: usize = 4;

/// Places the pending tasks of the services in `dirty`, on no node in `dead`.
pub(super) fn place(
    state: &State,
    dirty: &BTreeSet<ServiceId>,
    dead: &BTreeSet<&NodeId>,
    plan: &mut Plan,
) {
    let takes_tasks = |node: &&Arc<Node>| node.takes_tasks() && !dead.contains(&node.id);
    let candidates: Vec<&Arc<Node>> = state.nodes().filter(takes_tasks).collect();
    let mut total: BTreeMap<&NodeId, usize> =
        candidates.iter().map(|node| (&node.id, state.task_count(&node.id))).collect();
    for service in dirty {
        let pending: Vec<_> = state.tasks_of(service).filter(|task| is_pending(task)).collect();
        if pending.is_empty() {
            continue;
        }
        let mut of_service: BTreeMap<&NodeId, usize> = BTreeMap::new();
        for task in state.tasks_of(service).filter(|task| task.is_wanted() && !task.is_finished()) {
            if let Some(node) = &task.node_id {
                *of_service.entry(node).or_default() += 1;
            }
        }
        for task in pending {
            let encrypted = is_encrypted(state, task);
            let able = candidates.iter().filter(|node| !encrypted || has_esp(node));
            let fewest = able.map(|node| &node.id).min_by_key(|id| {
                (of_service.get(id).copied().unwrap_or(0), total[id], id.as_str())
            });
            let Some(node) = fewest else {
                explain(state, task, encrypted, plan);
                continue;
            };
            *of_service.entry(node).or_default() += 1;
            *total.entry(node).or_default() += 1;
            plan.changes.push(Change::AssignTask { id: task.id.clone(), node: node.clone() });
        }
    }
}

fn is_pending(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.is_wanted()
}

/// Whether a task must be on a node that can encrypt.
fn is_encrypted(state: &State, task: &Task) -> bool {
    let networks = task.spec.networks.iter().filter_map(|n| state.network(&n.target));
    networks.into_iter().any(|network| network.is_encrypted())
}

fn has_esp(node: &Node) -> bool {
    node.description.encryption.is_capable()
}

/// Says why no node takes a task, in the words of what rules each node out.
fn explain(state: &State, task: &Task, encrypted: bool, plan: &mut Plan) {
    plan.waiting.insert(task.service_id.clone());
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let mut without_esp = Vec::new();
    for node in state.nodes() {
        if encrypted && node.takes_tasks() && !has_esp(node) {
            without_esp.push(node.description.hostname.as_str());
        } else {
            *reasons.entry(ruled_out_by(node)).or_default() += 1;
        }
    }
    let reasons = reasons
        .into_iter()
        .map(|(reason, count)| {
            format!("{count} node{} {reason}", if count == 1 { "" } else { "s" })
        })
        .chain(needs_esp(without_esp));
    let err = format!("no suitable node ({})", reasons.collect::<Vec<_>>().join("; "));
    if task.status.err != err {
        plan.changes.push(Change::ExplainTask { id: task.id.clone(), err });
    }
}

/// Names the nodes that would take a task, were its network not encrypted.
fn needs_esp(mut nodes: Vec<&str>) -> Option<String> {
    nodes.sort_unstable();
    let which = match nodes.as_slice() {
        [] => return None,
        [one] => format!("{one}'s kernel lacks"),
        [first @ .., last] if nodes.len() <= MOST_NAMED => {
            format!("the kernels of {} and {last} lack", first.join(", "))
        }
        _ => {
            let (named, others) = nodes.split_at(MOST_NAMED - 1);
            format!("the kernels of {} and {} more lack", named.join(", "), others.len())
        }
    };
    Some(format!("needs IPsec ESP, which {which}"))
}

fn ruled_out_by(node: &Node) -> &'static str {
    match node.spec.availability {
        _ if !node.is_alive() => "down",
        Availability::Pause => "paused",
        Availability::Drain => "drained",
        Availability::Active => "available",
    }
}
