//! The sending side of the transport: openraft's network on gRPC.

mod pipeline;

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use openraft::{
    RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use swarm_proto::raft as pb;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::{
    blocking::blocking,
    peers::{Peers, Purpose},
    snapshot::SnapshotFile,
    types::{Snapshot, TypeConfig, Vote},
    wire,
};

/// Bytes of a snapshot in one message.
const CHUNK: usize = 256 * 1024;

/// A snapshot transfer that makes no progress for this long is given up.
const SNAPSHOT_STALL: Duration = Duration::from_secs(30);

type Error = RPCError<TypeConfig>;
type Appended = Result<StreamAppendResult<TypeConfig>, Error>;

/// Makes the clients openraft asks for.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Peers,
    /// How long a replication stream may leave a request unanswered.
    pub(crate) stall: Duration,
    /// Set when a peer told that this node was removed from the cluster.
    pub(crate) removed: Arc<AtomicBool>,
    /// Whether this manager leads, and hears from no majority.
    pub(crate) without_quorum: Arc<AtomicBool>,
    pub(crate) missing: Missing,
    pub(crate) contacts: Contacts,
}

/// When each other manager last answered a heartbeat, whatever it said.
#[derive(Clone, Default)]
pub(crate) struct Contacts(Arc<Mutex<HashMap<u64, Instant>>>);

impl Contacts {
    fn heard(&self, target: u64) {
        self.0.lock().expect("no holder panics").insert(target, Instant::now());
    }

    /// Whether it answered within that time.
    pub(crate) fn within(&self, target: u64, time: Duration) -> bool {
        let contacts = self.0.lock().expect("no holder panics");
        contacts.get(&target).is_some_and(|at| at.elapsed() <= time)
    }
}

/// The voters that have not answered this manager, their leader, lately: the others are told.
#[derive(Clone, Default)]
pub(crate) struct Missing(Arc<Mutex<Vec<u64>>>);

impl Missing {
    fn get(&self) -> Vec<u64> {
        self.0.lock().expect("no holder panics").clone()
    }

    pub(crate) fn set(&self, voters: &[u64]) {
        voters.clone_into(&mut self.0.lock().expect("no holder panics"));
    }
}

impl Network {
    fn client(&self, target: u64, node: &openraft::BasicNode, heartbeat: bool) -> Client {
        Client { network: self.clone(), target, addr: node.addr.clone(), heartbeat }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &openraft::BasicNode) -> Client {
        self.client(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &openraft::BasicNode) -> Client {
        self.client(target, node, true)
    }
}

/// Calls to one other manager.
pub(crate) struct Client {
    network: Network,
    target: u64,
    /// Where the target was when openraft made this client.
    addr: String,
    /// Whether appends are unary calls on the control connection.
    heartbeat: bool,
}

type Grpc = pb::raft_client::RaftClient<tonic::transport::Channel>;

impl Client {
    fn addr(&self) -> String {
        self.network.peers.address(self.target).unwrap_or_else(|| self.addr.clone())
    }

    /// Makes one call within `limit`, connecting first if need be.
    async fn call<T, F>(
        &self,
        purpose: Purpose,
        limit: Duration,
        call: impl FnOnce(Grpc) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let addr = self.addr();
        let work = async {
            let client = self
                .network
                .peers
                .client(&addr, purpose)
                .await
                .map_err(|error| Unreachable::new(&error))?;
            call(client).await.map_err(|status| self.failed(&addr, purpose, &status))
        };
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result.map(tonic::Response::into_inner),
            Err(_) => Err(self.silent(&addr, limit)),
        }
    }

    fn failed(&self, addr: &str, purpose: Purpose, status: &Status) -> Error {
        self.network.peers.report(addr, purpose, status);
        let text = format!("manager {} at {addr}: {}", self.target, status.message());
        match status.code() {
            // Calling again at once would not help: openraft backs off.
            Code::Unavailable
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated => RPCError::Unreachable(Unreachable::from_string(text)),
            _ => RPCError::Network(NetworkError::from_string(text)),
        }
    }

    fn silent(&self, addr: &str, limit: Duration) -> Error {
        let text = format!("manager {} at {addr} did not answer within {limit:?}", self.target);
        RPCError::Unreachable(Unreachable::from_string(text))
    }

