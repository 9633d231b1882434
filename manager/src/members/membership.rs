//! How hosts become nodes of the swarm, and leave it.

use std::net::SocketAddr;
use std::sync::Arc;

use swarm_model::{Cluster, EngineDescription, FeatureLevel, Node, NodeId, NodeRole, NodeState};
use swarm_pki::{Connector, JoinToken, NODE_CERT_VALIDITY, Role, require_node};
use swarm_proto::membership::membership_client::MembershipClient;
use swarm_proto::membership::membership_server::Membership;
use swarm_proto::membership::{
    BecomeVoterRequest, Empty, IssueRequest, IssueResponse, Member, RenewRequest, RenewResponse,
};
use swarm_raft::Raft;
use swarm_state::Change;
use time::OffsetDateTime;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::clock;
use crate::error::ApiError;
use crate::members::authority;
use crate::members::managers::{Managers, require_member};
use crate::members::peers::Peers;
use crate::members::twin;
use crate::replica::proposer::Proposer;
use crate::replica::store::Store;

/// The gRPC service.
#[derive(Clone)]
pub struct MembershipService {
    pub(crate) store: Store,
    pub(crate) raft: Raft,
    pub(crate) peers: Peers,
    pub(crate) proposer: Proposer,
    pub(crate) managers: Managers,
    pub(crate) connector: Connector,
}

impl MembershipService {
    fn cluster(&self) -> Result<Arc<Cluster>, Status> {
        let cluster = self.store.read().cluster().cloned();
        cluster
            .ok_or_else(|| Status::unavailable("this manager has not caught up with the swarm yet"))
    }

    fn node(&self, id: &NodeId) -> Result<Arc<Node>, Status> {
        let node = self.store.read().node(id).cloned();
        let removed = || format!("node {id} was removed from the swarm");
        node.ok_or_else(|| Status::permission_denied(removed()))
    }

    /// A certificate, with those above it, and all roots to trust.
    fn issue_certificate(
        &self,
        cluster: &Cluster,
        csr_pem: &str,
        node: &NodeId,
        role: Role,
    ) -> Result<(String, String), Status> {
        let ca = authority::issuing(cluster).map_err(|e| Status::internal(e.to_string()))?;
        let now = OffsetDateTime::now_utc();
        let chain = ca
            .issue(csr_pem, node.as_str(), role, now, NODE_CERT_VALIDITY)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok((chain, cluster.trusted_roots()))
    }

    /// The Membership service of the leader, if that is another manager.
    async fn leader(&self) -> Result<Option<MembershipClient<Channel>>, Status> {
        let status = self.raft.status().borrow().clone();
        match status.leader {
            Some(leader) if leader.id == status.id => Ok(None),
            Some(leader) => Ok(Some(MembershipClient::new(self.peers.channel(&leader.addr)?))),
            None => Err(Status::unavailable("the swarm has no leader now: try again")),
        }
    }

    /// A manager that is known at another address may only have moved.
    async fn refuse_copy(&self, raft_id: u64, addr: &str) -> Result<(), Status> {
        let known = {
            let status = self.raft.status();
            let status = status.borrow();
            let is_it = |member: &&swarm_raft::Member| member.id == raft_id;
            status.voters.iter().chain(&status.learners).find(is_it).cloned()
        };
        let node = {
            let state = self.store.read();
            let has_it = |node: &&Arc<Node>| {
                node.manager_status.as_ref().is_some_and(|manager| manager.raft_id == raft_id)
            };
            state.nodes().find(has_it).map(|node| node.id.clone())
        };
        match (known, node) {
            (Some(known), Some(node)) => {
                twin::refuse(&self.connector, &node, &known.addr, addr).await
            }
            _ => Ok(()),
        }
    }

    /// Takes a manager that leaves out of the quorum. Only the leader can.
    async fn drop_voter(&self, node: &Node) -> Result<(), Status> {
        let Some(manager) = &node.manager_status else { return Ok(()) };
        let raft_id = manager.raft_id;
        let votes = self.raft.status().borrow().voters.iter().any(|voter| voter.id == raft_id);
        if votes {
            self.raft.remove(raft_id).await.map_err(ApiError::from)?;
        }
        Ok(())
    }
}

