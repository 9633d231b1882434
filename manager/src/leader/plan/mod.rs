//! What the leader decides, as pure functions of the replicated state and of what it has heard: which
//! tasks to create, place, withdraw, stop and forget. Everything a decision needs comes in as data, so
//! that decisions can be tested and simulated by the thousand.

// Pure: clippy.toml lists what is banned, and why.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod drain;
mod handover;
mod keys;
mod nodes;
mod root;
mod schedule;
mod service;
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) use keys::behind;
pub(crate) use root::waiting_for;
use swarm_model::{NodeId, ServiceId, TaskId, Timestamp};
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
}

/// What the leader has heard of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// Time since it was last heard of.
    pub silence: Duration,
    /// Every change up to this revision that concerns the node is in its kernel.
    pub in_force: u64,
}

/// What to propose, and when to look again.
#[derive(Debug, Default)]
pub struct Plan {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// A moment at which time alone changes a decision.
    pub wake_at: Option<Timestamp>,
    /// Services that wait for something no event names: an address, a node, an acknowledgement, a
    /// moment.
    pub waiting: BTreeSet<ServiceId>,
    /// A generation of keys of encrypted networks to be added before all else: its secret is the leader's
    /// to draw.
    pub new_key: Option<u32>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |other| other.min(at)));
    }
}

/// Decides for the services in `dirty`. `new_id` supplies ids for new tasks.
pub fn plan(
    state: &State,
    facts: &Facts,
    dirty: &BTreeSet<ServiceId>,
    new_id: &mut dyn FnMut() -> TaskId,
) -> Plan {
    let mut plan = Plan::default();
    let dead = nodes::judge(state, facts, &mut plan);
    for id in dirty {
        if let Some(service) = state.service(id) {
            service::reconcile(state, service, facts, new_id, &mut plan);
        }
    }
    schedule::place(state, dirty, &dead, &mut plan);
    drain::heed_joining(state, facts, &mut plan);
    keys::advance(state, facts, &mut plan);
    root::advance(state, &mut plan);
    plan
}

#[cfg(test)]
mod tests;
