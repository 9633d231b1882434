//! What every `swarmd` answers, in a swarm or not: init, join, leave, info, images.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use swarm_pki::UnlockKey;
use swarm_proto::control::node_server::Node as NodeApi;
use swarm_proto::control::{
    Chunk, Document, Documents, Empty, InitRequest, InitResponse, JoinRequest, JoinResponse,
    LeaveRequest, Reference, UnlockRequest,
};
use tokio::sync::OwnedMutexGuard;
use tonic::{Request, Response, Status, Streaming};

use super::{Daemon, Resumed, info, resume};
use crate::locked::LockedNode;
use crate::vault::LOCKED;
use crate::{alone, images, membership};

/// The gRPC service.
pub(super) struct NodeService(pub(super) Daemon);

fn failed(error: anyhow::Error) -> Status {
    // One line with its causes: what the user sees.
    Status::failed_precondition(format!("{error:#}"))
}

fn documents(values: impl IntoIterator<Item = Value>) -> Documents {
    let json = values.into_iter().map(|value| Bytes::from(value.to_string())).collect();
    Documents { json, stale: String::new() }
}

/// Does all of it, even if the client gives up: half a node is no good to anybody.
async fn complete<T: Send + 'static>(
    alone: OwnedMutexGuard<()>,
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    let work = async move {
        let result = work.await;
        drop(alone);
        result
    };
    tokio::spawn(work).await.map_err(|e| Status::internal(e.to_string()))?
}

async fn go_on_alone(
    daemon: Daemon,
    request: InitRequest,
) -> Result<Response<InitResponse>, Status> {
    let mut slot = daemon.node.write().await;
    if let Some(objection) = alone::objection(slot.as_ref()) {
        return Err(Status::failed_precondition(objection));
    }
    let Some(node) = slot.take() else { return Err(Status::internal("the node is gone")) };
    let (node, response) = alone::go_on(&daemon.host, node, request).await.map_err(|e| {
        failed(e.context("this node is stopped, its services go on; start swarmd again"))
    })?;
    *slot = node;
    response.map(Response::new).map_err(failed)
}

/// Goes on as the manager that was locked; it is locked again if it cannot.
async fn go_on_unlocked(daemon: &Daemon, slot: &mut Option<LockedNode>) -> Result<(), Status> {
    let Some(node) = slot.take() else { return Err(Status::internal("the node is gone")) };
    let host = &daemon.host;
    let config = node.config.clone();
    node.shutdown().await;
    match resume(host).await {
        Ok(Resumed::Node(node)) => *daemon.node.write().await = Some(*node),
        Ok(Resumed::Locked(node)) => *slot = Some(*node),
        Ok(Resumed::Nothing) => {}
        Err(e) => {
            host.files.vault().close();
            *slot = Some(LockedNode::start(host, config).await.map_err(failed)?);
            return Err(failed(e));
        }
    }
    Ok(())
}

impl NodeService {
    /// Waits until nobody else changes what this host is.
    async fn alone(&self) -> (Daemon, OwnedMutexGuard<()>) {
        let daemon = self.0.clone();
        let alone = daemon.changing.clone().lock_owned().await;
        (daemon, alone)
    }

    async fn check_not_locked(&self) -> Result<(), Status> {
        if self.0.locked.read().await.is_some() {
            return Err(Status::failed_precondition(LOCKED));
        }
        Ok(())
    }

