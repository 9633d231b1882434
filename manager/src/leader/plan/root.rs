//! Rotation of the root: every node gets a certificate of the next authority by itself; when all nodes in the state
//! have one, the former authority goes. A node that is down holds that up: with the former authority gone it could not
//! come back.

use swarm_model::{Node, NodeState};
use swarm_state::{Change, State};

use super::Plan;

/// Ends a rotation that waits for nobody any more.
pub(super) fn advance(state: &State, plan: &mut Plan) {
    let rotation = state.cluster().and_then(|cluster| cluster.root_rotation.as_ref());
    if let Some(rotation) = rotation
        && state.without_next_certificate().next().is_none()
    {
        plan.changes.push(Change::FinishRootRotation { revision: rotation.revision });
    }
}

/// The nodes that a rotation waits for, by name, each with why if that is known.
pub(crate) fn waiting_for(state: &State) -> Vec<String> {
    let named = |node: &Node| match (node.status.state, &*node.status.message) {
        (NodeState::Ready, "") => node.description.hostname.clone(),
        (NodeState::Unknown, "") => format!("{} (it was never there)", node.description.hostname),
        (NodeState::Down, "") => format!("{} (it is down)", node.description.hostname),
        (_, why) => format!("{} ({why})", node.description.hostname),
    };
    state.without_next_certificate().map(named).collect()
}
