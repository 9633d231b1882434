//! A service's tasks, ordered by slot.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_model::{Task, TaskState, Timestamp};

/// The tasks of one slot.
#[derive(Debug, Default)]
pub(super) struct Slot<'a> {
    /// The task that is wanted and has not ended.
    pub(super) active: Option<&'a Arc<Task>>,
    /// Tasks that serve until `active` does.
    pub(super) superseded: Vec<&'a Arc<Task>>,
    /// Tasks on their way out.
    pub(super) leaving: Vec<&'a Arc<Task>>,
    /// Tasks that ended, the one created last first.
    pub(super) ended: Vec<&'a Arc<Task>>,
}

/// Sorts tasks into slots.
pub(super) fn by_slot<'a>(tasks: impl Iterator<Item = &'a Arc<Task>>) -> BTreeMap<u64, Slot<'a>> {
    let mut slots: BTreeMap<u64, Slot<'a>> = BTreeMap::new();
    for task in tasks {
        let slot = slots.entry(task.slot).or_default();
        if task.is_finished() {
            slot.ended.push(task);
        } else if task.holds_slot() {
            slot.active = Some(task);
        } else if task.is_wanted() {
            slot.superseded.push(task);
        } else {
            slot.leaving.push(task);
        }
    }
    for slot in slots.values_mut() {
        slot.ended.sort_by_key(|task| std::cmp::Reverse(age(task)));
    }
    slots
}

impl<'a> Slot<'a> {
    /// Whether all its tasks have ended.
    pub(super) fn is_empty(&self) -> bool {
        self.active.is_none() && self.superseded.is_empty() && self.leaving.is_empty()
    }

    /// The slot's last task, if it ended by itself: nobody had taken it out of service.
    pub(super) fn ended_by_itself(&self) -> Option<&'a Arc<Task>> {
        let last = self.ended.first()?;
        let mut others = self.leaving.iter().chain(&self.superseded);
        let newer = others.any(|task| age(task) > age(last));
        if self.active.is_some() || newer || last.withdrawn.is_some() {
            return None;
        }
        let itself = [TaskState::Complete, TaskState::Failed, TaskState::Rejected];
        itself.contains(&last.status.state).then_some(*last)
    }
}

/// Orders the tasks of a slot by creation. (A dead node's task may end long after its replacement.)
fn age(task: &Task) -> (Timestamp, u64) {
    (task.meta.created_at, task.meta.version.index)
}
