//! The receiving side of the transport.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{Stream, StreamExt};
use openraft::{ReadPolicy, async_runtime::watch::WatchReceiver, raft::AppendEntriesRequest};
use swarm_proto::raft as pb;
use tokio::{sync::Semaphore, time::Instant};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    blocking::blocking,
    snapshot::{Incoming, SnapshotStore},
    types::{LogId, OpenRaft, Snapshot, TypeConfig, Vote},
    wire,
};

/// What this node last heard from a leader it accepts.
#[derive(Clone, Default)]
pub(crate) struct LastHeard(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    at: Option<Instant>,
    missing: Vec<u64>,
}

impl LastHeard {
    pub(crate) fn at(&self) -> Option<Instant> {
        self.0.lock().expect("no holder panics").at
    }

    /// The voters that the leader missed.
    pub(crate) fn missing(&self) -> Vec<u64> {
        self.0.lock().expect("no holder panics").missing.clone()
    }

    fn now(&self) {
        self.0.lock().expect("no holder panics").at = Some(Instant::now());
    }

    fn heartbeat(&self, missing: Vec<u64>) {
        *self.0.lock().expect("no holder panics") = Heard { at: Some(Instant::now()), missing };
    }
}

/// A leader that hears from no majority can change nothing, but its heartbeats would keep the others from electing another: it
/// may be deaf. So it is heard no more. The refusal is an answer, too: with enough of them it hears from a majority.
fn check_works(request: &pb::AppendRequest) -> Result<(), Status> {
    match request.without_quorum {
        true => {
            Err(Status::failed_precondition("a leader that hears from no majority is not followed"))
        }
        false => Ok(()),
    }
}

/// In the extensions of a request: why its caller, which once was a manager, is heard no more. Put there by the server
/// that the service is part of.
#[derive(Debug, Clone)]
pub struct Outsider(pub Status);

fn admit<T>(request: &Request<T>) -> Result<(), Status> {
    match request.extensions().get::<Outsider>() {
        Some(Outsider(why)) => Err(why.clone()),
        None => Ok(()),
    }
}

/// The Raft part of a manager's gRPC server; made by [`crate::Raft::service`].
pub type RaftService = pb::raft_server::RaftServer<Transport>;

/// Answers other managers.
#[derive(Clone)]
pub struct Transport {
    pub(crate) id: u64,
    pub(crate) raft: OpenRaft,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) last_heard: LastHeard,
    /// One snapshot is received at a time.
    pub(crate) receiving: Arc<Semaphore>,
}

impl Transport {
    /// Whether it is this manager that is meant, and it takes part. (Raft, once it has failed, writes an error to
    /// the log for each call.)
    fn check_target(&self, target: u64) -> Result<(), Status> {
        if target != self.id {
            let text = format!("this is manager {}, not {target}", self.id);
            return Err(Status::failed_precondition(text));
        }
        self.raft.metrics().borrow_watched().running_state.clone().map_err(stopped)
    }

    /// Whether a committed membership newer than all the candidate has leaves it out. Ids are never
    /// reused and a candidate has the entry that added it, so it was removed later.
    fn was_removed(&self, candidate: u64, last_log: Option<LogId>) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let committed = &metrics.committed_membership_config;
        committed.log_id().map(|id| id.index) > last_log.map(|id| id.index)
            && committed.membership().get_node(&candidate).is_none()
    }

    /// A vote that an outsider asks for. It gets none; but a manager that was away while it was removed learns of it.
    fn refuse_vote(
        &self,
        request: &pb::VoteRequest,
        why: Status,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let Ok(ask) = wire::from_vote_request(request) else { return Err(why) };
        if !self.was_removed(ask.vote.leader_id.node_id, ask.last_log_id) {
            return Err(why);
        }
        let metrics = self.raft.metrics();
        let ballot = Some(wire::ballot(&metrics.borrow_watched().vote));
        Ok(Response::new(pb::VoteResponse {
            ballot,
            granted: false,
            last_log: None,
            removed: true,
        }))
    }

    async fn receive(
        &self,
        mut parts: Streaming<pb::SnapshotRequest>,
    ) -> Result<(Vote, Snapshot), Status> {
        use pb::snapshot_request::Part;
        let first = parts.message().await?.and_then(|request| request.part);
        let Some(Part::Header(header)) = first else {
            return Err(wire::missing("snapshot header"));
        };
        self.check_target(header.target)?;
        let vote = wire::vote(header.leader)?;
        let snapshots = self.snapshots.clone();
        let mut incoming = on_disk(move || snapshots.receive(header.size)).await?;
        while let Some(request) = parts.message().await? {
            let Some(Part::Chunk(chunk)) = request.part else {
                return Err(wire::missing("snapshot chunk"));
            };
            self.last_heard.now();
            incoming = on_disk(move || incoming.write(&chunk).map(|()| incoming)).await?;
        }
        let snapshot = on_disk(move || Incoming::finish(incoming)).await?;
        Ok((vote, snapshot))
    }
}

