//! What the leader decides, as pure functions of the replicated state and of what it has heard: which
//! tasks to create, place, withdraw, stop and forget. Everything a decision needs comes in as data, so
//! that decisions can be tested and simulated by the thousand.

// Pure: clippy.toml lists what is banned, and why.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod drain;
mod handover;
mod keys;
mod level;
mod nodes;
mod root;
mod schedule;
mod service;
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) use keys::behind;
pub(crate) use root::waiting_for;
use swarm_model::{FeatureLevel, NodeId, ServiceId, TaskId, Timestamp};
use swarm_state::{Change, State};

/// What the leader has heard, beside the replicated state.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The leader's clock.
    pub now: Timestamp,
    /// For every node heard of: for how long it has been silent, and what its data plane is at.
    pub nodes: BTreeMap<NodeId, NodeFacts>,
    /// A node silent for longer is dead.
    pub dead_after: Duration,
    /// The newest feature level that the leader understands.
    pub speaks: FeatureLevel,
}

/// What the leader has heard of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// Time since it was last heard of.
    pub silence: Duration,
    /// Every change up to this revision that concerns the node is in its kernel.
    pub in_force: u64,
}

/// The most changes of services in one plan: so that the leader looks at the nodes again after a bounded time.
const MOST_CHANGES: usize = 2048;
/// The most of them that are one service's: so that others have their turn.
const SHARE: usize = 512;
/// A plan looks at no further service once it has looked at so many tasks.
const MOST_TASKS: usize = 20_000;

/// What to propose, and when to look again.
#[derive(Debug, Default)]
pub struct Plan {
    /// The changes, in order: what concerns nodes comes first.
    pub changes: Vec<Change>,
    /// A moment at which time alone changes a decision.
    pub wake_at: Option<Timestamp>,
    /// Services that wait for something no event names: an address, a node, an acknowledgement, a
    /// moment.
    pub waiting: BTreeSet<ServiceId>,
    /// How many of the services it came to; the others are to be looked at next.
    pub came_to: usize,
    /// Of these, the ones that there is more to do for than their share.
    pub unfinished: BTreeSet<ServiceId>,
    /// A generation of keys of encrypted networks to be added before all else: its secret is the leader's
    /// to draw.
    pub new_key: Option<u32>,
    /// How many more changes of the service at hand there is room for.
    room: usize,
    /// There was no room for some.
    is_cut: bool,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |other| other.min(at)));
    }

    /// Adds a change of the service at hand. Without room for it, it is decided again in a later plan: each change is
    /// sound without those that follow it.
    fn push(&mut self, change: Change) {
        if !self.is_full() {
            self.room -= 1;
            self.changes.push(change);
        }
    }

    /// Whether there is no room for what the service at hand still needs. That is noted: ask only if it needs something.
    fn is_full(&mut self) -> bool {
        self.is_cut |= self.room == 0;
        self.room == 0
    }
}

/// Decides about the nodes, and then for these services in this order, as far as it comes. `new_id` supplies ids for new
/// tasks.
pub fn plan(
    state: &State,
    facts: &Facts,
    services: &[ServiceId],
    new_id: &mut dyn FnMut() -> TaskId,
) -> Plan {
    let mut plan = Plan::default();
    let dead = nodes::judge(state, facts, &mut plan);
    keys::advance(state, facts, &mut plan);
    root::advance(state, &mut plan);
    if dead.is_empty() {
        level::advance(state, facts, &mut plan);
    }
    let of_nodes = plan.changes.len();
    let mut world = World {
        state,
        facts,
        reached: drain::Reached::new(state, facts),
        places: schedule::Places::new(state, &dead),
    };
    let mut tasks = 0;
    for id in services {
        let left = MOST_CHANGES - (plan.changes.len() - of_nodes);
        let more = state.count_of(id);
        if left == 0 || (tasks > 0 && tasks + more > MOST_TASKS) {
            break;
        }
        plan.came_to += 1;
        tasks += more;
        (plan.room, plan.is_cut) = (left.min(SHARE), false);
        if let Some(service) = state.service(id) {
            service::reconcile(&mut world, service, new_id, &mut plan);
        }
        if plan.is_cut {
            plan.unfinished.insert(id.clone());
        }
    }
    drain::heed_joining(state, facts, &mut plan);
    plan
}

/// What the decisions on all services share.
struct World<'a> {
    state: &'a State,
    facts: &'a Facts,
    reached: drain::Reached<'a>,
    places: schedule::Places<'a>,
}

#[cfg(test)]
mod tests;
