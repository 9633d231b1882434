//! A manager: Raft, the replica it drives, and the services and loops around it.

use std::sync::Arc;
use std::time::Duration;

use swarm_model::{Cluster, ClusterSpec, JoinTokens, ManagerLock, Meta, Node, NodeId, NodeRole};
use swarm_pki::{Connector, ExpectedPeer, PeerIdentity, RootCa, require_manager};
use swarm_proto::control::control_server::ControlServer;
use swarm_proto::dispatch::dispatcher_server::DispatcherServer;
use swarm_proto::membership::membership_server::MembershipServer;
use swarm_proto::membership::peer_server::PeerServer;
use swarm_raft::{
    ConnectError, MAX_COMMAND, MembershipError, Options, Outsider, ProposeError, Raft, StartError,
};
use swarm_state::{Change, State};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::{Routes, interceptor::InterceptedService};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::api::{Api, Images, fresh_unlock_key};
use crate::clock;
use crate::handle::Handle;
use crate::leader::demotions::Demotions;
use crate::leader::fleet::Fleet;
use crate::leader::lead::Leader;
use crate::members::authority;
use crate::members::managers::{Managers, is_member, require_member};
use crate::members::membership::MembershipService;
use crate::members::peer::PeerService;
use crate::members::peers::Peers;
use crate::replica::dialect::Dialect;
use crate::replica::lock::{self, Files};
use crate::replica::proposer::Proposer;
use crate::replica::store::Store;
use crate::sessions::dispatcher::{DispatcherService, distribute};
use crate::sessions::link::Link;
use crate::sessions::reports::Reports;
use crate::sessions::table::Sessions;
use crate::sessions::views::Views;
use crate::transport::Control;

/// Proposals of other managers of up to this size are taken: the largest command and what is around it.
const LARGEST_COMMAND: usize = MAX_COMMAND + (64 << 10);
/// What hosts without a certificate may send: a token, a certificate request, a name, an address.
const LARGEST_REQUEST: usize = 32 << 10;

/// How long the only manager may take to lead.
const ELECTION: Duration = Duration::from_secs(20);

/// What a manager needs to start.
pub struct ManagerOptions {
    /// This node's id.
    pub node_id: NodeId,
    /// Where other nodes reach it, `host:port`.
    pub addr: String,
    /// Raft: its id there, where it keeps log and snapshots, its times.
    pub raft: Options,
    /// Connects to other nodes.
    pub connector: Connector,
    /// Checks images.
    pub images: Arc<dyn Images>,
    /// Keeps this manager's files.
    pub files: Arc<dyn Files>,
    /// What it speaks.
    pub dialect: Dialect,
}

/// What `init` decides about a new cluster.
pub struct NewCluster {
    /// The authority that issued this node's certificate.
    pub ca: RootCa,
    /// The user's choices.
    pub spec: ClusterSpec,
    /// This node's host name.
    pub hostname: String,
}

