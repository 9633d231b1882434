//! Which services the leader is to look at next. Each has its turn; a large one, which takes long to look at, is then left
//! alone for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use swarm_model::ServiceId;
use swarm_state::State;

use crate::leader::plan::Plan;

/// For how long a service is left alone that was looked at, for each of its tasks: so that looking takes a small part of
/// the leader's time, however often something of the service changes.
const REST_PER_TASK: Duration = Duration::from_micros(5);

/// For how long a service of so many tasks is left alone.
pub(crate) fn rest(tasks: usize) -> Duration {
    REST_PER_TASK.saturating_mul(u32::try_from(tasks).unwrap_or(u32::MAX))
}

/// Services of fewer tasks are looked at as often as they change.
const LARGE: usize = 2000;

/// The services to look at. Moments are counted from its beginning.
#[derive(Debug, Clone, Default)]
pub(crate) struct Agenda {
    /// Something of them changed.
    changed: BTreeSet<ServiceId>,
    /// They wait for something that no event names.
    waiting: BTreeSet<ServiceId>,
    /// They were looked at a moment ago, and are left alone until then.
    resting: BTreeMap<ServiceId, Duration>,
    /// Whose turn it was last.
    last: Option<ServiceId>,
}

impl Agenda {
    /// Something of these services changed.
    pub(crate) fn note(&mut self, services: impl IntoIterator<Item = ServiceId>) {
        self.changed.extend(services);
    }

    /// The services to look at now, in turn.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<ServiceId> {
        self.resting.retain(|_, until| *until > now);
        // What is due now may be what a service waits for that rests.
        let rests = |id: &&ServiceId| self.resting.contains_key(*id);
        self.changed.extend(self.waiting.iter().filter(rests).cloned());
        let all: BTreeSet<&ServiceId> = self.changed.union(&self.waiting).collect();
        let rests = |id: &&&ServiceId| !self.resting.contains_key(**id);
        let Some(last) = &self.last else {
            return all.iter().filter(rests).copied().cloned().collect();
        };
        let after = all.range::<&ServiceId, _>((Bound::Excluded(last), Bound::Unbounded));
        let before = all.range::<&ServiceId, _>((Bound::Unbounded, Bound::Included(last)));
        after.chain(before).filter(rests).copied().cloned().collect()
    }

    /// Takes note of what became of `due` services.
    pub(crate) fn looked_at(
        &mut self,
        due: &[ServiceId],
        plan: &Plan,
        state: &State,
        now: Duration,
    ) {
        let (looked_at, others) = due.split_at(plan.came_to);
        for id in looked_at {
            self.changed.remove(id);
            self.waiting.remove(id);
            let tasks = state.count_of(id);
            if tasks >= LARGE && !plan.unfinished.contains(id) {
                self.resting.insert(id.clone(), now + rest(tasks));
            }
        }
        self.changed.extend(plan.unfinished.iter().chain(others).cloned());
        self.waiting.extend(plan.waiting.iter().cloned());
        self.last = looked_at.last().cloned().or(self.last.take());
    }

    /// When to look again even if nothing happens.
    pub(crate) fn wake_at(&self, now: Duration) -> Option<Duration> {
        self.changed.iter().map(|id| self.resting.get(id).copied().unwrap_or(now)).min()
    }

    /// The services that wait for something.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> &BTreeSet<ServiceId> {
        &self.waiting
    }
}
