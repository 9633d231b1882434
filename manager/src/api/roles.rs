//! `node promote` and `node demote`: a role is changed in the state, and what follows from that is waited for.

use std::time::Duration;

use swarm_model::{Node, NodeId, NodeRole};
use swarm_raft::Status as RaftStatus;
use swarm_state::Change;
use tokio::time::timeout;

use super::Api;
use crate::error::ApiError;
use crate::members::health;

/// How long a changed role may take to be in force before the user is told that it is yet to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the other managers may take to answer one that has just become the leader.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

impl Api {
    /// Makes a node a manager; returns warnings once it votes, or that it does not yet.
    pub(super) async fn promote(&self, node: &Node) -> Result<Vec<String>, ApiError> {
        let change = Change::SetNodeRole { id: node.id.clone(), role: NodeRole::Manager };
        let raft_id = self.proposer.propose_one(change).await?.raft_id;
        let hostname = &node.description.hostname;
        if !node.is_alive() {
            return Ok(vec![format!(
                "node {hostname} is down: it becomes a manager when it is back"
            )]);
        }
        let mut status = self.raft.status();
        let votes = |status: &RaftStatus| status.voters.iter().any(|v| Some(v.id) == raft_id);
        match timeout(PATIENCE, status.wait_for(votes)).await {
            Ok(Ok(status)) => Ok(health::warnings(&status, &self.store.read())),
            Ok(Err(_)) => Err(ApiError::Unavailable("this manager is ending".into())),
            Err(_) => Ok(vec![format!(
                "node {hostname} is not part of the quorum yet: it goes on trying, its log says what it waits for"
            )]),
        }
    }

    /// Makes a manager a worker: it leaves the quorum. Returns warnings about those that are left.
    pub(super) async fn demote(&self, node: &Node) -> Result<Vec<String>, ApiError> {
        if node.manager_status.is_none() {
            return Ok(Vec::new());
        }
        // Only the leader knows who answers; and it is another one that demotes it.
        self.hand_over_to_demote(node).await?;
        if let Some(mut leader) = self.other_leader()? {
            return leader.demote(&node.id).await;
        }
        if node.is_manager() {
            self.check_quorum_without(node).await?;
            let change = Change::SetNodeRole { id: node.id.clone(), role: NodeRole::Worker };
            self.proposer.propose_one(change).await?;
        }
        match timeout(PATIENCE, self.is_worker(&node.id)).await {
            Ok(()) => {
                let status = self.raft.status().borrow().clone();
                Ok(health::warnings(&status, &self.store.read()))
            }
            Err(_) => Ok(vec![format!(
                "node {} is still part of the quorum: it goes on being demoted",
                node.description.hostname
            )]),
        }
    }

    /// If it is this manager that is to be demoted and it leads, another leads afterwards.
    async fn hand_over_to_demote(&self, node: &Node) -> Result<(), ApiError> {
        let status = self.raft.status().borrow().clone();
        let is_this = node.manager_status.as_ref().is_some_and(|m| m.raft_id == status.id);
        let leads = status.leader.as_ref().is_some_and(|leader| leader.id == status.id);
        if !is_this || !leads || status.voters.len() == 1 {
            return Ok(());
        }
        self.check_quorum_without(node).await?;
        self.raft.transfer_leadership(None).await.map_err(ApiError::from)
    }

    /// Whether those left could go on without it. A leader that has just been elected has yet to hear from them.
    async fn check_quorum_without(&self, node: &Node) -> Result<(), ApiError> {
        let Some(manager) = &node.manager_status else { return Ok(()) };
        let left = |status: &RaftStatus| {
            status.voters.iter().filter(|voter| voter.id != manager.raft_id).count()
        };
        let reachable = |status: &RaftStatus| {
            status.reachable.iter().filter(|id| **id != manager.raft_id).count()
        };
        let suffices =
            |status: &RaftStatus| left(status) == 0 || reachable(status) > left(status) / 2;
        let mut status = self.raft.status();
        // Not enough, or Raft has ended.
        let _ = timeout(ANSWER_PATIENCE, status.wait_for(suffices)).await;
        let (left, reachable) = (left(&status.borrow()), reachable(&status.borrow()));
        if left == 0 {
            let text = "attempting to demote the last manager of the swarm";
            return Err(ApiError::Precondition(text.into()));
        }
        let majority = left / 2 + 1;
        if reachable >= majority {
            return Ok(());
        }
        Err(ApiError::Precondition(format!(
            "demoting {} would lose the quorum: of the {left} managers left {majority} must be reachable, but {reachable} {}",
            node.description.hostname,
            if reachable == 1 { "is" } else { "are" },
        )))
    }

    /// Waits until a node is no manager any more.
    async fn is_worker(&self, id: &NodeId) {
        let mut events = self.store.events();
        loop {
            let manages = |node: &std::sync::Arc<Node>| node.manager_status.is_some();
            if !self.store.read().node(id).is_some_and(manages) {
                return;
            }
            // Missed events mean that it is to be looked at again, too.
            let _ = events.recv().await;
        }
    }
}