/// How the requests of a replication stream came to an end.
enum End {
    /// Not at all: Raft stopped taking them.
    Early,
    /// The leader closed the stream, or is gone.
    Closed,
    /// A request was not acceptable.
    Refused(Status),
}

impl End {
    /// What the leader is told after the last answer.
    fn status(&self) -> Option<Status> {
        match self {
            Self::Early => Some(Status::unavailable("raft takes no more entries")),
            Self::Closed => None,
            Self::Refused(status) => Some(status.clone()),
        }
    }
}

type Appends = (Transport, Streaming<pb::AppendRequest>, Arc<Mutex<End>>);

async fn next_append(
    (this, mut requests, end): Appends,
) -> Option<(AppendEntriesRequest<TypeConfig>, Appends)> {
    let reason = match requests.message().await {
        Ok(Some(request)) => {
            match this
                .check_target(request.target)
                .and_then(|()| check_works(&request))
                .and_then(|()| wire::from_append_request(request))
            {
                Ok(request) => return Some((request, (this, requests, end))),
                Err(status) => End::Refused(status),
            }
        }
        Ok(None) | Err(_) => End::Closed,
    };
    *end.lock().expect("no holder panics") = reason;
    None
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    blocking(work).await.map_err(|error| Status::internal(error.to_string()))
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft is not running: {error}"))
}

#[tonic::async_trait]
impl pb::raft_server::Raft for Transport {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<pb::AppendResponse, Status>> + Send>>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        admit(&request)?;
        let requests = request.into_inner();
        let end = Arc::new(Mutex::new(End::Early));
        let input = futures::stream::unfold((self.clone(), requests, end.clone()), next_append);
        let last_heard = self.last_heard.clone();
        let answers = self.raft.stream_append(input).map(move |answer| {
            let answer = answer.map_err(stopped)?;
            if answer.is_ok() {
                last_heard.now();
            }
            Ok(wire::append_response(answer))
        });
        let status =
            futures::stream::once(async move { end.lock().expect("no holder panics").status() });
        let answers = answers.chain(status.filter_map(|status| async move { status.map(Err) }));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        admit(&request)?;
        let request = request.into_inner();
        self.check_target(request.target)?;
        check_works(&request)?;
        let missing = request.missing.clone();
        let request = wire::from_append_request(request)?;
        let (previous, last) =
            (request.prev_log_id, request.entries.last().map(|entry| entry.log_id));
        let response = self.raft.append_entries(request).await.map_err(stopped)?;
        let result = response.into_stream_result(previous, last.or(previous));
        if result.is_ok() {
            self.last_heard.heartbeat(missing);
        }
        Ok(Response::new(wire::append_response(result)))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let admitted = admit(&request);
        let request = request.into_inner();
        if let Err(why) = admitted {
            return self.refuse_vote(&request, why);
        }
        self.check_target(request.target)?;
        let ask = wire::from_vote_request(&request)?;
        let removed = self.was_removed(ask.vote.leader_id.node_id, ask.last_log_id);
        let answer = match request.pre_vote {
            true => self.raft.pre_vote(ask).await,
            false => self.raft.vote(ask).await,
        };
        Ok(Response::new(wire::vote_response(&answer.map_err(stopped)?, removed)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotRequest>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        admit(&request)?;
        let busy = |_| Status::resource_exhausted("another snapshot is being received");
        let _turn = self.receiving.try_acquire().map_err(busy)?;
        let (vote, snapshot) = self.receive(request.into_inner()).await?;
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(Response::new(pb::SnapshotResponse { ballot: Some(wire::ballot(&response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        admit(&request)?;
        let request = request.into_inner();
        self.check_target(request.target)?;
        let answer = self
            .raft
            .handle_transfer_leader(wire::from_transfer_request(&request)?)
            .await
            .map_err(stopped)?;
        Ok(Response::new(wire::transfer_response(&answer)))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        admit(&request)?;
        self.check_target(request.into_inner().target)?;
        let (read, _applied) = self
            .raft
            .get_read_log_id(ReadPolicy::ReadIndex)
            .await
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(pb::ReadIndexResponse { index: read.index() }))
    }
}