/// A failure to start or to bring up a manager.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Raft does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Raft does not begin a cluster.
    #[error("cannot begin the cluster: {0}")]
    Bootstrap(#[from] MembershipError),
    /// A first change was not made.
    #[error("{0}")]
    Propose(String),
    /// A clean end was not possible.
    #[error("cannot shut down raft: {0}")]
    Shutdown(#[from] std::io::Error),
}

/// A running manager.
pub struct Manager {
    options: ManagerOptions,
    raft: Raft,
    api: Api,
    membership: MembershipService,
    dispatcher: DispatcherService,
    sessions: Sessions,
    /// End when this is dropped.
    _loops: JoinSet<()>,
}

/// Lets managers pass, and tells Raft of those that were removed or demoted. Between leaders there are none: this
/// replica may be behind, and have to hear from one that it does not know of yet.
fn require_peer(
    store: &Store,
    raft: &watch::Receiver<swarm_raft::Status>,
    mut request: Request<()>,
) -> Result<Request<()>, Status> {
    let peer = require_manager(&request)?;
    let leader = raft.borrow().leader.as_ref().map(|leader| leader.id);
    let outsider = {
        let state = store.read();
        let member = is_member(&state, &peer.node_id);
        member.err().filter(|_| leader.is_some_and(|id| is_led_by_another(&state, id, &peer)))
    };
    if let Some(why) = outsider {
        request.extensions_mut().insert(Outsider(why));
    }
    Ok(request)
}

/// Whether a leader is another node, one that the replica knows.
fn is_led_by_another(state: &State, leader: u64, peer: &PeerIdentity) -> bool {
    let leads = |node: &&Arc<Node>| {
        node.manager_status.as_ref().is_some_and(|manager| manager.raft_id == leader)
    };
    state.nodes().find(leads).is_some_and(|node| node.id.as_str() != peer.node_id)
}

/// Raft's view of the connector: managers only.
#[derive(Clone)]
struct RaftConnector(Connector);

impl swarm_raft::Connector for RaftConnector {
    async fn connect(&self, addr: &str) -> Result<Channel, ConnectError> {
        self.0
            .connect(addr, ExpectedPeer::Manager)
            .await
            .map_err(|e| ConnectError { addr: addr.to_owned(), reason: e.to_string() })
    }
}

impl Manager {
    /// Starts Raft from what is on disk, and everything around it.
    pub async fn start(options: ManagerOptions) -> Result<Manager, ManagerError> {
        let (store, replica) = Store::new(options.dialect.clone());
        let connector = RaftConnector(options.connector.clone());
        let raft = Raft::start(options.raft.clone(), replica, connector).await?;
        let peers = Peers::new(options.connector.clone());
        let proposer = Proposer::new(raft.clone(), peers.clone(), store.clone());
        let fleet = Fleet::new();
        let sessions = Sessions::new();
        let reports = Reports::new(store.clone());
        let managers = Managers { store: store.clone(), raft: raft.clone() };
        let api = Api {
            node_id: options.node_id.clone(),
            addr: options.addr.clone(),
            store: store.clone(),
            raft: raft.clone(),
            peers: peers.clone(),
            proposer: proposer.clone(),
            fleet: fleet.clone(),
            images: Arc::clone(&options.images),
        };
        let membership = MembershipService {
            store: store.clone(),
            raft: raft.clone(),
            peers: peers.clone(),
            proposer: proposer.clone(),
            managers: managers.clone(),
            connector: options.connector.clone(),
        };
        let dispatcher = DispatcherService {
            store: store.clone(),
            proposer: proposer.clone(),
            sessions: sessions.clone(),
            views: Views::new(store.clone()),
            reports: reports.clone(),
            managers: managers.clone(),
            own: options.node_id.clone(),
            raft: raft.clone(),
            connector: options.connector.clone(),
        };
        let mut loops = JoinSet::new();
        let outdated = sessions.clone();
        loops.spawn(async move {
            // Their nodes would be told what was true once.
            managers.when_without_this(|| outdated.end_all()).await;
        });
        loops.spawn(reports.gather(proposer.clone()));
        loops.spawn(distribute(store.clone(), sessions.clone()));
        let ends = sessions.clone();
        let link = Link { raft: raft.clone(), peers, sessions, fleet: fleet.clone() };
        loops.spawn(link.run());
        let demotions =
            Demotions { store: store.clone(), raft: raft.clone(), proposer: proposer.clone() };
        loops.spawn(demotions.run());
        loops.spawn(lock::follow(store.clone(), Arc::clone(&options.files)));
        loops.spawn(
            Leader { node_id: options.node_id.clone(), store, raft: raft.clone(), fleet, proposer }
                .run(),
        );
        Ok(Manager { options, raft, api, membership, dispatcher, sessions: ends, _loops: loops })
    }

    /// Begins a cluster of this one manager.
    pub async fn bootstrap(&self, new: NewCluster) -> Result<JoinTokens, ManagerError> {
        self.raft.bootstrap(self.options.addr.clone()).await?;
        let join_tokens = authority::join_tokens(&new.ca);
        let locks = new.spec.encryption_config.auto_lock_managers;
        let unlock_key = locks.then(fresh_unlock_key);
        let manager_lock = ManagerLock { unlock_key, revision: 0 };
        let cluster = Cluster {
            id: new.ca.cert().cluster_id().into(),
            meta: Meta::created(0, clock::now()),
            feature_level: self.options.dialect.engine.feature_level,
            spec: new.spec,
            root_ca: authority::document(&new.ca),
            join_tokens: join_tokens.clone(),
            manager_lock,
            root_rotation: None,
        };
        self.propose_first(Change::CreateCluster(Box::new(cluster))).await?;
        let node = Change::AddNode {
            id: self.options.node_id.clone(),
            role: NodeRole::Manager,
            hostname: new.hostname,
            addr: self.options.addr.clone(),
            engine: self.options.dialect.engine.clone(),
        };
        self.propose_first(node).await?;
        Ok(join_tokens)
    }

    /// Makes this the only manager, also in the replicated state: Raft has no other voter by now.
    pub async fn take_over(&self, hostname: String) -> Result<(), ManagerError> {
        let mut status = self.raft.status();
        let leads = status.wait_for(|status| status.role == swarm_raft::Role::Leader);
        match tokio::time::timeout(ELECTION, leads).await {
            Ok(Ok(_)) => {}
            _ => return Err(ManagerError::Propose("this manager does not come to lead".into())),
        }
        let change = Change::TakeOver {
            id: self.options.node_id.clone(),
            hostname,
            addr: self.options.addr.clone(),
            raft_id: self.options.raft.id,
            engine: self.options.dialect.engine.clone(),
        };
        self.propose_first(change).await?;
        self.raft.update_addr(self.options.raft.id, self.options.addr.clone()).await?;
        Ok(())
    }

    async fn propose_first(&self, change: Change) -> Result<(), ManagerError> {
        let proposed = self.api.proposer.propose_one(change).await;
        proposed.map(|_| ()).map_err(|e| ManagerError::Propose(e.to_string()))
    }

    /// Adds what other nodes call, over mTLS. The control API is among it: managers pass calls on.
    pub fn add_services(&self, routes: Routes) -> Routes {
        let peer =
            PeerService { proposer: self.api.proposer.clone(), fleet: self.api.fleet.clone() };
        let control = ControlServer::new(Control::new(self.api.clone()));
        let peer = PeerServer::new(peer).max_decoding_message_size(LARGEST_COMMAND);
        let membership = MembershipServer::new(self.membership.clone())
            .max_decoding_message_size(LARGEST_REQUEST);
        let dispatcher = DispatcherServer::new(self.dispatcher.clone());
        let store = self.store().clone();
        let (replica, status) = (store.clone(), self.raft.status());
        let peers_only = move |request| require_peer(&replica, &status, request);
        let readable = {
            let store = store.clone();
            move |request: Request<()>| {
                store.check()?;
                Ok(request)
            }
        };
        let members_only = move |request: Request<()>| {
            // A replica that was stopped may not know whom it would have to know.
            require_manager(&request)?;
            store.check()?;
            require_member(&store, &request)?;
            Ok(request)
        };
        routes
            .add_service(InterceptedService::new(self.raft.service(), peers_only))
            .add_service(InterceptedService::new(peer, members_only.clone()))
            .add_service(InterceptedService::new(control, members_only))
            // These two check each call: nodes of any role make some, and hosts that join.
            .add_service(InterceptedService::new(membership, readable.clone()))
            .add_service(InterceptedService::new(dispatcher, readable))
    }

    /// For those who ask of this manager, but do not own it.
    pub fn handle(&self) -> Handle {
        Handle { api: self.api.clone(), connector: self.options.connector.clone() }
    }

    /// Its Raft.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The replica.
    pub fn store(&self) -> &Store {
        &self.api.store
    }

    /// Whether this is the only manager: leaving would lose the swarm.
    pub fn is_last(&self) -> bool {
        let status = self.raft.status();
        let status = status.borrow();
        matches!(status.voters.as_slice(), [only] if only.id == status.id)
    }

    /// Hands leadership over, if this manager has it.
    pub async fn step_down(&self) -> Result<(), ManagerError> {
        let leads = self.raft.status().borrow().role == swarm_raft::Role::Leader;
        if !leads || self.is_last() {
            return Ok(());
        }
        match self.raft.transfer_leadership(None).await {
            Ok(()) => {
                tracing::info!("handed over leadership");
                Ok(())
            }
            Err(MembershipError::Propose(ProposeError::NotLeader { .. })) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Ends cleanly: hands over what it leads; what was acknowledged is on disk already.
    pub async fn shutdown(self) -> Result<(), ManagerError> {
        if let Err(e) = self.step_down().await {
            tracing::warn!("ending as the leader: {e}");
        }
        self.sessions.end_all();
        self.raft.shutdown().await.map_err(Into::into)
    }
}
