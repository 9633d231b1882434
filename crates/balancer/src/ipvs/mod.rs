//! The engine on IPVS: an nft map marks what comes for a VIP, and an IPVS service by that mark masquerades it to the
//! backends, `wrr` by weight. Needs the kernel's IPVS, and the `nft` command.
//!
//! - `table`: what a network's nftables and IPVS should hold, and which connections may exist beside it.
//! - `steps`: from one set of IPVS services to another.
//! - `kernel`: carrying steps out, listing what there is, and the sysctls.
//! - `worker`: what happens inside the namespace: order, connections, audit.
//!
//! IPVS has no transactions. What comes is added first, then nftables changes in one transaction, then what goes is
//! deleted; after an error in between the next call compares all with what the kernel lists.

mod kernel;
mod steps;
mod table;
mod worker;

use std::path::Path;

use async_trait::async_trait;

use crate::{
    Balancer, Changes, Error, Kind, Network, Repaired, Result, networks::Networks, nft::Nft,
};
use table::Table;
use worker::{Memory, Worker};

/// The IPVS engine. One per daemon; cheap to share through an `Arc`.
#[derive(Debug)]
pub struct Ipvs {
    nft: Nft,
    networks: Networks<Memory>,
}

impl Ipvs {
    /// Finds the `nft` command.
    ///
    /// # Errors
    /// [`Error::MissingNft`] names the package.
    pub fn find() -> Result<Self> {
        Ok(Self { nft: Nft::find()?, networks: Networks::default() })
    }

    /// Proves in a throw-away namespace that `nft` and the kernel can do all that the engine needs; returns the
    /// version of IPVS.
    ///
    /// # Errors
    /// [`Error::Ipvs`] or [`Error::Unsupported`] with what the kernel or `nft` said.
    pub async fn probe(&self) -> Result<String> {
        let nft = self.nft.clone();
        swarm_netns::in_new(move || {
            let version = kernel::probe()?;
            nft.commit(&table::sample().join("\n")).map_err(|error| match error {
                Error::Refused { reason } => Error::Unsupported { reason },
                other => other,
            })?;
            Ok(format!("ipvs {version}"))
        })
        .await?
    }

    /// Runs `work` in the namespace, alone for this network.
    async fn work<T: Send + 'static>(
        &self,
        id: &str,
        netns: &Path,
        work: impl FnOnce(&mut Worker<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (nft, network) = (self.nft.clone(), id.to_owned());
        let work = move |namespace, memory: &mut Memory| {
            work(&mut Worker { nft: &nft, network: &network, namespace, memory })
        };
        self.networks.work(id, netns, work).await
    }
}

#[async_trait]
impl Balancer for Ipvs {
    async fn program(&self, network: &Network) -> Result<Changes> {
        let table = Table::of(network)?;
        self.work(&network.id, &network.netns, move |worker| worker.program(table)).await
    }

    async fn audit(&self, network: &Network) -> Result<Repaired> {
        let table = Table::of(network)?;
        self.work(&network.id, &network.netns, move |worker| worker.audit(table)).await
    }

    async fn remove(&self, network_id: &str, netns: &Path) -> Result<()> {
        let removed = self.work(network_id, netns, |worker| worker.remove()).await;
        self.networks.removed(network_id, removed)
    }

    fn name(&self) -> &'static str {
        "ipvs"
    }

    fn kind(&self) -> Kind {
        Kind::Ipvs
    }
}
