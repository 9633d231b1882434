//! The control API: what swarmctl asks of a manager. Any manager answers; what changes the state is
//! proposed through Raft, what reads it waits until the replica here is up to date.

mod autolock;
mod ca;
mod encryption;
mod io;
mod networks;
mod nodes;
mod resolve;
mod roles;
mod services;
mod shape;
mod strict;
mod tasks;
mod watch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use swarm_model::{Cluster, NodeId};
use swarm_proto::control::control_client::ControlClient;
use swarm_proto::control::{
    Changed, Chunk, Document, Documents, Empty, ExecInput, ExecOutput, InspectNetworkRequest,
    JoinTokenRequest, JoinTokenResponse, ListTasksRequest, LogRecord, LogsRequest, Progress,
    Reference, RemoveNodeRequest, RootStatus, ScaleServiceRequest, UnlockKeyRequest,
    UnlockKeyResponse, UpdateNodeRequest, UpdateServiceRequest, UpdateSwarmRequest,
    WatchServiceRequest, control_server,
};
use swarm_raft::Raft;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use autolock::fresh as fresh_unlock_key;

use crate::clock;
use crate::leader::fleet::Fleet;
use crate::members::peers::Peers;
use crate::replica::backup;
use crate::replica::proposer::Proposer;
use crate::replica::store::Store;

/// Messages that may wait for a slow reader.
const PROGRESS_QUEUE: usize = 16;
/// Bytes of a backup in one message.
const PIECE: usize = 256 << 10;

/// Checks that an image can be had before a service is made of it.
pub trait Images: Send + Sync + 'static {
    /// The reference to store: with a digest if a registry gave one. The error is for the user.
    fn pin(
        &self,
        image: String,
    ) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>>;
}

/// The gRPC service; cheap to clone.
#[derive(Clone)]
pub struct Control {
    pub(crate) node_id: NodeId,
    pub(crate) addr: String,
    pub(crate) store: Store,
    pub(crate) raft: Raft,
    pub(crate) peers: Peers,
    pub(crate) proposer: Proposer,
    pub(crate) fleet: Fleet,
    pub(crate) images: Arc<dyn Images>,
}

impl Control {
    pub(crate) async fn barrier(&self) -> Result<(), Status> {
        Ok(self.proposer.barrier().await?)
    }

    fn cluster(&self) -> Result<Arc<Cluster>, Status> {
        let cluster = self.store.read().cluster().cloned();
        cluster.ok_or_else(|| Status::unavailable("the swarm has no settings yet"))
    }

