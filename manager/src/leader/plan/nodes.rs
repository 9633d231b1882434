//! Which nodes are dead, and which were only thought to be.

use std::collections::BTreeSet;

use swarm_model::{Node, NodeId, NodeState, Timestamp};
use swarm_state::{Change, State};

use super::{Facts, NodeFacts, Plan};

/// Declares nodes dead that were silent for too long, and alive again those heard of since. Returns
/// the former.
pub(super) fn judge<'a>(state: &'a State, facts: &Facts, plan: &mut Plan) -> BTreeSet<&'a NodeId> {
    let mut dead = BTreeSet::new();
    for node in state.nodes() {
        let Some(heard) = facts.nodes.get(&node.id) else { continue };
        let id = node.id.clone();
        if !node.is_alive() {
            if is_back(node, heard, facts) {
                let (state, message) = (NodeState::Ready, "heard of again".to_owned());
                plan.changes.push(Change::SetNodeState { id, state, message });
            }
        } else if heard.silence > facts.dead_after {
            dead.insert(&node.id);
            plan.changes.push(Change::SetNodeState {
                id,
                state: NodeState::Down,
                message: format!("not heard of for {:.1} s", heard.silence.as_secs_f64()),
            });
        } else {
            plan.wake(dies_at(facts, heard.silence));
        }
    }
    dead
}

/// Whether a node that counts as dead goes on talking: it was its manager that could not be heard, so
/// it opens no new session by which it would be known to be back. Two proofs, since either alone can
/// deceive: it has programmed what came after its death (a new leader counts every node as just heard
/// of), and it was heard long after (a node that leaves is heard of a moment longer).
fn is_back(node: &Node, heard: &NodeFacts, facts: &Facts) -> bool {
    let since = facts.now.since(node.meta.updated_at);
    node.status.state == NodeState::Down
        && heard.in_force > node.meta.version.index
        && heard.silence <= facts.dead_after
        && since > heard.silence + facts.dead_after
}

fn dies_at(facts: &Facts, silence: std::time::Duration) -> Timestamp {
    let left = facts.dead_after.saturating_sub(silence);
    facts.now.plus(left + std::time::Duration::from_millis(1))
}