    async fn heartbeat(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        limit: Duration,
    ) -> Appended {
        let without_quorum = self.network.without_quorum.load(Ordering::Relaxed);
        let mut request = wire::append_request(self.target, request, without_quorum);
        request.missing = self.network.missing.get();
        let (contacts, target) = (&self.network.contacts, self.target);
        let response = self.call(Purpose::Control, limit, |mut client| async move {
            let answer = client.heartbeat(request).await;
            // A refusal is an answer, too.
            let refused = |status: &Status| status.code() == Code::FailedPrecondition;
            if answer.as_ref().err().is_none_or(refused) {
                contacts.heard(target);
            }
            answer
        });
        wire::from_append_response(response.await?).map_err(|status| self.invalid(&status))
    }

    fn invalid(&self, status: &Status) -> Error {
        let text = format!("manager {}: {}", self.target, status.message());
        RPCError::Network(NetworkError::from_string(text))
    }

    async fn ask_vote(
        &self,
        rpc: VoteRequest<TypeConfig>,
        pre: bool,
        limit: Duration,
    ) -> Result<VoteResponse<TypeConfig>, Error> {
        let request = wire::vote_request(self.target, &rpc, pre);
        let response = self
            .call(Purpose::Control, limit, |mut client| async move { client.vote(request).await })
            .await?;
        if response.removed {
            self.network.removed.store(true, Ordering::Relaxed);
        }
        wire::from_vote_response(&response).map_err(|status| self.invalid(&status))
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Error> {
        Ok(self.heartbeat(rpc, option.soft_ttl()).await?.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended>, Error>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            if !self.heartbeat {
                return self.pipeline(input).await;
            }
            let Some(request) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            let answer = self.heartbeat(request, option.soft_ttl()).await?;
            Ok(futures::stream::iter([Ok(answer)]).boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Error> {
        self.ask_vote(rpc, false, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Error> {
        self.ask_vote(rpc, true, option.soft_ttl()).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Error> {
        let request = wire::transfer_request(&request, self.target);
        let response = self
            .call(Purpose::Control, option.soft_ttl(), |mut client| async move {
                client.transfer_leader(request).await
            })
            .await?;
        wire::from_transfer_response(response).map_err(|status| self.invalid(&status))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let addr = self.addr();
        let progress = Arc::new(AtomicU64::new(0));
        let parts = send_file(self.target, vote, snapshot.snapshot, progress.clone());
        let send = async {
            let mut client = self
                .network
                .peers
                .client(&addr, Purpose::Replication)
                .await
                .map_err(|error| Unreachable::new(&error))?;
            let sent = client.snapshot(parts).await;
            let response = sent
                .map_err(|status| self.failed(&addr, Purpose::Replication, &status))?
                .into_inner();
            wire::vote(response.ballot).map_err(|status| self.invalid(&status))
        };
        let vote: Result<Vote, Error> = tokio::select! {
            vote = send => vote,
            closed = cancel => return Err(closed.into()),
            () = stalled(&progress) => Err(self.silent(&addr, SNAPSHOT_STALL)),
        };
        Ok(SnapshotResponse::new(vote?))
    }
}

/// The messages of a snapshot transfer, read from the file as they are sent.
fn send_file(
    target: u64,
    vote: Vote,
    file: SnapshotFile,
    progress: Arc<AtomicU64>,
) -> ReceiverStream<pb::SnapshotRequest> {
    use pb::snapshot_request::Part;
    let (parts, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        let header =
            pb::SnapshotHeader { target, leader: Some(wire::ballot(&vote)), size: file.len() };
        let mut part = Part::Header(header);
        let mut offset = 0;
        // Ends early when the receiver is gone; a read error ends the stream before its announced size.
        while parts.send(pb::SnapshotRequest { part: Some(part) }).await.is_ok() {
            progress.fetch_add(1, Ordering::Relaxed);
            let source = file.clone();
            let chunk = match blocking(move || source.read_at(offset, CHUNK)).await {
                Ok(chunk) if chunk.is_empty() => break,
                Ok(chunk) => chunk,
                Err(error) => {
                    tracing::error!(%error, "snapshot cannot be read");
                    break;
                }
            };
            offset += chunk.len() as u64;
            part = Part::Chunk(chunk.into());
        }
    });
    ReceiverStream::new(receiver)
}

/// Returns when `progress` has not moved for [`SNAPSHOT_STALL`].
async fn stalled(progress: &AtomicU64) {
    let mut last = progress.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(SNAPSHOT_STALL).await; // a stall is no progress for that long
        let now = progress.load(Ordering::Relaxed);
        if now == last {
            return;
        }
        last = now;
    }
}