    /// All that `swarmd restore` needs, in pieces: nothing confirmed before the call is missing.
    async fn backup_now(&self) -> Result<ReceiverStream<Result<Chunk, Status>>, Status> {
        self.barrier().await?;
        let state = self.store.read().clone();
        let version = self.store.dialect().engine.engine_version.clone();
        let encoded =
            tokio::task::spawn_blocking(move || backup::encode(&state, clock::now(), &version));
        let file = Bytes::from(encoded.await.map_err(|e| Status::internal(e.to_string()))?);
        let (sender, receiver) = mpsc::channel(PROGRESS_QUEUE);
        tokio::spawn(async move {
            for start in (0..file.len()).step_by(PIECE) {
                let data = file.slice(start..file.len().min(start + PIECE));
                if sender.send(Ok(Chunk { data })).await.is_err() {
                    return; // nobody reads on
                }
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    /// As [`Self::barrier`], for lists: without a quorum they still answer, and say why they may be
    /// out of date.
    async fn freshen(&self) -> String {
        let Err(error) = self.barrier().await else { return String::new() };
        match self.raft.status().borrow().quorum_lost_since {
            Some(since) => {
                format!("the swarm has had no quorum for {} s", since.elapsed().as_secs())
            }
            None => error.message().to_owned(),
        }
    }
}

fn document<T: Serialize>(value: &T) -> Bytes {
    // Model types have string keys and no failing serializers.
    serde_json::to_vec(value).expect("model objects are valid JSON").into()
}

type Answer<T> = Result<Response<T>, Status>;
type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl control_server::Control for Control {
    async fn join_token(&self, request: Request<JoinTokenRequest>) -> Answer<JoinTokenResponse> {
        self.join_token_now(request.into_inner()).await.map(Response::new)
    }

    async fn update_swarm(
        &self,
        request: Request<UpdateSwarmRequest>,
    ) -> Answer<UnlockKeyResponse> {
        self.set_autolock_now(request.into_inner().autolock).await.map(Response::new)
    }

    async fn unlock_key(&self, request: Request<UnlockKeyRequest>) -> Answer<UnlockKeyResponse> {
        self.unlock_key_now(request.into_inner().rotate).await.map(Response::new)
    }

    async fn list_nodes(&self, _: Request<Empty>) -> Answer<Documents> {
        self.list_nodes_now().await.map(Response::new)
    }

    async fn inspect_node(&self, request: Request<Reference>) -> Answer<Document> {
        self.inspect_node_now(&request.into_inner().name).await.map(Response::new)
    }

    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Answer<Changed> {
        self.remove_node_now(request.into_inner()).await.map(Response::new)
    }

    async fn create_network(&self, request: Request<Document>) -> Answer<Changed> {
        self.create_network_now(request.into_inner()).await.map(Response::new)
    }

    async fn list_networks(&self, _: Request<Empty>) -> Answer<Documents> {
        self.list_networks_now().await.map(Response::new)
    }

    async fn inspect_network(&self, request: Request<InspectNetworkRequest>) -> Answer<Document> {
        self.inspect_network_now(request.into_inner()).await.map(Response::new)
    }

    async fn remove_network(&self, request: Request<Reference>) -> Answer<Changed> {
        self.remove_network_now(&request.into_inner().name).await.map(Response::new)
    }

    async fn prune_networks(&self, _: Request<Empty>) -> Answer<Documents> {
        self.prune_networks_now().await.map(Response::new)
    }

    async fn rotate_network_keys(&self, _: Request<Empty>) -> Answer<Changed> {
        self.rotate_network_keys_now().await.map(Response::new)
    }

    async fn create_service(&self, request: Request<Document>) -> Answer<Changed> {
        self.create_service_now(request.into_inner()).await.map(Response::new)
    }

    async fn update_service(&self, request: Request<UpdateServiceRequest>) -> Answer<Changed> {
        self.update_service_now(request.into_inner()).await.map(Response::new)
    }

    async fn scale_service(&self, request: Request<ScaleServiceRequest>) -> Answer<Changed> {
        self.scale_service_now(request.into_inner()).await.map(Response::new)
    }

    async fn list_services(&self, _: Request<Empty>) -> Answer<Documents> {
        self.list_services_now().await.map(Response::new)
    }

    async fn inspect_service(&self, request: Request<Reference>) -> Answer<Document> {
        self.inspect_service_now(&request.into_inner().name).await.map(Response::new)
    }

    async fn remove_service(&self, request: Request<Reference>) -> Answer<Changed> {
        self.remove_service_now(&request.into_inner().name).await.map(Response::new)
    }

    type WatchServiceStream = BoxStream<Progress>;

    async fn watch_service(
        &self,
        request: Request<WatchServiceRequest>,
    ) -> Answer<Self::WatchServiceStream> {
        let request = request.into_inner();
        if let Some(leader) = self.other_leader()? {
            let mut client = ControlClient::new(self.peers.channel(&leader)?);
            let stream = client.watch_service(request).await?.into_inner();
            return Ok(Response::new(Box::pin(stream)));
        }
        self.barrier().await?;
        let service = resolve::service(&self.store.read(), &request.service)?;
        let (sender, receiver) = mpsc::channel(PROGRESS_QUEUE);
        let (store, fleet, id) = (self.store.clone(), self.fleet.clone(), service.id.clone());
        let status = self.raft.status();
        tokio::spawn(watch::follow(status, store, fleet, id, request.revision, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answer<Documents> {
        self.list_tasks_now(request.into_inner()).await.map(Response::new)
    }

    async fn inspect_task(&self, request: Request<Reference>) -> Answer<Document> {
        self.inspect_task_now(&request.into_inner().name).await.map(Response::new)
    }

    type LogsStream = ReceiverStream<Result<LogRecord, Status>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        self.logs_now(request.into_inner()).await.map(Response::new)
    }

    type ExecStream = Streaming<ExecOutput>;

    async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Answer<Self::ExecStream> {
        self.exec_now(request.into_inner()).await.map(Response::new)
    }

    async fn update_node(&self, request: Request<UpdateNodeRequest>) -> Answer<Changed> {
        self.update_node_now(request.into_inner()).await.map(Response::new)
    }

    type BackupStream = ReceiverStream<Result<Chunk, Status>>;

    async fn backup(&self, _: Request<Empty>) -> Answer<Self::BackupStream> {
        self.backup_now().await.map(Response::new)
    }

    async fn rotate_root(&self, _: Request<Empty>) -> Answer<Changed> {
        self.rotate_root_now().await.map(Response::new)
    }

    async fn inspect_root(&self, _: Request<Empty>) -> Answer<RootStatus> {
        self.inspect_root_now().await.map(Response::new)
    }
}
