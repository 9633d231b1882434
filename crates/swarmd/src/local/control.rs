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
use tonic::{Code, Request, Response, Status, Streaming};

use crate::daemon::{Daemon, Shown};
use crate::life::cannot_start;
use crate::vault::LOCKED;

/// The gRPC service.
pub(super) struct LocalControl(pub(super) Daemon);

impl LocalControl {
    fn manager(&self) -> Result<Control, Status> {
        let refuse = |text: &str| Err(Status::failed_precondition(text));
        match self.0.shown() {
            Shown::Manager(_, manager) => match manager.store().unreadable() {
                Some(why) => refuse(why),
                None => Ok(manager.control()),
            },
            Shown::Worker(_) => refuse(
                "this node is a worker: the swarm can be seen and changed on its managers only",
            ),
            Shown::Locked { .. } => refuse(LOCKED),
            Shown::Nothing => refuse(
                "this node is not part of a swarm: use \"swarmctl init\" to begin one or \"swarmctl join\" to join one",
            ),
            Shown::Joining => refuse("this node is joining a swarm: wait until it has"),
            Shown::Starting => refuse("this node is starting: try again in a moment"),
            Shown::Leaving => refuse("this node is leaving its swarm"),
            Shown::Failed(why) => refuse(&cannot_start(&why)),
        }
    }

    /// Asks this node's manager. If it finds nobody to agree with, the reason may be that the node was demoted
    /// meanwhile; then it answers as a worker.
    async fn ask<T, F>(&self, question: impl FnOnce(Control) -> F + Send) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>> + Send,
    {
        let manager = self.manager()?;
        match question(manager).await {
            Err(status) if status.code() == Code::Unavailable => {
                self.manager()?;
                Err(status)
            }
            answer => answer,
        }
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
        let lock = match self.0.shown() {
            Shown::Manager(_, manager) => {
                manager.store().read().cluster().map(|cluster| cluster.manager_lock.clone())
            }
            _ => None,
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
        self.ask(|manager| async move { manager.join_token(request).await }).await
    }

    async fn update_swarm(
        &self,
        request: Request<UpdateSwarmRequest>,
    ) -> Answer<UnlockKeyResponse> {
        let mut answer =
            self.ask(|manager| async move { manager.update_swarm(request).await }).await?;
        self.lock_as_the_swarm_says(&mut answer).await;
        Ok(answer)
    }

    async fn unlock_key(&self, request: Request<UnlockKeyRequest>) -> Answer<UnlockKeyResponse> {
        let mut answer =
            self.ask(|manager| async move { manager.unlock_key(request).await }).await?;
        self.lock_as_the_swarm_says(&mut answer).await;
        Ok(answer)
    }

    async fn list_nodes(&self, request: Request<Empty>) -> Answer<Documents> {
        self.ask(|manager| async move { manager.list_nodes(request).await }).await
    }

    async fn inspect_node(&self, request: Request<Reference>) -> Answer<Document> {
        self.ask(|manager| async move { manager.inspect_node(request).await }).await
    }

    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Answer<Changed> {
        self.ask(|manager| async move { manager.remove_node(request).await }).await
    }

    async fn create_network(&self, request: Request<Document>) -> Answer<Changed> {
        self.ask(|manager| async move { manager.create_network(request).await }).await
    }

    async fn list_networks(&self, request: Request<Empty>) -> Answer<Documents> {
        self.ask(|manager| async move { manager.list_networks(request).await }).await
    }

    async fn inspect_network(&self, request: Request<InspectNetworkRequest>) -> Answer<Document> {
        self.ask(|manager| async move { manager.inspect_network(request).await }).await
    }

    async fn remove_network(&self, request: Request<Reference>) -> Answer<Changed> {
        self.ask(|manager| async move { manager.remove_network(request).await }).await
    }

    async fn prune_networks(&self, request: Request<Empty>) -> Answer<Documents> {
        self.ask(|manager| async move { manager.prune_networks(request).await }).await
    }

    async fn rotate_network_keys(&self, request: Request<Empty>) -> Answer<Changed> {
        self.ask(|manager| async move { manager.rotate_network_keys(request).await }).await
    }

    async fn create_service(&self, request: Request<Document>) -> Answer<Changed> {
        self.ask(|manager| async move { manager.create_service(request).await }).await
    }

    async fn update_service(&self, request: Request<UpdateServiceRequest>) -> Answer<Changed> {
        self.ask(|manager| async move { manager.update_service(request).await }).await
    }

    async fn scale_service(&self, request: Request<ScaleServiceRequest>) -> Answer<Changed> {
        self.ask(|manager| async move { manager.scale_service(request).await }).await
    }

    async fn list_services(&self, request: Request<Empty>) -> Answer<Documents> {
        self.ask(|manager| async move { manager.list_services(request).await }).await
    }

    async fn inspect_service(&self, request: Request<Reference>) -> Answer<Document> {
        self.ask(|manager| async move { manager.inspect_service(request).await }).await
    }

    async fn remove_service(&self, request: Request<Reference>) -> Answer<Changed> {
        self.ask(|manager| async move { manager.remove_service(request).await }).await
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answer<Documents> {
        self.ask(|manager| async move { manager.list_tasks(request).await }).await
    }

    async fn inspect_task(&self, request: Request<Reference>) -> Answer<Document> {
        self.ask(|manager| async move { manager.inspect_task(request).await }).await
    }

    type WatchServiceStream = <Control as ControlApi>::WatchServiceStream;

    async fn watch_service(
        &self,
        request: Request<WatchServiceRequest>,
    ) -> Answer<Self::WatchServiceStream> {
        self.ask(|manager| async move { manager.watch_service(request).await }).await
    }

    type LogsStream = <Control as ControlApi>::LogsStream;

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        self.ask(|manager| async move { manager.logs(request).await }).await
    }

    type ExecStream = <Control as ControlApi>::ExecStream;

    async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Answer<Self::ExecStream> {
        self.ask(|manager| async move { manager.exec(request).await }).await
    }

    async fn update_node(&self, request: Request<UpdateNodeRequest>) -> Answer<Changed> {
        self.ask(|manager| async move { manager.update_node(request).await }).await
    }

    type BackupStream = <Control as ControlApi>::BackupStream;

    async fn backup(&self, request: Request<Empty>) -> Answer<Self::BackupStream> {
        self.ask(|manager| async move { manager.backup(request).await }).await
    }

    async fn rotate_root(&self, request: Request<Empty>) -> Answer<Changed> {
        self.ask(|manager| async move { manager.rotate_root(request).await }).await
    }

    async fn inspect_root(&self, request: Request<Empty>) -> Answer<RootStatus> {
        self.ask(|manager| async move { manager.inspect_root(request).await }).await
    }
}
