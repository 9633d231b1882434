//! What the engines differ in. [`crate::worker`] has what they do alike.

use std::path::Path;

use async_trait::async_trait;

use crate::{
    Balancer, Changes, Error, Kind, Network, Repaired, Result,
    netlink::{Answerers, Entry},
    networks::Networks,
    nft::Nft,
    worker::{Memory, Worker},
};

/// What a network should hold in the kernel, in an engine's terms, and which tracked connections may exist beside it.
pub(crate) trait Table: Sized + PartialEq + Send + 'static {
    /// # Errors
    /// [`Error::Invalid`] for a network that contradicts itself.
    fn of(network: &Network) -> Result<Self>;

    /// Who answers the connections that a change from this table to `new` leaves behind, [`Table::disowns`] to judge.
    fn stranded_by(&self, new: &Self) -> Answerers;

    /// Whether a tracked connection contradicts this table.
    fn disowns(&self, entry: &Entry) -> bool;
}

/// What a change did.
pub(crate) struct Done {
    /// Statements sent to the kernel.
    pub(crate) operations: usize,
    /// Whether nftables counted a transaction.
    pub(crate) committed: bool,
    /// Tracked connections deleted on the way.
    pub(crate) connections: usize,
}

/// A way of balancing, open in the calling thread's namespace.
pub(crate) trait Method: Sized + Send + 'static {
    /// Which engine this is.
    const KIND: Kind;
    /// Its name as users write it.
    const NAME: &'static str;
    type Table: Table;

    fn open() -> Result<Self>;

    /// Whether the kernel seems to hold the table where nftables' generation does not tell: a quick look.
    fn seems_right(&mut self, table: &Self::Table) -> Result<bool>;

    /// How the kernel differs from the table where nftables' generation does not tell, in words: a thorough look.
    fn strangeness(&mut self, table: &Self::Table) -> Result<Option<String>>;

    /// Leads from a table that the kernel holds to another. After an error the kernel may hold a part of both.
    fn change(&mut self, nft: &Nft, from: &Self::Table, to: &Self::Table) -> Result<Done>;

    /// Leads from whatever there is to a table; how many statements that took. It is one transaction of nftables.
    fn rebuild(&mut self, nft: &Nft, table: &Self::Table) -> Result<usize>;

    /// Takes everything away.
    fn remove(nft: &Nft) -> Result<()>;

    /// Whether a tracked connection was balanced by this engine.
    fn has_balanced(entry: &Entry) -> bool;

    /// Proves that `nft` and the kernel can do all that is needed.
    fn probe(nft: &Nft) -> Result<()>;
}

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
