//! The gRPC service: each call is one of the API's functions.

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use swarm_model::{NetworkSpec, ServiceSpec, Version};
use swarm_proto::control::{
    Changed, Chunk, Document, Documents, Empty, ExecInput, ExecOutput, InspectNetworkRequest,
    JoinTokenRequest, JoinTokenResponse, ListTasksRequest, LogRecord, LogsRequest, Progress,
    Reference, RemoveNodeRequest, RootStatus, ScaleServiceRequest, UnlockKeyRequest,
    UnlockKeyResponse, UpdateNodeRequest, UpdateServiceRequest, UpdateSwarmRequest,
    WatchServiceRequest, control_server,
};
use tonic::{Request, Response, Status, Streaming};

use super::{messages, shape, streams, strict};
use crate::api::Api;
use crate::api::types::Listed;

/// Bytes of a backup in one message.
const PIECE: usize = 256 << 10;

/// The service; cheap to clone.
#[derive(Clone)]
pub struct Control {
    api: Api,
}

impl Control {
    /// Serves an API.
    pub fn new(api: Api) -> Control {
        Control { api }
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Messages<T> = BoxStream<'static, Result<T, Status>>;

/// The answer that a domain type becomes.
fn told<T>(answer: impl Into<T>) -> Answer<T> {
    Ok(Response::new(answer.into()))
}

fn document<T: Serialize>(value: &T) -> Answer<Document> {
    Ok(Response::new(Document { json: shape::document(value) }))
}

fn documents<T>(listed: Listed<T>, document: impl Fn(&T) -> Bytes) -> Answer<Documents> {
    let json = listed.items.iter().map(document).collect();
    Ok(Response::new(Documents { json, stale: listed.stale }))
}

fn pieces(file: &Bytes) -> Vec<Chunk> {
    let starts = (0..file.len()).step_by(PIECE);
    let piece = |start: usize| Chunk { data: file.slice(start..file.len().min(start + PIECE)) };
    starts.map(piece).collect()
}

#[tonic::async_trait]
impl control_server::Control for Control {
    async fn join_token(&self, request: Request<JoinTokenRequest>) -> Answer<JoinTokenResponse> {
        let JoinTokenRequest { role, rotate } = request.into_inner();
        told(self.api.join_token(messages::role(&role)?, rotate).await?)
    }

    async fn update_swarm(
        &self,
        request: Request<UpdateSwarmRequest>,
    ) -> Answer<UnlockKeyResponse> {
        told(self.api.set_autolock(request.into_inner().autolock).await?)
    }

    async fn unlock_key(&self, request: Request<UnlockKeyRequest>) -> Answer<UnlockKeyResponse> {
        match request.into_inner().rotate {
            true => told(self.api.rotate_unlock_key().await?),
            false => told(self.api.unlock_key().await?),
        }
    }

    async fn list_nodes(&self, _: Request<Empty>) -> Answer<Documents> {
        documents(self.api.list_nodes().await, shape::document)
    }

    async fn inspect_node(&self, request: Request<Reference>) -> Answer<Document> {
        document(&self.api.inspect_node(&request.into_inner().name).await?)
    }

    async fn update_node(&self, request: Request<UpdateNodeRequest>) -> Answer<Changed> {
        let (name, update) = messages::node_update(request.into_inner())?;
        told(self.api.update_node(&name, update).await?)
    }

    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Answer<Changed> {
        let RemoveNodeRequest { name, force } = request.into_inner();
        told(self.api.remove_node(&name, force).await?)
    }

    async fn create_network(&self, request: Request<Document>) -> Answer<Changed> {
        let spec: NetworkSpec = strict::spec(&request.into_inner().json, "network")?;
        told(self.api.create_network(spec).await?)
    }

    async fn list_networks(&self, _: Request<Empty>) -> Answer<Documents> {
        documents(self.api.list_networks().await, |network| {
            shape::document(&shape::network(network))
        })
    }

    async fn inspect_network(&self, request: Request<InspectNetworkRequest>) -> Answer<Document> {
        let InspectNetworkRequest { name, verbose } = request.into_inner();
        document(&shape::details(&self.api.inspect_network(&name, verbose).await?))
    }

    async fn remove_network(&self, request: Request<Reference>) -> Answer<Changed> {
        told(self.api.remove_network(&request.into_inner().name).await?)
    }

    async fn prune_networks(&self, _: Request<Empty>) -> Answer<Documents> {
        let items = self.api.prune_networks().await?;
        documents(Listed { items, stale: String::new() }, shape::document)
    }

    async fn rotate_network_keys(&self, _: Request<Empty>) -> Answer<Changed> {
        told(self.api.rotate_network_keys().await?)
    }

    async fn create_service(&self, request: Request<Document>) -> Answer<Changed> {
        let spec: ServiceSpec = strict::spec(&request.into_inner().json, "service")?;
        told(self.api.create_service(spec).await?)
    }

    async fn update_service(&self, request: Request<UpdateServiceRequest>) -> Answer<Changed> {
        let UpdateServiceRequest { name, version, spec } = request.into_inner();
        let spec: ServiceSpec = strict::spec(&spec, "service")?;
        told(self.api.update_service(&name, Version { index: version }, spec).await?)
    }

    async fn scale_service(&self, request: Request<ScaleServiceRequest>) -> Answer<Changed> {
        let ScaleServiceRequest { name, replicas } = request.into_inner();
        told(self.api.scale_service(&name, replicas).await?)
    }

    async fn list_services(&self, _: Request<Empty>) -> Answer<Documents> {
        documents(self.api.list_services().await, |service| {
            shape::document(&shape::overview(service))
        })
    }

    async fn inspect_service(&self, request: Request<Reference>) -> Answer<Document> {
        document(&self.api.inspect_service(&request.into_inner().name).await?)
    }

    async fn remove_service(&self, request: Request<Reference>) -> Answer<Changed> {
        told(self.api.remove_service(&request.into_inner().name).await?)
    }

    type WatchServiceStream = Messages<Progress>;

    async fn watch_service(
        &self,
        request: Request<WatchServiceRequest>,
    ) -> Answer<Self::WatchServiceStream> {
        let WatchServiceRequest { service, revision } = request.into_inner();
        let news = self.api.watch_service(&service, revision).await?;
        Ok(Response::new(news.map_ok(Progress::from).map_err(Status::from).boxed()))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answer<Documents> {
        let ListTasksRequest { services, nodes } = request.into_inner();
        documents(self.api.list_tasks(&services, &nodes).await?, shape::document)
    }

    async fn inspect_task(&self, request: Request<Reference>) -> Answer<Document> {
        document(&self.api.inspect_task(&request.into_inner().name).await?)
    }

    type LogsStream = Messages<LogRecord>;

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        let records = self.api.logs(request.into_inner().into()).await?;
        Ok(Response::new(records.map(|record| Ok(LogRecord::from(record))).boxed()))
    }

    type ExecStream = Messages<ExecOutput>;

    async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Answer<Self::ExecStream> {
        let (task, exec, input) = streams::exec_of(request.into_inner()).await?;
        let outputs = self.api.exec(&task, exec, input).await?;
        Ok(Response::new(outputs.map_ok(ExecOutput::from).map_err(Status::from).boxed()))
    }

    type BackupStream = Messages<Chunk>;

    async fn backup(&self, _: Request<Empty>) -> Answer<Self::BackupStream> {
        let file = self.api.backup().await?;
        Ok(Response::new(stream::iter(pieces(&file)).map(Ok).boxed()))
    }

    async fn rotate_root(&self, _: Request<Empty>) -> Answer<Changed> {
        told(self.api.rotate_root().await?)
    }

    async fn inspect_root(&self, _: Request<Empty>) -> Answer<RootStatus> {
        told(self.api.inspect_root().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_backup_are_the_file() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let file: Bytes = (0..length).map(|at| at as u8).collect();
            let pieces = pieces(&file);
            assert!(pieces.iter().all(|piece| (1..=PIECE).contains(&piece.data.len())));
            let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.to_vec()).collect();
            assert_eq!(whole, file);
        }
    }
}