/// Which role a token gives; or why it gives none.
fn role_of(token: &str, cluster: &Cluster) -> Result<Role, Status> {
    let given: JoinToken = token
        .parse()
        .map_err(|e: swarm_pki::TokenError| Status::invalid_argument(e.to_string()))?;
    for (stored, role) in
        [(&cluster.join_tokens.worker, Role::Worker), (&cluster.join_tokens.manager, Role::Manager)]
    {
        let stored: JoinToken =
            stored.parse().map_err(|_| Status::internal("a stored join token is damaged"))?;
        if stored.secret == given.secret && stored.ca_digest == given.ca_digest {
            return Ok(role);
        }
    }
    Err(Status::permission_denied(
        "invalid join token: it may have been rotated; get the current one on a manager with: swarmctl join-token worker",
    ))
}

#[tonic::async_trait]
impl Membership for MembershipService {
    async fn issue(
        &self,
        request: Request<IssueRequest>,
    ) -> Result<Response<IssueResponse>, Status> {
        let request = request.into_inner();
        // A replica that lags behind would take a token that was rotated.
        self.proposer.barrier().await?;
        let cluster = self.cluster()?;
        let role = role_of(&request.token, &cluster)?;
        if request.addr.parse::<SocketAddr>().is_err() {
            return Err(Status::invalid_argument(format!("invalid address {:?}", request.addr)));
        }
        let id = clock::new_id();
        // First, as a request that is no good must not leave a node behind.
        let issued = self.issue_certificate(&cluster, &request.csr_pem, &id, role)?;
        let change = Change::AddNode {
            id: id.clone(),
            role: if role == Role::Manager { NodeRole::Manager } else { NodeRole::Worker },
            hostname: request.hostname,
            addr: request.addr,
            engine: EngineDescription {
                engine_version: request.engine_version,
                feature_level: FeatureLevel::new(request.feature_level).unwrap_or_default(),
            },
        };
        let outcome = self.proposer.propose_one(change).await?;
        tracing::info!("node {id} joins as a {role}");
        // The root may have been rotated meanwhile, and that waits only for nodes it knew of.
        let now = self.cluster()?;
        let (cert_pem, root_pem) = match now.issuing_ca() == cluster.issuing_ca() {
            true => issued,
            false => self.issue_certificate(&now, &request.csr_pem, &id, role)?,
        };
        let managers = self.managers.now().into_iter();
        let members = managers
            .map(|manager| Member { node_id: manager.node_id.to_string(), addr: manager.addr });
        Ok(Response::new(IssueResponse {
            node_id: id.to_string(),
            role: role.to_string(),
            cert_pem,
            root_pem,
            raft_id: outcome.raft_id.unwrap_or(0),
            managers: members.collect(),
            data_path_port: u32::from(cluster.spec.data_path_port),
            cluster_id: cluster.id.to_string(),
        }))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let peer = require_node(&request)?;
        let cluster = self.cluster()?;
        let id: NodeId = peer.node_id.as_str().into();
        let node = self.node(&id)?;
        let role = if node.is_manager() { Role::Manager } else { Role::Worker };
        let (cert_pem, root_pem) =
            self.issue_certificate(&cluster, &request.into_inner().csr_pem, &id, role)?;
        Ok(Response::new(RenewResponse { cert_pem, root_pem }))
    }

    async fn become_voter(
        &self,
        request: Request<BecomeVoterRequest>,
    ) -> Result<Response<Empty>, Status> {
        require_member(&self.store, &request)?;
        if let Some(mut leader) = self.leader().await? {
            return leader.become_voter(request.into_inner()).await;
        }
        let BecomeVoterRequest { raft_id, addr } = request.into_inner();
        if !self.managers.is_wanted(raft_id) {
            return Err(Status::permission_denied(format!(
                "manager {raft_id} at {addr} is not part of the swarm"
            )));
        }
        let voter = swarm_raft::Member { id: raft_id, addr };
        if self.raft.status().borrow().voters.contains(&voter) {
            return Ok(Response::new(Empty {}));
        }
        self.refuse_copy(raft_id, &voter.addr).await?;
        self.raft.add_voter(raft_id, voter.addr).await.map_err(ApiError::from)?;
        Ok(Response::new(Empty {}))
    }

    async fn leave(&self, request: Request<Empty>) -> Result<Response<Empty>, Status> {
        let peer = require_node(&request)?;
        let id: NodeId = peer.node_id.as_str().into();
        let node = self.node(&id)?;
        self.drop_voter(&node).await?;
        let change =
            Change::SetNodeState { id, state: NodeState::Down, message: "left the swarm".into() };
        self.proposer.propose_one(change).await?;
        Ok(Response::new(Empty {}))
    }
}
