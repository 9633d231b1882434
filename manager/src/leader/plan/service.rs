//! One service: from the tasks it has to the tasks it should have.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use swarm_model::{
    NodeId, RestartCondition, Service, Task, TaskId, TaskState, Timestamp, UpdateState,
    UpdateStatus,
};
use swarm_state::{Change, State};

use super::slots::{Slot, by_slot};
use super::{Plan, World, drain, handover, schedule};

/// Adds to `plan` what brings the service closer to its spec.
pub(super) fn reconcile(
    world: &mut World<'_>,
    service: &Arc<Service>,
    new_id: &mut dyn FnMut() -> TaskId,
    plan: &mut Plan,
) {
    let (state, now) = (world.state, world.facts.now);
    let slots = by_slot(state.tasks_of(&service.id));
    give_up_lost_tasks(state, &slots, plan);
    drain::advance(state, &slots, &mut world.reached, plan);
    let count = active(state, &slots).count() as u64;
    handover::advance(state, service, &slots, count, plan);
    if count > service.replicas() {
        shrink(state, service, &slots, count - service.replicas(), plan);
    } else {
        let mut placing = schedule::Placing::new(&mut world.places, service, new_id);
        let missing = service.replicas() - count;
        grow(state, service, &slots, missing, now, &mut placing, plan);
        update(state, service, &slots, now, plan);
        placing.place_pending(plan);
    }
    retry_allocation(state, &slots, plan);
    forget(state, service, &slots, count, plan);
}

/// Whether a task's node is dead: it is replaced at once, wherever it may still run.
fn is_lost(state: &State, task: &Task) -> bool {
    task.node_id.is_some() && state.node_of(task).is_none_or(|n| !n.is_alive())
}

/// The tasks that are wanted, unfinished and on no dead node.
fn active<'a>(
    state: &'a State,
    slots: &'a BTreeMap<u64, Slot<'a>>,
) -> impl Iterator<Item = &'a Arc<Task>> {
    slots.values().filter_map(|slot| slot.active).filter(|task| !is_lost(state, task))
}

fn give_up_lost_tasks(state: &State, slots: &BTreeMap<u64, Slot<'_>>, plan: &mut Plan) {
    let wanted = slots.values().flat_map(|slot| slot.active.iter().chain(&slot.superseded));
    for task in wanted {
        if is_lost(state, task) {
            plan.push(drain::stop(state, task));
        }
    }
}

/// Withdraws tasks that are too many: first those that do not run, then from the node that has most of
/// this service, then from the highest slot.
fn shrink(
    state: &State,
    service: &Service,
    slots: &BTreeMap<u64, Slot<'_>>,
    excess: u64,
    plan: &mut Plan,
) {
    let (running, others): (Vec<&Arc<Task>>, Vec<&Arc<Task>>) =
        active(state, slots).partition(|task| task.is_running());
    let mut on_node: BTreeMap<Option<&NodeId>, usize> = BTreeMap::new();
    for task in running.iter().chain(&others) {
        *on_node.entry(task.node_id.as_ref()).or_default() += 1;
    }
    let mut excess = usize::try_from(excess).unwrap_or(usize::MAX);
    for tasks in [others, running] {
        // Of each node, its tasks here, the highest slot last.
        let mut left: BTreeMap<Option<&NodeId>, Vec<&Arc<Task>>> = BTreeMap::new();
        tasks.iter().for_each(|task| left.entry(task.node_id.as_ref()).or_default().push(task));
        let rank = |node: &Option<&NodeId>, tasks: &[&Arc<Task>], on_node: &BTreeMap<_, usize>| {
            tasks.last().map(|task| (on_node[node], task.slot))
        };
        let mut next: BinaryHeap<((usize, u64), Option<&NodeId>)> = left
            .iter()
            .filter_map(|(node, tasks)| Some((rank(node, tasks, &on_node)?, *node)))
            .collect();
        while excess > 0
            && !plan.is_full()
            && let Some((_, node)) = next.pop()
        {
            let Some(task) = left.get_mut(&node).and_then(Vec::pop) else { continue };
            plan.push(withdraw(state, task));
            excess -= 1;
            on_node.entry(node).and_modify(|count| *count -= 1);
            next.extend(rank(&node, &left[&node], &on_node).map(|rank| (rank, node)));
        }
    }
    plan.waiting.insert(service.id.clone());
}

/// The first step of stopping a task: out of DNS and the balancers. What has no node yet has no traffic.
pub(super) fn withdraw(state: &State, task: &Task) -> Change {
    if task.node_id.is_none() {
        drain::stop(state, task)
    } else {
        Change::WithdrawTask { id: task.id.clone() }
    }
}

