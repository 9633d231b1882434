//! An engine by any method: the [`Balancer`] around its workers.

use std::path::Path;

use async_trait::async_trait;

use crate::{
    Balancer, Changes, Error, Kind, Network, Repaired, Result,
    method::{Method, Table},
    networks::Networks,
    nft::Nft,
    worker::{Memory, Worker},
};

/// An engine: one per daemon.
#[derive(Debug)]
pub(crate) struct Engine<M: Method> {
    nft: Nft,
    networks: Networks<Memory<M::Table>>,
}

impl<M: Method> Engine<M> {
    /// Finds the `nft` command.
    ///
    /// # Errors
    /// [`Error::MissingNft`] names the package.
    pub(crate) fn find() -> Result<Self> {
        Ok(Self { nft: Nft::find()?, networks: Networks::default() })
    }

    /// Proves in a throw-away namespace that `nft` and the kernel can do all that the engine needs.
    ///
    /// # Errors
    /// [`Error::Ipvs`] or [`Error::Unsupported`] with what the kernel or `nft` said.
    pub(crate) async fn probe(&self) -> Result<()> {
        let nft = self.nft.clone();
        let probed = swarm_netns::in_new(move || M::probe(&nft)).await?;
        probed.map_err(|error| match error {
            Error::Refused { reason } => Error::Unsupported { reason },
            other => other,
        })
    }

    /// Runs `work` in the namespace, alone for this network.
    async fn work<T: Send + 'static>(
        &self,
        id: &str,
        netns: &Path,
        work: impl FnOnce(&mut Worker<'_, M>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (nft, network) = (self.nft.clone(), id.to_owned());
        let work = move |namespace, memory: &mut Memory<M::Table>| {
            work(&mut Worker { nft: &nft, network: &network, namespace, memory })
        };
        self.networks.work(id, netns, work).await
    }
}

#[async_trait]
impl<M: Method> Balancer for Engine<M> {
    async fn program(&self, network: &Network) -> Result<Changes> {
        let table = M::Table::of(network)?;
        self.work(&network.id, &network.netns, move |worker| worker.program(table)).await
    }

    async fn audit(&self, network: &Network) -> Result<Repaired> {
        let table = M::Table::of(network)?;
        self.work(&network.id, &network.netns, move |worker| worker.audit(table)).await
    }

    async fn remove(&self, network_id: &str, netns: &Path) -> Result<()> {
        let removed = self.work(network_id, netns, |worker| worker.remove()).await;
        self.networks.removed(network_id, removed)
    }

    fn name(&self) -> &'static str {
        M::NAME
    }

    fn kind(&self) -> Kind {
        M::KIND
    }
}
