//! The worker's end of a manager: sessions that tell each node what concerns it, and hear what it did.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use swarm_model::{Cluster, NodeDescription, NodeId, TaskId, TaskStatus, codec, node_hostname};
use swarm_pki::{Connector, PkiError, RootCert, require_node};
use swarm_proto::dispatch::dispatcher_server::Dispatcher;
use swarm_proto::dispatch::{
    Certified, Describe, FromNode, Heartbeat, ManagerAddress, Standing, TaskReport, ToNode, Trust,
    from_node, to_node,
};
use swarm_proto::removal::removed;
use swarm_raft::{Raft, Role};
use swarm_state::{Change, Rejected};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::members::managers::Managers;
use crate::members::twin;
use crate::replica::affected::affected;
use crate::replica::proposer::Proposer;
use crate::replica::store::Store;
use crate::sessions::reports::Reports;
use crate::sessions::table::{End, Session, Sessions};
use crate::sessions::views::{Told, Views};

/// How often a manager shows each node that it is there.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long a node may take to say what it is.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// Messages to a node that may wait for the network.
const QUEUE: usize = 8;
/// What a node may say of itself, in bytes: mostly the routes of a large host.
const LARGEST_DESCRIPTION: usize = 64 << 10;

/// The gRPC service.
#[derive(Clone)]
pub struct DispatcherService {
    pub(crate) store: Store,
    pub(crate) proposer: Proposer,
    pub(crate) sessions: Sessions,
    pub(crate) views: Views,
    pub(crate) reports: Reports,
    pub(crate) managers: Managers,
    /// The node that this manager is part of.
    pub(crate) own: NodeId,
    pub(crate) raft: Raft,
    pub(crate) connector: Connector,
}

/// What a node was shown in a session, beside its view.
#[derive(Default)]
struct Shown {
    standing: Option<Standing>,
    managers: Vec<swarm_model::ManagerAddress>,
    /// The version of the cluster that the roots to trust were taken from.
    roots_of: u64,
}

impl DispatcherService {
    async fn introduce(&self, node: &NodeId, describe: Describe) -> Result<(), Status> {
        let description = description(&describe)?;
        if !self.managers.includes_this() {
            return Err(Status::unavailable("this manager is not part of the swarm any more"));
        }
        self.refuse_copy(node, &description.listen_addr).await?;
        let change = Change::DescribeNode {
            id: node.clone(),
            description: Box::new(description),
            addr: describe.addr,
        };
        let results = self.proposer.propose(vec![change]).await?;
        let revision = match results.into_iter().next() {
            Some(Err(Rejected::NotFound(_))) => return Err(removed(node.as_str())),
            Some(Err(e @ Rejected::Level(_))) => {
                return Err(Status::failed_precondition(e.to_string()));
            }
            Some(Err(e)) => return Err(Status::invalid_argument(e.to_string())),
            None => return Err(Status::internal("no result for a change")),
            Some(Ok(outcome)) => outcome.revision,
        };
        // What the node is told first replaces all it knew: by a replica that is behind, it would give
        // up tasks that are its own.
        if self.store.read().revision() < revision {
            return Err(Status::unavailable("this manager lags behind: try another"));
        }
        Ok(())
    }

    async fn refuse_copy(&self, node: &NodeId, addr: &str) -> Result<(), Status> {
        // One that goes on alone may be reached by its former address, too.
        if *node == self.own && self.raft.status().borrow().role == Role::Leader {
            return Ok(());
        }
        // What is known by the manager of a copy is of before it was copied.
        self.proposer.barrier().await?;
        let known = self.store.read().node(node).cloned();
        let known = known.map(|known| known.description.listen_addr.clone());
        twin::refuse(&self.connector, node, &known.unwrap_or_default(), addr).await
    }