/// Fills `missing` slots: first those whose task ended by itself, as the restart policy says; then those whose
/// task is superseded; then the lowest that are free.
fn grow(
    state: &State,
    service: &Service,
    slots: &BTreeMap<u64, Slot<'_>>,
    mut missing: u64,
    now: Timestamp,
    placing: &mut schedule::Placing<'_, '_>,
    plan: &mut Plan,
) {
    let occupied = |slot: &Slot<'_>| slot.active.is_some_and(|task| !is_lost(state, task));
    let mut create = |slot: u64, plan: &mut Plan| plan.push(placing.create(slot));
    for (number, slot) in slots {
        let Some(last) = slot.ended_by_itself().filter(|_| !occupied(slot)) else { continue };
        if missing == 0 || plan.is_full() {
            return;
        }
        missing -= 1;
        match restart(service, last) {
            Restart::Never => {}
            Restart::At(moment) if moment > now => {
                plan.wake(moment);
                plan.waiting.insert(service.id.clone());
            }
            Restart::At(_) => create(*number, plan),
        }
    }
    let updating = service.update_status.as_ref().is_some_and(|u| u.state == UpdateState::Updating);
    let superseded = slots.iter().filter(|(_, slot)| {
        !slot.superseded.is_empty() && !occupied(slot) && slot.ended_by_itself().is_none()
    });
    let superseded: BTreeSet<u64> = superseded.map(|(number, _)| *number).collect();
    for number in superseded.iter().copied().chain((1..).filter(|n| !superseded.contains(n))) {
        if missing == 0 || plan.is_full() {
            return;
        }
        match slots.get(&number) {
            Some(slot) if occupied(slot) || slot.ended_by_itself().is_some() => continue,
            // Stop first: the new task takes the place of one that has ended.
            Some(slot) if updating && slot.leaving.iter().any(|task| !is_lost(state, task)) => {}
            _ => create(number, plan),
        }
        missing -= 1;
    }
}

enum Restart {
    Never,
    At(Timestamp),
}

fn restart(service: &Service, last: &Task) -> Restart {
    // By the managers' clock: the node's own may be anywhere.
    let ended = last.meta.updated_at;
    // The user changed the spec since: that is an order to run it.
    let ordered = service.update_status.as_ref().is_some_and(|update| {
        update.state == UpdateState::Updating && last.meta.created_at < update.started_at
    });
    if ordered || *last.spec != service.spec.task_template {
        return Restart::At(Timestamp::default());
    }
    let policy = &service.spec.task_template.restart_policy;
    let failed = last.status.state != TaskState::Complete;
    match policy.condition {
        RestartCondition::None => Restart::Never,
        RestartCondition::OnFailure if !failed => Restart::Never,
        _ => Restart::At(ended.plus(Duration::from_nanos(policy.delay))),
    }
}

/// Whether a task that ended by itself did what it was meant to: it is not to run again.
fn is_done(service: &Service, task: &Task) -> bool {
    task.status.state == TaskState::Complete && matches!(restart(service, task), Restart::Never)
}

/// Replaces tasks of an older spec, one at a time: the next only when all others run.
fn update(
    state: &State,
    service: &Service,
    slots: &BTreeMap<u64, Slot<'_>>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let Some(status) = service.update_status.as_ref() else { return };
    if status.state != UpdateState::Updating || service.pending_delete {
        return;
    }
    let set = |state, message: String, plan: &mut Plan| {
        let completed_at = (state == UpdateState::Completed).then_some(now);
        let status = UpdateStatus { state, message, completed_at, ..status.clone() };
        plan.push(Change::SetUpdateStatus { id: service.id.clone(), status });
    };
    let current = |task: &Task| *task.spec == service.spec.task_template;
    let (done, failed): (Vec<&Arc<Task>>, Vec<&Arc<Task>>) = slots
        .values()
        .filter_map(Slot::ended_by_itself)
        .filter(|task| current(task))
        .partition(|task| is_done(service, task));
    if let Some(task) = failed.iter().find(|task| task.meta.created_at >= status.started_at) {
        let message = format!("update paused due to failure of task {}", task.name());
        return set(UpdateState::Paused, message, plan);
    }
    let (fresh, outdated): (Vec<&Arc<Task>>, Vec<&Arc<Task>>) =
        active(state, slots).partition(|task| current(task));
    let all_run = fresh.iter().all(|task| task.is_running());
    let there = fresh.len() + outdated.len() + done.len();
    // More are there if tasks of a one-shot service had ended before it was scaled down.
    let complete = there as u64 >= service.replicas();
    if !all_run || !complete {
        return;
    }
    match outdated.iter().min_by_key(|t| (t.is_running(), t.slot)) {
        Some(task) => plan.push(withdraw(state, task)),
        None => set(UpdateState::Completed, "update completed".into(), plan),
    }
}

/// Tries again for tasks that found no free address, once there may be one.
fn retry_allocation(state: &State, slots: &BTreeMap<u64, Slot<'_>>, plan: &mut Plan) {
    let unallocated = slots.values().filter_map(|slot| slot.active);
    for task in unallocated.filter(|task| task.status.state == TaskState::New) {
        plan.waiting.insert(task.service_id.clone());
        if task.spec.networks.iter().all(|n| state.free_addresses(&n.target) > 0) {
            plan.push(Change::AllocateTask { id: task.id.clone() });
        }
    }
}

/// Forgets old history: all of a slot that was scaled away, and all but the newest few of the others.
fn forget(
    state: &State,
    service: &Service,
    slots: &BTreeMap<u64, Slot<'_>>,
    active: u64,
    plan: &mut Plan,
) {
    if service.pending_delete {
        if slots.values().all(Slot::is_empty) {
            plan.push(Change::PurgeService { id: service.id.clone() });
        }
        return;
    }
    let limit = state.cluster().map_or(5, |c| c.spec.task_history_retention_limit) as usize;
    // Of the slots whose task ended by itself, as many stand for wanted tasks as do not run: see `grow`.
    let mut missing = service.replicas().saturating_sub(active);
    for slot in slots.values() {
        let by_itself = slot.ended_by_itself().is_some();
        let stands_for_one = by_itself && missing > 0;
        missing -= u64::from(stands_for_one);
        let scaled_away =
            slot.is_empty() && !stands_for_one && (by_itself || active >= service.replicas());
        let keep = if scaled_away { 0 } else { limit.max(usize::from(by_itself)) };
        for task in slot.ended.iter().skip(keep) {
            plan.push(Change::RemoveTask { id: task.id.clone() });
        }
    }
}
