//! The manager that leads, for another one that is asked what only the leader knows or does.

use futures::StreamExt;
use futures::stream::BoxStream;
use swarm_model::{NetworkId, NodeId};
use swarm_proto::control::control_client::ControlClient;
use swarm_proto::control::{
    InspectNetworkRequest, RemoveNodeRequest, UpdateNodeRequest, WatchServiceRequest,
};
use tonic::transport::Channel;

use super::keys::{Peer, Told};
use crate::api::types::{Changed, Encryption, NetworkPeer, Progress};
use crate::error::ApiError;

/// The leader, to be asked. Nodes are named by id: `self` would mean another one there.
pub(crate) struct LeaderClient(ControlClient<Channel>);

impl LeaderClient {
    pub(crate) fn new(channel: Channel) -> LeaderClient {
        LeaderClient(ControlClient::new(channel))
    }

    /// Takes a manager that is lost for good out of the quorum, and removes its node.
    pub(crate) async fn remove_node(&mut self, id: &NodeId) -> Result<Changed, ApiError> {
        let request = RemoveNodeRequest { name: id.to_string(), force: true };
        Ok(self.0.remove_node(request).await?.into_inner().into())
    }

    /// Makes a manager a worker; returns warnings about those that are left.
    pub(crate) async fn demote(&mut self, id: &NodeId) -> Result<Vec<String>, ApiError> {
        let request = UpdateNodeRequest {
            name: id.to_string(),
            role: "worker".into(),
            ..UpdateNodeRequest::default()
        };
        Ok(self.0.update_node(request).await?.into_inner().warnings)
    }

    /// How far a service is from being as wanted.
    pub(crate) async fn watch_service(
        &mut self,
        name: &str,
        revision: u64,
    ) -> Result<BoxStream<'static, Result<Progress, ApiError>>, ApiError> {
        let request = WatchServiceRequest { service: name.to_owned(), revision };
        let news = self.0.watch_service(request).await?.into_inner();
        Ok(news.map(|told| told.map(Progress::from).map_err(ApiError::from)).boxed())
    }

    /// The keys of an encrypted network, and how far each node that carries it is with them.
    pub(crate) async fn keys_of(
        &mut self,
        network: &NetworkId,
    ) -> Result<(Vec<NetworkPeer>, Encryption), ApiError> {
        let request = InspectNetworkRequest { name: network.to_string(), verbose: false };
        let document = self.0.inspect_network(request).await?.into_inner().json;
        let told: Told =
            serde_json::from_slice(&document).map_err(|e| ApiError::Internal(e.to_string()))?;
        Ok((told.peers.into_iter().map(Peer::read).collect(), told.encryption.read()))
    }
}
