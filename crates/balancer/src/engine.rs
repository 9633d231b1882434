//! The interface that every balancing engine offers, and the choice between engines.

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;

use crate::{
    Error, Network, Result, generic::Engine, ipvs::Ipvs, method::Method, nftables::Nftables,
};

/// What an operation did to the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Statements sent to the kernel in one transaction (nft statements, IPVS messages); 0 if all was as it should be.
    pub operations: usize,
    /// The network's state was replaced as a whole, since what the kernel held was unknown or had been changed.
    pub rebuilt: bool,
    /// Tracked connections deleted because they contradict what is programmed.
    pub connections: usize,
}

/// What an audit found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// How the kernel differed from what this engine had programmed, in words; `None` if it did not.
    pub drift: Option<String>,
    /// What was done about it, and about differences between the programmed and the now desired state.
    pub changes: Changes,
}

/// The engines that exist. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// [`nftables`].
    Nftables,
    /// [`ipvs`].
    Ipvs,
    /// [`crate::FakeBalancer`].
    Fake,
}

/// An engine: makes the kernel balance a network's VIPs over the backends.
///
/// Whatever the engine:
/// - TCP and UDP to a VIP, on the ports of its service, go to the backends by weight, for equal weights in turn. The
///   backend sees the client's own address, save for a task that is given to itself, which sees the network's gateway.
/// - A port that is none of the service's, and any whose backends are all draining or gone, refuses new connections at
///   once (TCP reset, ICMP port unreachable).
/// - A backend of weight 0 keeps its established connections; removing a backend deletes them, so that UDP flows move.
/// - A port that is no longer named, or leads elsewhere, ends its connections, those to draining backends too. Between
///   [`Ports::All`](crate::Ports::All) and the same port named, led to itself, nftables keeps connections, IPVS ends
///   them.
/// - ICMP echo to a VIP is left to the namespace, which owns the address.
///
/// Calls for different networks run in parallel; calls for one network run one after another, in no promised order, so
/// the caller sends one at a time. A call whose future is dropped is carried out nonetheless.
#[async_trait]
pub trait Balancer: Send + Sync {
    /// Makes the kernel match `network`, by the smallest change that does; idempotent.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for a contradictory state; otherwise what the kernel said. After an error the kernel
    /// holds the old state or the new one (with IPVS, which has no transactions, perhaps a part of both), and the next
    /// call starts from scratch.
    async fn program(&self, network: &Network) -> Result<Changes>;

    /// Checks that the kernel still holds what was programmed, and repairs it, logging a warning, if not.
    /// Cheap where nothing happened: meant to be called every half minute for each network.
    ///
    /// # Errors
    /// As [`Balancer::program`].
    async fn audit(&self, network: &Network) -> Result<Repaired>;

    /// Takes everything of this engine out of the namespace. A network never programmed, or whose namespace is gone,
    /// is no error.
    ///
    /// # Errors
    /// What the kernel said.
    async fn remove(&self, network_id: &str, netns: &Path) -> Result<()>;

    /// The engine's name as users write it.
    fn name(&self) -> &'static str;

    /// Which engine this is.
    fn kind(&self) -> Kind;
}

/// Which engine the user asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preference {
    /// [`ipvs`] where the kernel has it, else [`nftables`].
    #[default]
    Auto,
    /// [`nftables`] or nothing.
    Nftables,
    /// [`ipvs`] or nothing.
    Ipvs,
}

/// A chosen engine. Its text is what `node inspect` says: `nftables (this kernel has no IP_VS)`.
#[derive(Clone)]
pub struct Choice {
    /// The engine.
    pub engine: Arc<dyn Balancer>,
    /// Why this one.
    pub why: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.engine.name(), self.why)
    }
}

/// Chooses an engine and proves, in a namespace thrown away afterwards, that this host can run it.
///
/// # Errors
/// [`Error::MissingNft`], [`Error::Ipvs`] or [`Error::Unsupported`] say what the host lacks.
pub async fn choose(preference: Preference) -> Result<Choice> {
    match preference {
        Preference::Auto => match proven::<Ipvs>().await {
            Ok(engine) => Ok(Choice { engine, why: "the kernel has it".to_owned() }),
            Err(missing @ Error::MissingNft) => Err(missing),
            Err(error) => {
                Ok(Choice { engine: proven::<Nftables>().await?, why: why_not_ipvs(&error) })
            }
        },
        Preference::Ipvs => proven::<Ipvs>().await.map(forced),
        Preference::Nftables => proven::<Nftables>().await.map(forced),
    }
}

async fn proven<M: Method>() -> Result<Arc<dyn Balancer>> {
    let engine = Engine::<M>::find()?;
    engine.probe().await?;
    Ok(Arc::new(engine))
}

/// The engine on IPVS; [`choose`] would prove first that the kernel has it.
///
/// # Errors
/// [`Error::MissingNft`] names the package.
pub fn ipvs() -> Result<Arc<dyn Balancer>> {
    Ok(Arc::new(Engine::<Ipvs>::find()?))
}

/// The engine on nftables; [`choose`] would prove first that the kernel can do all that it needs.
///
/// # Errors
/// [`Error::MissingNft`] names the package.
pub fn nftables() -> Result<Arc<dyn Balancer>> {
    Ok(Arc::new(Engine::<Nftables>::find()?))
}

fn forced(engine: Arc<dyn Balancer>) -> Choice {
    Choice { engine, why: "forced by --balancer".to_owned() }
}

fn why_not_ipvs(error: &Error) -> String {
    if error.is_no_ipvs() {
        return "this kernel has no IP_VS".to_owned();
    }
    format!("ipvs does not work here: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_was_not_taken_says_why() {
        let none = Error::Ipvs(ipvs_rs::Error::NoIpvs);
        assert_eq!(why_not_ipvs(&none), "this kernel has no IP_VS");
        let old = Error::Unsupported { reason: "syntax error".to_owned() };
        let why = "ipvs does not work here: nftables cannot balance on this host: syntax error";
        assert_eq!(why_not_ipvs(&old), why);
    }
}