    /// Hears on, whatever is waited for: else the node would seem silent.
    async fn listen(&self, session: &Session, mut incoming: Streaming<FromNode>) {
        let mut is_first = true;
        let mut first = None;
        loop {
            let heard = tokio::select! {
                heard = incoming.message() => heard,
                revision = stored(&mut first) => {
                    session.acknowledged(revision);
                    continue;
                }
            };
            // An error or the end of the stream: the node opens another session.
            let Ok(Some(FromNode { message: Some(message) })) = heard else { return };
            session.heard();
            match message {
                // By then the node has said which tasks did not survive its absence. It counts as up to date only when
                // these do not count as running any more.
                from_node::Message::Acknowledged(ack) if std::mem::take(&mut is_first) => {
                    first = Some((ack.revision, self.reports.stored().boxed()));
                }
                from_node::Message::Acknowledged(ack) => session.acknowledged(ack.revision),
                from_node::Message::Reports(reports) => {
                    let statuses = reports.reports.iter().filter_map(status_of);
                    self.reports.add(&session.node, statuses);
                }
                from_node::Message::Trouble(trouble) => {
                    self.reports.add_trouble(&session.node, trouble.reason);
                }
                from_node::Message::Certified(certified) => {
                    self.note_certificate(&session.node, &certified);
                }
                from_node::Message::Heartbeat(_) | from_node::Message::Describe(_) => {}
            }
        }
    }

    fn note_certificate(&self, node: &NodeId, certified: &Certified) {
        if certified.tls_info.len() > LARGEST_DESCRIPTION {
            let length = certified.tls_info.len();
            tracing::warn!(
                "node {node} tells of a certificate in {length} bytes: that is too much"
            );
            return;
        }
        match codec::decode(&certified.tls_info) {
            Ok(tls_info) => self.reports.add_certificate(node, tls_info),
            Err(e) => tracing::warn!("cannot read what node {node} tells of its certificate: {e}"),
        }
    }

    async fn talk(&self, session: &Session, to_node: &mpsc::Sender<Result<ToNode, Status>>) {
        let mut told: Option<Told> = None;
        let mut shown = Shown::default();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        loop {
            let message = tokio::select! {
                () = session.work() => match self.compare(session, &mut told) {
                    Some(message) => message,
                    None => continue,
                },
                _ = heartbeat.tick() => self.show_life(&session.node, &mut shown),
            };
            if message.level() > self.store.read().feature_level().number() {
                tracing::error!("node {} may not speak {message:?} yet: not sent", session.node);
                continue;
            }
            if to_node.send(Ok(ToNode { message: Some(message) })).await.is_err() {
                return;
            }
        }
    }

    /// A message is due: news of the managers or of the node's own role, if there is any.
    fn show_life(&self, node: &NodeId, shown: &mut Shown) -> to_node::Message {
        let standing = {
            let state = self.store.read();
            let manager = state.node(node).and_then(|node| node.manager_status.as_ref());
            let raft_id = manager.map_or(0, |manager| manager.raft_id);
            Standing { raft_id, feature_level: state.feature_level().number() }
        };
        if shown.standing != Some(standing) {
            shown.standing = Some(standing);
            return to_node::Message::Standing(standing);
        }
        let managers = self.managers.now();
        if shown.managers != managers {
            let message = to_node::Message::Managers(on_the_wire(&managers));
            shown.managers = managers;
            return message;
        }
        if let Some(cluster) = self.store.read().cluster()
            && cluster.meta.version.index != shown.roots_of
        {
            match trust(cluster) {
                Ok(trust) => {
                    shown.roots_of = cluster.meta.version.index;
                    return to_node::Message::Trust(trust);
                }
                Err(e) => tracing::error!("cannot tell nodes whom to trust: {e}"),
            }
        }
        to_node::Message::Heartbeat(Heartbeat {})
    }

    /// What the node has not been told yet; remembers it as told.
    fn compare(&self, session: &Session, told: &mut Option<Told>) -> Option<to_node::Message> {
        session.comparing();
        let (delta, now) = self.views.changes(&session.node, told.as_ref());
        *told = Some(now);
        if delta.is_empty() {
            session.nothing_differs(delta.revision);
            return None;
        }
        session.sending(delta.revision);
        Some(to_node::Message::Delta(codec::encode(&delta).into()))
    }

    /// A session from its beginning to its end.
    async fn attend(
        self,
        session: Arc<Session>,
        incoming: Streaming<FromNode>,
        to_node: mpsc::Sender<Result<ToNode, Status>>,
    ) {
        let end = tokio::select! {
            () = self.listen(&session, incoming) => None,
            () = self.talk(&session, &to_node) => None,
            end = session.ended() => Some(end),
        };
        self.sessions.close(&session);
        if end == Some(End::Removed) {
            // If there is no room, the node hears it when it opens its next session.
            let _ = to_node.try_send(Err(removed(session.node.as_str())));
        }
    }
}