    async fn check_not_in_a_swarm(&self) -> Result<(), Status> {
        if self.0.node.read().await.is_some() {
            return Err(Status::failed_precondition(
                "this node is already part of a swarm: use \"swarmctl leave\" to leave it first",
            ));
        }
        if self.0.host.files.load().map_err(failed)?.is_some() {
            return Err(Status::failed_precondition(
                "this node is part of a swarm, but cannot start: its log says why, and it goes on trying",
            ));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl NodeApi for NodeService {
    async fn init(&self, request: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        let (daemon, alone) = self.alone().await;
        self.check_not_locked().await?;
        if request.get_ref().force_new_cluster {
            return complete(alone, go_on_alone(daemon, request.into_inner())).await;
        }
        self.check_not_in_a_swarm().await?;
        complete(alone, async move {
            let (node, response) =
                membership::init(&daemon.host, request.into_inner()).await.map_err(failed)?;
            *daemon.node.write().await = Some(node);
            Ok(Response::new(response))
        })
        .await
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let (daemon, alone) = self.alone().await;
        self.check_not_locked().await?;
        self.check_not_in_a_swarm().await?;
        complete(alone, async move {
            let (node, response) =
                membership::join(&daemon.host, request.into_inner()).await.map_err(failed)?;
            *daemon.node.write().await = Some(node);
            Ok(Response::new(response))
        })
        .await
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<Empty>, Status> {
        let (daemon, alone) = self.alone().await;
        let force = request.get_ref().force;
        if self.check_not_locked().await.is_err() {
            if !force {
                let text = "Swarm is encrypted and locked. Please unlock it first or use \"--force\" to ignore this message.";
                return Err(Status::failed_precondition(text));
            }
            return complete(alone, async move {
                if let Some(node) = daemon.locked.write().await.take() {
                    node.clear(&daemon.host).await.map_err(failed)?;
                }
                Ok(Response::new(Empty {}))
            })
            .await;
        }
        let node = {
            let mut node = daemon.node.write().await;
            let objection = match node.as_ref() {
                None => Some("this node is not part of a swarm".to_owned()),
                Some(node) => membership::objection(node).filter(|_| !force),
            };
            if let Some(objection) = objection {
                return Err(Status::failed_precondition(objection));
            }
            node.take()
        };
        complete(alone, async move {
            if let Some(node) = node {
                membership::leave(&daemon.host, node).await.map_err(failed)?;
            }
            Ok(Response::new(Empty {}))
        })
        .await
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<Empty>, Status> {
        let (daemon, alone) = self.alone().await;
        let given = request.into_inner().unlock_key;
        complete(alone, async move {
            let mut locked = daemon.locked.write().await;
            if locked.is_none() {
                let text = match daemon.node.read().await.is_some() {
                    true => "swarm is not locked",
                    false => "this node is not part of a swarm",
                };
                return Err(Status::failed_precondition(text));
            }
            let invalid = || Status::invalid_argument("invalid key");
            let key = given.parse::<UnlockKey>().map_err(|_| invalid())?;
            let vault = Arc::clone(daemon.host.files.vault());
            let opened = tokio::task::spawn_blocking(move || vault.unlock(&key)).await;
            if !opened.map_err(|e| Status::internal(e.to_string()))?.map_err(failed)? {
                return Err(invalid());
            }
            go_on_unlocked(&daemon, &mut locked).await?;
            Ok(Response::new(Empty {}))
        })
        .await
    }

    async fn info(&self, _: Request<Empty>) -> Result<Response<Document>, Status> {
        let info = info::info(&self.0).await;
        Ok(Response::new(Document { json: info.to_string().into() }))
    }

    async fn load_image(
        &self,
        request: Request<Streaming<Chunk>>,
    ) -> Result<Response<Documents>, Status> {
        let loaded = images::load(&self.0.host.images, request.into_inner()).await?;
        Ok(Response::new(documents(loaded.iter().map(images::loaded))))
    }

    async fn list_images(&self, _: Request<Empty>) -> Result<Response<Documents>, Status> {
        let list = self.0.host.images.list();
        Ok(Response::new(documents(list.iter().map(images::shape))))
    }

    async fn remove_image(
        &self,
        request: Request<Reference>,
    ) -> Result<Response<Documents>, Status> {
        let name = request.into_inner().name;
        let removed = self.0.host.images.remove(&name, |_| false).await;
        let removed = removed.map_err(|e| match e {
            swarm_images::Error::NotFound(_) => Status::not_found(e.to_string()),
            e => Status::failed_precondition(e.to_string()),
        })?;
        Ok(Response::new(documents(images::removed(&removed))))
    }
}
