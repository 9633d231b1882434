//! The data plane of a node: overlay, encryption, balancer and DNS, brought to what the node's view says.

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::join_all;
use swarm_balancer::Balancer;
use swarm_model::{NetworkId, NodeId, NodeView};

use crate::adapters::{Dns, Overlay};
use crate::encryption::Encryption;
use crate::networks::{Desired, networks_of};

/// A network that could not be programmed; with all its causes, as it is shown to users on one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataPlaneError {
    #[error("cannot program network {network}: {reason:#}")]
    Overlay { network: String, reason: anyhow::Error },
    #[error("cannot encrypt network {network}: {reason}")]
    Encrypt { network: String, reason: String },
    #[error("cannot set up encryption: {0}")]
    Encryption(String),
    #[error("cannot balance network {network}: {reason:#}")]
    Balancer { network: String, reason: anyhow::Error },
    #[error("cannot name network {network}: {reason:#}")]
    Dns { network: String, reason: anyhow::Error },
    #[error("cannot repair this host's way out: {0}")]
    Host(swarm_overlay::Error),
    #[error("cannot list networks: {0}")]
    List(swarm_overlay::Error),
}

/// The adapters that make up a node's data plane.
pub(crate) struct DataPlane {
    pub(crate) node: NodeId,
    pub(crate) vtep: IpAddr,
    pub(crate) overlay: Arc<dyn Overlay>,
    pub(crate) encryption: Arc<Encryption>,
    pub(crate) balancer: Arc<dyn Balancer>,
    pub(crate) dns: Arc<dyn Dns>,
}

impl DataPlane {
    /// Programs these networks as `view` has them, side by side; those it does not have are removed.
    /// All are tried; the first error is returned.
    pub(crate) async fn program(
        &self,
        view: &NodeView,
        networks: impl IntoIterator<Item = NetworkId>,
    ) -> Result<(), DataPlaneError> {
        let guarded = self.encryption.guard(view, false).await;
        let work = networks.into_iter().map(|id| {
            let guarded = &guarded;
            async move {
                match Desired::of(view, &id) {
                    Some(desired) => self.program_one(&id, &desired, guarded, false).await,
                    None => self.remove_one(&id).await,
                }
            }
        });
        let networks = first_error(join_all(work).await);
        self.after_networks(view, networks, guarded, false).await
    }

    /// Unblocks what no encrypted network needs blocked any more, once all went well.
    async fn after_networks(
        &self,
        view: &NodeView,
        networks: Result<(), DataPlaneError>,
        guarded: Result<(), String>,
        audit: bool,
    ) -> Result<(), DataPlaneError> {
        networks?;
        guarded.map_err(DataPlaneError::Encryption)?;
        self.encryption.relax(view, audit).await.map_err(DataPlaneError::Encryption)
    }

    /// Compares everything with the kernel, repairs what differs, and removes strays. All is tried; the
    /// first error is returned.
    pub(crate) async fn audit(&self, view: &NodeView) -> Result<(), DataPlaneError> {
        let host = self.audit_host().await;
        let networks = self.audit_networks(view).await;
        first_error(vec![host, networks])
    }

    async fn audit_host(&self) -> Result<(), DataPlaneError> {
        let changes = self.overlay.ensure_host().await.map_err(DataPlaneError::Host)?;
        if !changes.is_empty() {
            tracing::warn!("this host's way out had drifted, repaired: {changes}");
        }
        Ok(())
    }

    async fn audit_networks(&self, view: &NodeView) -> Result<(), DataPlaneError> {
        let wanted = networks_of(view);
        let existing = self.overlay.list().map_err(DataPlaneError::List)?;
        let strays: Vec<NetworkId> = existing
            .networks
            .into_iter()
            .map(NetworkId::from)
            .filter(|id| !wanted.contains(id))
            .collect();
        for id in &strays {
            tracing::info!("removing network {id}, which this node does not carry");
        }
        let guarded = self.encryption.guard(view, true).await;
        let work = wanted.iter().map(|id| {
            let guarded = &guarded;
            async move {
                match Desired::of(view, id) {
                    Some(desired) => self.program_one(id, &desired, guarded, true).await,
                    None => Ok(()),
                }
            }
        });
        let audited = first_error(join_all(work).await);
        let removed = first_error(join_all(strays.iter().map(|id| self.remove_one(id))).await);
        let networks = first_error(vec![audited, removed]);
        self.after_networks(view, networks, guarded, true).await
    }

    async fn program_one(
        &self,
        id: &NetworkId,
        desired: &Desired<'_>,
        guarded: &Result<(), String>,
        audit: bool,
    ) -> Result<(), DataPlaneError> {
        let network = || id.to_string();
        if let (true, Err(reason)) = (desired.is_encrypted(), guarded) {
            return Err(DataPlaneError::Encrypt { network: network(), reason: reason.clone() });
        }
        let overlay =
            |e| DataPlaneError::Overlay { network: network(), reason: anyhow::Error::new(e) };
        let changes =
            self.overlay.ensure(&desired.overlay(&self.node, self.vtep)).await.map_err(overlay)?;
        if audit && !changes.is_empty() {
            tracing::warn!("network {id} had drifted, repaired: {changes}");
        }
        let target = desired.balancer(&self.node, self.overlay.network_netns(id.as_str()));
        let balanced = if audit {
            self.balancer.audit(&target).await.map(|_| ())
        } else {
            self.balancer.program(&target).await.map(|_| ())
        };
        balanced.map_err(|e| DataPlaneError::Balancer { network: network(), reason: e.into() })?;
        let names = desired
            .names()
            .map_err(|e| DataPlaneError::Dns { network: network(), reason: e.into() })?;
        self.dns.publish_network(id.as_str(), Arc::new(names));
        Ok(())
    }

    async fn remove_one(&self, id: &NetworkId) -> Result<(), DataPlaneError> {
        self.dns.remove_network(id.as_str());
        let netns = self.overlay.network_netns(id.as_str());
        let balancer = |e: swarm_balancer::Error| DataPlaneError::Balancer {
            network: id.to_string(),
            reason: e.into(),
        };
        self.balancer.remove(id.as_str(), &netns).await.map_err(balancer)?;
        let overlay = |e: swarm_overlay::Error| DataPlaneError::Overlay {
            network: id.to_string(),
            reason: e.into(),
        };
        self.overlay.remove(id.as_str()).await.map_err(overlay)
    }
}

fn first_error(results: Vec<Result<(), DataPlaneError>>) -> Result<(), DataPlaneError> {
    let mut first = Ok(());
    for result in results {
        match result {
            Err(e) if first.is_err() => tracing::error!("{e}"),
            Err(e) => first = Err(e),
            Ok(()) => {}
        }
    }
    first
}
