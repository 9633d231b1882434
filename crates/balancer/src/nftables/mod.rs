//! The engine on nftables: a verdict map leads each VIP to its service's chain, where `numgen` gives every backend its
//! turn and NAT does the rest. Needs the `nft` command; writes to it, and decides nothing by what it prints.
//!
//! - `table`: the table that a network should have, and the statements from one table to another.
//! - `statement`: those statements' text.
//! - `slots`: weights to turns.
//! - `worker`: what happens inside the namespace: transaction, connections, audit.

mod slots;
mod statement;
mod table;
mod worker;

use std::{net::Ipv4Addr, path::Path};

use async_trait::async_trait;

use crate::{
    Backend, Balancer, Changes, Error, Kind, Network, Repaired, Result, VirtualService,
    networks::Networks, nft::Nft,
};
use table::Table;
use worker::{Memory, Worker};

/// The nftables engine. One per daemon; cheap to share through an `Arc`.
#[derive(Debug)]
pub struct Nftables {
    nft: Nft,
    networks: Networks<Memory>,
}

impl Nftables {
    /// Finds the `nft` command.
    ///
    /// # Errors
    /// [`Error::MissingNft`] names the package.
    pub fn find() -> Result<Self> {
        Ok(Self { nft: Nft::find()?, networks: Networks::default() })
    }

    /// Proves in a throw-away namespace that `nft` and the kernel can do all that the engine needs; returns the
    /// version of `nft`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with what `nft` said.
    pub async fn probe(&self) -> Result<String> {
        let nft = self.nft.clone();
        swarm_netns::in_new(move || {
            let statements = sample();
            let script = statement::script(&statements.rebuild());
            nft.commit(&script).map_err(|error| match error {
                Error::Refused { reason } => Error::Unsupported { reason },
                other => other,
            })?;
            nft.version()
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
impl Balancer for Nftables {
    async fn program(&self, network: &Network) -> Result<Changes> {
        network.validate()?;
        let table = Table::of(network);
        self.work(&network.id, &network.netns, move |worker| worker.program(table)).await
    }

    async fn audit(&self, network: &Network) -> Result<Repaired> {
        network.validate()?;
        let table = Table::of(network);
        self.work(&network.id, &network.netns, move |worker| worker.audit(table)).await
    }

    async fn remove(&self, network_id: &str, netns: &Path) -> Result<()> {
        let removed = self.work(network_id, netns, |worker| worker.remove()).await;
        self.networks.removed(network_id, removed)
    }

    fn name(&self) -> &'static str {
        "nftables"
    }

    fn kind(&self) -> Kind {
        Kind::Nftables
    }
}

/// A network that uses every statement the engine knows.
fn sample() -> Table {
    let service = |id: &str, vip: [u8; 4], backends| VirtualService {
        id: id.into(),
        name: "probe".into(),
        mark: None,
        vip: vip.into(),
        backends,
    };
    let backend = Backend { addr: Ipv4Addr::new(192, 0, 2, 11), weight: 1, local: true };
    Table::of(&Network {
        id: "probe".into(),
        netns: "/".into(),
        gateway: Ipv4Addr::new(192, 0, 2, 1),
        services: vec![
            service("a", [192, 0, 2, 2], vec![backend]),
            service("b", [192, 0, 2, 3], vec![]),
        ],
    })
}
