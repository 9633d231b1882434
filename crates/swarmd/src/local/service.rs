//! What every `swarmd` answers, in a swarm or not: init, join, leave, info, images.

use bytes::Bytes;
use serde_json::Value;
use swarm_pki::UnlockKey;
use swarm_proto::control::node_server::Node as NodeApi;
use swarm_proto::control::{
    Chunk, Document, Documents, Empty, InitRequest, InitResponse, JoinRequest, JoinResponse,
    LeaveRequest, Reference, UnlockRequest,
};
use tonic::{Request, Response, Status, Streaming};

use super::info;
use crate::daemon::{Daemon, OrderError};
use crate::images;

/// The gRPC service.
pub(super) struct NodeService(pub(super) Daemon);

fn status(error: OrderError) -> Status {
    // One line with its causes: what the user sees.
    match error {
        OrderError::InvalidKey => Status::invalid_argument(error.to_string()),
        OrderError::Refused(_) | OrderError::Failed(_) => {
            Status::failed_precondition(error.to_string())
        }
    }
}

fn documents(values: impl IntoIterator<Item = Value>) -> Documents {
    let json = values.into_iter().map(|value| Bytes::from(value.to_string())).collect();
    Documents { json, stale: String::new() }
}

#[tonic::async_trait]
impl NodeApi for NodeService {
    async fn init(&self, request: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        self.0.init(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        self.0.join(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<Empty>, Status> {
        self.0.leave(request.into_inner().force).await.map_err(status)?;
        Ok(Response::new(Empty {}))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<Empty>, Status> {
        let key = request.into_inner().unlock_key.parse::<UnlockKey>().ok();
        self.0.unlock(key).await.map_err(status)?;
        Ok(Response::new(Empty {}))
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
