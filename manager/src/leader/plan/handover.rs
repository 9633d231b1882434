//! Drained nodes hand over before they stop: a task that serves there goes on until its replacement does.
//!
//! A task on a drained node is *superseded*: it keeps its place in DNS and the balancers, but its slot is
//! free for another task. Once that one runs, or cannot, the superseded task is withdrawn and stopped like
//! any other. Nodes hear of the replacement first, and a withdrawn task is stopped only when all have heard
//! of that: so at each moment each of them knows one that serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_model::{Availability, Service, Task, TaskState};
use swarm_state::{Change, State};

use super::Plan;
use super::service::withdraw;
use super::slots::Slot;

/// Begins to replace the tasks on drained nodes, and withdraws those of which that is over. `active` is how
/// many tasks hold the service's slots.
pub(super) fn advance(
    state: &State,
    service: &Service,
    slots: &BTreeMap<u64, Slot<'_>>,
    active: u64,
    plan: &mut Plan,
) {
    for task in slots.values().filter_map(|slot| slot.active) {
        if is_drained(state, task) {
            plan.push(match task.status.state {
                TaskState::Running => Change::SupersedeTask { id: task.id.clone() },
                _ => withdraw(state, task), // it serves nobody yet
            });
        }
    }
    for slot in slots.values().filter(|slot| !slot.superseded.is_empty()) {
        if is_over(slot, active >= service.replicas()) {
            slot.superseded.iter().for_each(|task| plan.push(withdraw(state, task)));
        }
        plan.waiting.insert(service.id.clone());
    }
}

fn is_drained(state: &State, task: &Task) -> bool {
    let node = state.node_of(task);
    node.is_some_and(|node| node.is_alive() && node.spec.availability == Availability::Drain)
}

/// Whether the slot's superseded tasks have nothing to wait for any more.
fn is_over(slot: &Slot<'_>, complete: bool) -> bool {
    match slot.active {
        Some(next) => next.is_running() || is_stuck(next),
        // Either no task is wanted in this slot any more, or the replacement has failed.
        None => complete || slot.ended_by_itself().is_some(),
    }
}

/// Whether no node takes the replacement, or no address is free for it: then there is no room for both.
fn is_stuck(next: &Arc<Task>) -> bool {
    next.status.state <= TaskState::Pending && !next.status.err.is_empty()
}
