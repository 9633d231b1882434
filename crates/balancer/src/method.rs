//! What the engines differ in. [`crate::worker`] has what they do alike.

use crate::{Kind, Network, Result, fronts::Fronts, netlink::Entry, nft::Nft};

/// What a network should hold in the kernel, in an engine's terms.
pub(crate) trait Table: Sized + PartialEq + Send + 'static {
    /// # Errors
    /// [`crate::Error::Invalid`] for a network that contradicts itself.
    fn of(network: &Network) -> Result<Self>;

    /// Which tracked connections may exist beside it.
    fn fronts(&self) -> &Fronts;
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
