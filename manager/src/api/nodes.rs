//! `node ls | inspect | update | rm`, `join-token`.

use std::sync::Arc;

use swarm_model::{Availability, Node, NodeRole, Reachability};
use swarm_proto::control::control_client::ControlClient;
use swarm_proto::control::{
    Changed, Document, Documents, JoinTokenRequest, JoinTokenResponse, RemoveNodeRequest,
    UpdateNodeRequest,
};
use swarm_raft::Status as RaftStatus;
use swarm_state::{Change, State};
use tonic::Status;

use super::{Control, document, resolve};
use crate::error::ApiError;
use crate::members::authority;
use crate::members::health;

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

fn availability(word: &str) -> Result<Option<Availability>, Status> {
    Ok(Some(match word {
        "" => return Ok(None),
        "active" => Availability::Active,
        "pause" => Availability::Pause,
        "drain" => Availability::Drain,
        other => {
            let text = format!("unknown availability {other:?}: use active, pause or drain");
            return Err(Status::invalid_argument(text));
        }
    }))
}

fn role(word: &str) -> Result<Option<NodeRole>, Status> {
    Ok(Some(match word {
        "" => return Ok(None),
        "worker" => NodeRole::Worker,
        "manager" => NodeRole::Manager,
        other => {
            let text = format!("unknown role {other:?}: use worker or manager");
            return Err(Status::invalid_argument(text));
        }
    }))
}

impl Control {
    pub(super) async fn list_nodes_now(&self) -> Result<Documents, Status> {
        let stale = self.freshen().await;
        let raft = self.raft.status().borrow().clone();
        let state = self.store.read();
        let json = state.nodes().map(|node| document(&shown(node, &raft, &state)));
        Ok(Documents { json: json.collect(), stale })
    }

    pub(super) async fn inspect_node_now(&self, name: &str) -> Result<Document, Status> {
        self.barrier().await?;
        let raft = self.raft.status().borrow().clone();
        let state = self.store.read();
        let node = resolve::node(&state, &self.own_name(name))?;
        Ok(Document { json: document(&shown(&node, &raft, &state)) })
    }

    /// `self` means the node that is asked, as in Docker.
    pub(super) fn own_name(&self, name: &str) -> String {
        if name == "self" { self.node_id.to_string() } else { name.to_owned() }
    }

    pub(super) async fn update_node_now(
        &self,
        request: UpdateNodeRequest,
    ) -> Result<Changed, Status> {
        let availability = availability(&request.availability)?;
        let role = role(&request.role)?;
        self.barrier().await?;
        let node = resolve::node(&self.store.read(), &self.own_name(&request.name))?;
        let mut changed = Changed { id: node.id.to_string(), ..Changed::default() };
        let labels = !request.label_add.is_empty() || !request.label_rm.is_empty();
        if availability.is_some() || labels {
            let change = Change::UpdateNode {
                id: node.id.clone(),
                availability,
                label_add: request.label_add.into_iter().collect(),
                label_rm: request.label_rm,
            };
            changed.revision = self.proposer.propose_one(change).await?.revision;
        }
        changed.warnings = match role {
            Some(NodeRole::Manager) => self.promote(&node).await?,
            Some(NodeRole::Worker) => self.demote(&node).await?,
            None => Vec::new(),
        };
        Ok(changed)
    }

    pub(super) async fn remove_node_now(
        &self,
        request: RemoveNodeRequest,
    ) -> Result<Changed, Status> {
        self.barrier().await?;
        let node = resolve::node(&self.store.read(), &request.name)?;
        let votes = node.manager_status.as_ref().is_some_and(|manager| {
            self.raft.status().borrow().voters.iter().any(|v| v.id == manager.raft_id)
        });
        if votes && let Some(answer) = self.remove_voter(&node, &request).await? {
            return Ok(answer);
        }
        let change = Change::RemoveNode { id: node.id.clone(), force: request.force };
        let outcome = self.proposer.propose_one(change).await?;
        Ok(Changed { id: node.id.to_string(), revision: outcome.revision, warnings: vec![] })
    }

    /// Takes a manager that is lost for good out of the quorum. Only the leader can: what it answers, if
    /// that is another manager.
    async fn remove_voter(
        &self,
        node: &Node,
        request: &RemoveNodeRequest,
    ) -> Result<Option<Changed>, Status> {
        let hostname = &node.description.hostname;
        if node.is_alive() {
            return Err(Status::failed_precondition(format!(
                "node {hostname} is a manager and part of the quorum: demote it first (swarmctl node demote {hostname})",
            )));
        }
        if !request.force {
            return Err(Status::failed_precondition(format!(
                "node {hostname} is a manager and part of the quorum, though it is down: use --force if it is lost for good",
            )));
        }
        if let Some(leader) = self.other_leader()? {
            let mut client = ControlClient::new(self.peers.channel(&leader)?);
            // By id: here `self` may mean another node.
            let request = RemoveNodeRequest { name: node.id.to_string(), force: true };
            return client.remove_node(request).await.map(|answer| Some(answer.into_inner()));
        }
        if let Some(manager) = &node.manager_status {
            self.raft.remove(manager.raft_id).await.map_err(ApiError::from)?;
        }
        Ok(None)
    }

    pub(super) async fn join_token_now(
        &self,
        request: JoinTokenRequest,
    ) -> Result<JoinTokenResponse, Status> {
        self.barrier().await?;
        let cluster = self.cluster()?;
        let mut tokens = cluster.join_tokens.clone();
        let token = match request.role.as_str() {
            "worker" => &mut tokens.worker,
            "manager" => &mut tokens.manager,
            other => {
                return Err(Status::invalid_argument(format!(
                    "unknown role {other:?}: use worker or manager"
                )));
            }
        };
        if request.rotate {
            let ca = authority::issuing(&cluster).map_err(|e| Status::internal(e.to_string()))?;
            *token = authority::join_token(&ca);
        }
        let token = token.clone();
        if request.rotate {
            self.proposer.propose_one(Change::SetJoinTokens(tokens)).await?;
        }
        let addr = self.raft.status().borrow().leader.as_ref().map(|l| l.addr.clone());
        Ok(JoinTokenResponse { token, addr: addr.unwrap_or_else(|| self.addr.clone()) })
    }
}