/// An acknowledgement that counts when the future ends.
type Held = (u64, BoxFuture<'static, ()>);

/// Waits until the revision that is held back may count; for ever, if there is none.
async fn stored(held: &mut Option<Held>) -> u64 {
    let Some((revision, stored)) = held else { return std::future::pending().await };
    stored.await;
    let revision = *revision;
    *held = None;
    revision
}

/// Whom a node is to trust, and by whom it is to be trusted.
fn trust(cluster: &Cluster) -> Result<Trust, PkiError> {
    let issuer_public_key = match &cluster.root_rotation {
        Some(rotation) => rotation.issuer_public_key.clone(),
        None => RootCert::from_pem(&cluster.root_ca.cert_pem)?.issuer().public_key.clone(),
    };
    Ok(Trust { roots_pem: cluster.trusted_roots(), issuer_public_key })
}

/// What a node says of itself. It is replicated, so it must be sound and of a reasonable size.
fn description(describe: &Describe) -> Result<NodeDescription, Status> {
    let invalid = Status::invalid_argument;
    if describe.description.len() > LARGEST_DESCRIPTION {
        let length = describe.description.len();
        return Err(invalid(format!("a description of {length} bytes is too large")));
    }
    let description: NodeDescription =
        codec::decode(&describe.description).map_err(|e| invalid(e.to_string()))?;
    node_hostname(&description.hostname).map_err(|e| invalid(e.to_string()))?;
    if describe.addr.parse::<IpAddr>().is_err() {
        return Err(invalid(format!("invalid address {:?}", describe.addr)));
    }
    if description.listen_addr.parse::<SocketAddr>().is_err() {
        return Err(invalid(format!("invalid address {:?}", description.listen_addr)));
    }
    Ok(description)
}

fn status_of(report: &TaskReport) -> Option<(TaskId, TaskStatus)> {
    match codec::decode::<TaskStatus>(&report.status) {
        Ok(status) => Some((TaskId::from(report.task_id.as_str()), status)),
        Err(e) => {
            tracing::warn!("cannot read a report on task {}: {e}", report.task_id);
            None
        }
    }
}

fn on_the_wire(managers: &[swarm_model::ManagerAddress]) -> swarm_proto::dispatch::Managers {
    let managers = managers.iter().map(|manager| ManagerAddress {
        node_id: manager.node_id.to_string(),
        addr: manager.addr.clone(),
    });
    swarm_proto::dispatch::Managers { managers: managers.collect() }
}

#[tonic::async_trait]
impl Dispatcher for DispatcherService {
    type SessionStream = ReceiverStream<Result<ToNode, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<FromNode>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node: NodeId = require_node(&request)?.node_id.as_str().into();
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(INTRODUCTION, incoming.message()).await;
        let first =
            first.map_err(|_| Status::deadline_exceeded("the node did not introduce itself"))?;
        let Some(FromNode { message: Some(from_node::Message::Describe(describe)) }) = first?
        else {
            return Err(Status::invalid_argument("a session begins with a description"));
        };
        self.introduce(&node, describe).await?;
        let session = self.sessions.open(node);
        if self.store.read().node(&session.node).is_none() {
            // Removed before there was a session to end.
            self.sessions.close(&session);
            return Err(removed(session.node.as_str()));
        }
        let (to_node, outgoing) = mpsc::channel(QUEUE);
        tokio::spawn(self.clone().attend(session, incoming, to_node));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

fn expel_removed(store: &Store, sessions: &Sessions, nodes: &BTreeSet<NodeId>) {
    let state = store.read();
    for node in nodes.iter().filter(|node| state.node(node).is_none()) {
        sessions.expel(node);
    }
}

/// Marks sessions as lagging when the state changes; ends with the manager.
pub(crate) async fn distribute(store: Store, sessions: Sessions) {
    let mut events = store.events();
    loop {
        match events.recv().await {
            Ok(applied) => {
                let nodes = affected(&store.read(), &applied.touched);
                expel_removed(&store, &sessions, &nodes);
                sessions.distribute(applied.revision, &nodes);
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let revision = store.read().revision();
                let nodes = sessions.nodes();
                expel_removed(&store, &sessions, &nodes);
                sessions.distribute(revision, &nodes);
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
