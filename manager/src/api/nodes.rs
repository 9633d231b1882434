//! Nodes: listed, inspected, updated, removed; and what hosts join with.

use std::sync::Arc;

use swarm_model::{Node, NodeRole, Reachability};
use swarm_raft::Status as RaftStatus;
use swarm_state::{Change, State};

use super::types::{Changed, JoinAnswer, Listed, NodeUpdate};
use super::{Api, resolve};
use crate::error::ApiError;
use crate::members::{authority, health};

impl Api {
    /// All nodes.
    pub async fn list_nodes(&self) -> Listed<Node> {
        let stale = self.freshen().await;
        let raft = self.raft.status().borrow().clone();
        let state = self.store.read();
        Listed { items: state.nodes().map(|node| shown(node, &raft, &state)).collect(), stale }
    }

    /// The node meant.
    pub async fn inspect_node(&self, name: &str) -> Result<Node, ApiError> {
        self.barrier().await?;
        let raft = self.raft.status().borrow().clone();
        let state = self.store.read();
        let node = resolve::node(&state, &self.own_name(name))?;
        Ok(shown(&node, &raft, &state))
    }

    /// Changes what is wanted of a node.
    pub async fn update_node(&self, name: &str, update: NodeUpdate) -> Result<Changed, ApiError> {
        self.barrier().await?;
        let node = resolve::node(&self.store.read(), &self.own_name(name))?;
        let mut changed = Changed { id: node.id.to_string(), ..Changed::default() };
        let NodeUpdate { availability, role, label_add, label_rm } = update;
        if availability.is_some() || !label_add.is_empty() || !label_rm.is_empty() {
            let id = node.id.clone();
            let change = Change::UpdateNode { id, availability, label_add, label_rm };
            changed.revision = self.proposer.propose_one(change).await?.revision;
        }
        changed.warnings = match role {
            Some(NodeRole::Manager) => self.promote(&node).await?,
            Some(NodeRole::Worker) => self.demote(&node).await?,
            None => Vec::new(),
        };
        Ok(changed)
    }

    /// Removes a node that is down; by `force` also one that is not, or a manager that is lost for good.
    pub async fn remove_node(&self, name: &str, force: bool) -> Result<Changed, ApiError> {
        self.barrier().await?;
        let node = resolve::node(&self.store.read(), name)?;
        let votes = node.manager_status.as_ref().is_some_and(|manager| {
            self.raft.status().borrow().voters.iter().any(|v| v.id == manager.raft_id)
        });
        if votes && let Some(answer) = self.remove_voter(&node, force).await? {
            return Ok(answer);
        }
        let change = Change::RemoveNode { id: node.id.clone(), force };
        let revision = self.proposer.propose_one(change).await?.revision;
        Ok(Changed { id: node.id.to_string(), revision, warnings: vec![] })
    }

    /// Takes a manager that is lost for good out of the quorum. Only the leader can: what it answers, if
    /// that is another manager.
    async fn remove_voter(&self, node: &Node, force: bool) -> Result<Option<Changed>, ApiError> {
        let hostname = &node.description.hostname;
        if node.is_alive() {
            return Err(ApiError::Precondition(format!(
                "node {hostname} is a manager and part of the quorum: demote it first (swarmctl node demote {hostname})",
            )));
        }
        if !force {
            return Err(ApiError::Precondition(format!(
                "node {hostname} is a manager and part of the quorum, though it is down: use --force if it is lost for good",
            )));
        }
        if let Some(mut leader) = self.other_leader()? {
            return leader.remove_node(&node.id).await.map(Some);
        }
        if let Some(manager) = &node.manager_status {
            self.raft.remove(manager.raft_id).await.map_err(ApiError::from)?;
        }
        Ok(None)
    }

    /// What hosts join with in a role; `rotate` replaces it by another first.
    pub async fn join_token(&self, role: NodeRole, rotate: bool) -> Result<JoinAnswer, ApiError> {
        self.barrier().await?;
        let cluster = self.cluster()?;
        let mut tokens = cluster.join_tokens.clone();
        let token = match role {
            NodeRole::Worker => &mut tokens.worker,
            NodeRole::Manager => &mut tokens.manager,
        };
        if rotate {
            let ca = authority::issuing(&cluster);
            let ca = ca.map_err(|e| ApiError::Internal(e.to_string()))?;
            *token = authority::join_token(&ca);
        }
        let token = token.clone();
        if rotate {
            self.proposer.propose_one(Change::SetJoinTokens(tokens)).await?;
        }
        let addr = self.raft.status().borrow().leader.as_ref().map(|l| l.addr.clone());
        Ok(JoinAnswer { token, addr: addr.unwrap_or_else(|| self.addr.clone()) })
    }
}

/// Fills in what is not replicated: who leads, and who answers.
fn shown(node: &Arc<Node>, raft: &RaftStatus, state: &State) -> Node {
    let mut node = (**node).clone();
    if let Some(manager) = &mut node.manager_status {
        manager.leader = raft.leader.as_ref().is_some_and(|l| l.id == manager.raft_id);
        let voter = raft.voters.iter().find(|voter| voter.id == manager.raft_id);
        manager.reachability = match voter.map(|voter| health::answers(voter, raft, state)) {
            Some(true) => Reachability::Reachable,
            Some(false) => Reachability::Unreachable,
            None => Reachability::Unknown,
        };
    }
    node
}
