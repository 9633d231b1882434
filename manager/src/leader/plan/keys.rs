//! Rotation of the keys of encrypted networks, in three steps: every node accepts the next generation,
//! then every node sends with it, then the former one is removed. Each step waits until the one before
//! is in force on every live node: so no packet meets a node that does not know its key. A dead node holds
//! up nothing; what it is told when it comes back is the newest.

use std::time::Duration;

use swarm_model::{Node, Rotation};
use swarm_state::{Change, State};

use super::{Facts, Plan};

/// How old keys may become.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How long the former generation is accepted after nobody sends with it: what is on its way arrives, and a
/// node that was cut off for a moment finds its way back.
const OVERLAP: Duration = Duration::from_secs(30);

/// Takes the next step if it is due, or wakes the leader when it will be.
pub(super) fn advance(state: &State, facts: &Facts, plan: &mut Plan) {
    let ring = state.key_ring();
    match ring.rotation() {
        Rotation::Announced(generation, revision) => {
            if is_everywhere(state, facts, revision) {
                plan.changes.push(Change::SendWithNetworkKey { generation });
            }
        }
        Rotation::Retiring(generation, revision) => {
            let due = ring.sending_since.plus(OVERLAP);
            if facts.now < due {
                plan.wake(due);
            } else if is_everywhere(state, facts, revision) {
                plan.changes.push(Change::RemoveNetworkKey { generation });
            }
        }
        Rotation::Idle => begin(state, facts, plan),
    }
}

/// Asks for a new generation if there is none, if the newest is too old, or if a user wants one.
fn begin(state: &State, facts: &Facts, plan: &mut Plan) {
    let ring = state.key_ring();
    let Some(newest) = ring.newest() else {
        if is_anything_encrypted(state) {
            plan.new_key = Some(1);
        }
        return;
    };
    let due = newest.created_at.plus(LIFETIME);
    if !ring.rotation_requested && facts.now < due {
        plan.wake(due);
    } else if ring.rotation_requested || is_anything_encrypted(state) {
        plan.new_key = Some(newest.generation + 1);
    }
}

fn is_anything_encrypted(state: &State) -> bool {
    state.networks().any(|network| network.is_encrypted())
}

/// The live nodes that may have keys and are not known to be at `revision`.
pub(crate) fn behind<'a>(
    state: &'a State,
    facts: &'a Facts,
    revision: u64,
) -> impl Iterator<Item = &'a Node> {
    let concerned = |node: &&Node| node.is_alive() && node.has_esp();
    let nodes = state.nodes().map(|node| &**node).filter(concerned);
    nodes
        .filter(move |node| facts.nodes.get(&node.id).is_none_or(|heard| heard.in_force < revision))
}

fn is_everywhere(state: &State, facts: &Facts, revision: u64) -> bool {
    behind(state, facts, revision).next().is_none()
}
