//! Replication streams that end: what is sent on them until then, and nothing after it.

use std::{net::SocketAddr, time::Duration};

use futures::future::pending;
use swarm_proto::raft::raft_server::{Raft, RaftServer};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Streaming,
    transport::{Channel, Endpoint, Server},
};

use super::*;
use crate::{
    network::{Contacts, Missing, Network},
    peers::{ConnectError, Connector, Peers},
    types::{Entry, LogId, Payload, Vote, log_id},
};

fn request(prev: u64, commit: u64, entries: u64) -> AppendEntriesRequest<TypeConfig> {
    let id = |index| -> LogId { log_id(1, 1, index) };
    let entry = |index| Entry { log_id: id(index), payload: Payload::Blank };
    AppendEntriesRequest {
        vote: Vote::new_committed(1, 1),
        prev_log_id: Some(id(prev)),
        leader_commit: Some(id(commit)),
        entries: (prev + 1..=prev + entries).map(entry).collect(),
    }
}

/// How many of the requests are sent, and whether the stream is stuck then.
async fn sent(requests: Vec<AppendEntriesRequest<TypeConfig>>) -> (usize, bool) {
    let stuck = Arc::new(AtomicBool::new(false));
    let sent = until_stuck(futures::stream::iter(requests), stuck.clone()).count().await;
    (sent, stuck.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_stream_that_repeats_itself_ends() {
    let purged = || request(28, 110, 0);
    assert_eq!(sent(vec![purged(), purged(), purged()]).await, (1, true));
}

#[tokio::test]
async fn a_stream_that_tells_of_commits_goes_on() {
    let requests = vec![request(5, 5, 2), request(7, 6, 0), request(7, 7, 0), request(7, 7, 1)];
    assert_eq!(sent(requests).await, (4, false));
    // Entries that are sent again are no idle repetition.
    assert_eq!(sent(vec![request(5, 5, 2), request(5, 5, 2)]).await, (2, false));
}

/// A follower that takes what is sent to it and answers nothing.
#[derive(Clone, Copy)]
enum Mute {
    /// Not even that there is a stream.
    AtOnce,
    /// Once there is a stream.
    Later,
}

#[tonic::async_trait]
impl Raft for Mute {
    type AppendStream = BoxStream<'static, Result<pb::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut requests = request.into_inner();
        let silence = futures::stream::once(async move {
            while requests.message().await.is_ok_and(|request| request.is_some()) {}
            pending().await
        });
        let mut answers: Self::AppendStream = silence.boxed();
        if matches!(self, Self::AtOnce) {
            answers.next().await;
        }
        Ok(Response::new(answers))
    }

    async fn heartbeat(
        &self,
        _: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        pending().await
    }

    async fn vote(
        &self,
        _: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        pending().await
    }

    async fn snapshot(
        &self,
        _: Request<Streaming<pb::SnapshotRequest>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        pending().await
    }

    async fn transfer_leader(
        &self,
        _: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        pending().await
    }

    async fn read_index(
        &self,
        _: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        pending().await
    }
}

/// Connects over plain TCP.
#[derive(Clone)]
struct Plain;

impl Connector for Plain {
    async fn connect(&self, addr: &str) -> Result<Channel, ConnectError> {
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address");
        Ok(endpoint.connect().await.expect("a server"))
    }
}

fn client(addr: SocketAddr) -> Client {
    let network = Network {
        peers: Peers::new(Plain),
        stall: Duration::from_millis(200),
        removed: Arc::default(),
        without_quorum: Arc::default(),
        missing: Missing::default(),
        contacts: Contacts::default(),
    };
    Client { network, target: 2, addr: addr.to_string(), heartbeat: false }
}

/// HTTP/2 alone would ask for requests as long as the connection lives.
async fn asks_for_no_request_once_it_failed(follower: Mute) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = client(listener.local_addr().expect("its address"));
    let server = Server::builder()
        .add_service(RaftServer::new(follower))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let (requests, input) = mpsc::channel(1);
    requests.send(request(5, 5, 1)).await.expect("room");
    let failed = match client.pipeline(ReceiverStream::new(input)).await {
        Ok(mut answers) => answers.next().await.expect("an error"),
        Err(error) => Err(error),
    };
    assert!(matches!(failed, Err(RPCError::Unreachable(_))), "{failed:?}");
    let dropped = tokio::time::timeout(Duration::from_secs(20), requests.closed()).await;
    assert!(dropped.is_ok(), "the requests are still asked for");
    server.abort();
}

#[tokio::test]
async fn a_stream_that_was_not_opened_in_time_takes_no_more() {
    asks_for_no_request_once_it_failed(Mute::AtOnce).await;
}

#[tokio::test]
async fn a_stalled_stream_takes_no_more() {
    asks_for_no_request_once_it_failed(Mute::Later).await;
}
