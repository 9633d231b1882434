//! Where the managers are that a node may turn to.

use swarm_model::ManagerAddress;
use swarm_pki::require_manager;
use swarm_raft::{Member, Raft, Role, Status};
use swarm_state::State;
use tonic::Request;

use crate::replica::store::Store;

/// Knows the managers now; cheap to clone.
#[derive(Clone)]
pub(crate) struct Managers {
    pub(crate) store: Store,
    pub(crate) raft: Raft,
}

impl Managers {
    /// The managers that vote: one that left, or is not up to date yet, is of no use to a node.
    pub(crate) fn now(&self) -> Vec<ManagerAddress> {
        let voters = self.raft.status().borrow().voters.clone();
        voting(&self.store.read(), &voters)
    }

    /// Whether this manager still hears what the swarm decides: one that was taken out of the quorum does not.
    pub(crate) fn includes_this(&self) -> bool {
        is_part(&self.raft.status().borrow())
    }

    /// Calls `end` whenever this manager begins to hear nothing of the swarm any more; ends with Raft.
    pub(crate) async fn when_without_this(&self, end: impl Fn()) {
        let mut status = self.raft.status();
        while status.wait_for(|status| !is_part(status)).await.is_ok() {
            end();
            if status.wait_for(is_part).await.is_err() {
                return;
            }
        }
    }

    /// Whether a node is, and is to be, the manager `raft_id`.
    pub(crate) fn is_wanted(&self, raft_id: u64) -> bool {
        let state = self.store.read();
        let is_it = |manager: &swarm_model::ManagerStatus| manager.raft_id == raft_id;
        let mut managers = state.nodes().filter(|node| node.is_manager());
        managers.any(|node| node.manager_status.as_ref().is_some_and(is_it))
    }
}

/// Lets managers pass, but not those that were removed or demoted: their certificates are good for a while yet.
pub(crate) fn require_member<T>(store: &Store, request: &Request<T>) -> Result<(), tonic::Status> {
    let peer = require_manager(request)?;
    is_member(&store.read(), &peer.node_id)
}

/// Whether a node is a manager; or why not.
pub(crate) fn is_member(state: &State, node: &str) -> Result<(), tonic::Status> {
    let text = match state.node(&node.into()) {
        Some(node) if node.manager_status.is_some() => return Ok(()),
        Some(_) => format!("node {node} is a manager no more"),
        None => format!("node {node} is not part of the swarm"),
    };
    // The code by which a proposal is tried again: this replica may be the one that is behind.
    Err(tonic::Status::failed_precondition(text))
}

fn is_part(status: &Status) -> bool {
    !matches!(status.role, Role::Removed | Role::Stopped | Role::Failed(_))
}

fn voting(state: &State, voters: &[Member]) -> Vec<ManagerAddress> {
    let managers = state.nodes().filter_map(|node| {
        let manager = node.manager_status.as_ref()?;
        // Raft knows of a new address first: it is told by the manager itself, which has no session yet.
        let voter = voters.iter().find(|voter| voter.id == manager.raft_id)?;
        Some(ManagerAddress { node_id: node.id.clone(), addr: voter.addr.clone() })
    });
    managers.collect()
}

#[cfg(test)]
mod tests {
    use swarm_model::{NodeRole, Timestamp};
    use swarm_state::{Change, Command};

    use super::*;

    #[test]
    fn a_manager_that_left_the_quorum_is_not_named() {
        let mut state = State::new();
        for (revision, id, role) in
            [(1, "a", NodeRole::Manager), (2, "b", NodeRole::Manager), (3, "c", NodeRole::Worker)]
        {
            let add = Change::AddNode {
                id: id.into(),
                role,
                hostname: "host".into(),
                addr: format!("192.0.2.{revision}:2377"),
                engine: Default::default(),
            };
            state.apply(revision, Command { now: Timestamp(1), changes: vec![add] });
        }
        let raft_id = state.node(&"b".into()).unwrap().manager_status.as_ref().unwrap().raft_id;
        let voters = [Member { id: raft_id, addr: "192.0.2.2:2377".into() }];
        let named = voting(&state, &voters);
        assert_eq!(named, [ManagerAddress { node_id: "b".into(), addr: "192.0.2.2:2377".into() }]);
    }
}
