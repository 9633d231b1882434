//! The control API on the local socket: the manager's, if this node is one; otherwise an answer that says
//! what to do.

use std::sync::Arc;

use swarm_manager::Control;
use swarm_proto::control::control_server::Control as ControlApi;
use swarm_proto::control::{
    Changed, Document, Documents, Empty, ExecInput, InspectNetworkRequest, JoinTokenRequest,
    JoinTokenResponse, ListTasksRequest, LogsRequest, Reference, RemoveNodeRequest, RootStatus,
    ScaleServiceRequest, UnlockKeyRequest, UnlockKeyResponse, UpdateNodeRequest,
    UpdateServiceRequest, UpdateSwarmRequest, WatchServiceRequest,
};
use tonic::{Request, Response, Status, Streaming};

use super::Daemon;
use crate::vault::LOCKED;

/// The gRPC service.
pub(super) struct LocalControl(pub(super) Daemon);

impl LocalControl {
    async fn manager(&self) -> Result<Control, Status> {
        if self.0.locked.read().await.is_some() {
            return Err(Status::failed_precondition(LOCKED));
        }
        let node = self.0.node.read().await;
        let Some(node) = node.as_ref() else {
            return Err(Status::failed_precondition(
                "this node is not part of a swarm: use \"swarmctl init\" to begin one or \"swarmctl join\" to join one",
            ));
        };
        let manager = node.manager.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "this node is a worker: the swarm can be seen and changed on its managers only",
            )
        })?;
        Ok(manager.control())
    }

    /// Locks this manager itself by what was just changed, before its user is told that it is. If it cannot, the user
    /// is still told the key: the other managers have it.
    async fn lock_as_the_swarm_says(&self, answer: &mut Response<UnlockKeyResponse>) {
        if let Err(e) = self.try_to_lock().await {
            let warning =
                format!("the swarm has it, this manager not yet, and goes on trying: {e:#}");
            answer.get_mut().warnings.push(warning);
        }
    }

    async fn try_to_lock(&self) -> anyhow::Result<()> {
        let lock = {
            let node = self.0.node.read().await;
            let manager = node.as_ref().and_then(|node| node.manager.as_ref());
            let cluster = manager.and_then(|manager| manager.store().read().cluster().cloned());
            cluster.map(|cluster| cluster.manager_lock.clone())
        };
        let Some(lock) = lock else { return Ok(()) };
        let vault = Arc::clone(self.0.host.files.vault());
        tokio::task::spawn_blocking(move || vault.lock(&lock)).await?
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ControlApi for LocalControl {
    async fn join_token(&self, request: Request<JoinTokenRequest>) -> Answer<JoinTokenResponse> {
        self.manager().await?.join_token(request).await
    }

    async fn update_swarm(
        &self,
        request: Request<UpdateSwarmRequest>,
    ) -> Answer<UnlockKeyResponse> {
        let mut answer = self.manager().await?.update_swarm(request).await?;
        self.lock_as_the_swarm_says(&mut answer).await;
        Ok(answer)
    }

    async fn unlock_key(&self, request: Request<UnlockKeyRequest>) -> Answer<UnlockKeyResponse> {
        let mut answer = self.manager().await?.unlock_key(request).await?;
        self.lock_as_the_swarm_says(&mut answer).await;
        Ok(answer)
    }

    async fn list_nodes(&self, request: Request<Empty>) -> Answer<Documents> {
        self.manager().await?.list_nodes(request).await
    }

    async fn inspect_node(&self, request: Request<Reference>) -> Answer<Document> {
        self.manager().await?.inspect_node(request).await
    }

    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Answer<Changed> {
        self.manager().await?.remove_node(request).await
    }

    async fn create_network(&self, request: Request<Document>) -> Answer<Changed> {
        self.manager().await?.create_network(request).await
    }

    async fn list_networks(&self, request: Request<Empty>) -> Answer<Documents> {
        self.manager().await?.list_networks(request).await
    }

    async fn inspect_network(&self, request: Request<InspectNetworkRequest>) -> Answer<Document> {
        self.manager().await?.inspect_network(request).await
    }

    async fn remove_network(&self, request: Request<Reference>) -> Answer<Changed> {
        self.manager().await?.remove_network(request).await
    }

    async fn prune_networks(&self, request: Request<Empty>) -> Answer<Documents> {
        self.manager().await?.prune_networks(request).await
    }

    async fn rotate_network_keys(&self, request: Request<Empty>) -> Answer<Changed> {
        self.manager().await?.rotate_network_keys(request).await
    }

    async fn create_service(&self, request: Request<Document>) -> Answer<Changed> {
        self.manager().await?.create_service(request).await
    }

    async fn update_service(&self, request: Request<UpdateServiceRequest>) -> Answer<Changed> {
        self.manager().await?.update_service(request).await
    }

    async fn scale_service(&self, request: Request<ScaleServiceRequest>) -> Answer<Changed> {
        self.manager().await?.scale_service(request).await
    }

    async fn list_services(&self, request: Request<Empty>) -> Answer<Documents> {
        self.manager().await?.list_services(request).await
    }

    async fn inspect_service(&self, request: Request<Reference>) -> Answer<Document> {
        self.manager().await?.inspect_service(request).await
    }

    async fn remove_service(&self, request: Request<Reference>) -> Answer<Changed> {
        self.manager().await?.remove_service(request).await
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answer<Documents> {
        self.manager().await?.list_tasks(request).await
    }

    async fn inspect_task(&self, request: Request<Reference>) -> Answer<Document> {
        self.manager().await?.inspect_task(request).await
    }

    type WatchServiceStream = <Control as ControlApi>::WatchServiceStream;

    async fn watch_service(
        &self,
        request: Request<WatchServiceRequest>,
    ) -> Answer<Self::WatchServiceStream> {
        self.manager().await?.watch_service(request).await
    }

    type LogsStream = <Control as ControlApi>::LogsStream;

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        self.manager().await?.logs(request).await
    }

    type ExecStream = <Control as ControlApi>::ExecStream;

    async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Answer<Self::ExecStream> {
        self.manager().await?.exec(request).await
    }

    async fn update_node(&self, request: Request<UpdateNodeRequest>) -> Answer<Changed> {
        self.manager().await?.update_node(request).await
    }

    type BackupStream = <Control as ControlApi>::BackupStream;

    async fn backup(&self, request: Request<Empty>) -> Answer<Self::BackupStream> {
        self.manager().await?.backup(request).await
    }

    async fn rotate_root(&self, request: Request<Empty>) -> Answer<Changed> {
        self.manager().await?.rotate_root(request).await
    }

    async fn inspect_root(&self, request: Request<Empty>) -> Answer<RootStatus> {
        self.manager().await?.inspect_root(request).await
    }
}
