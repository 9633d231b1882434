//! What can go wrong while balancing, in words for `node inspect` and the log.

use std::io;

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a network's services could not be programmed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's desired state contradicts itself; nothing was changed.
    #[error("network {network}: {reason}")]
    Invalid {
        /// The network's id.
        network: String,
        /// What contradicts what.
        reason: String,
    },
    /// No `nft` command on this host.
    #[error("the nft command is not installed: install the package nftables")]
    MissingNft,
    /// `nft` or the kernel lacks something that the engine needs.
    #[error("nftables cannot balance on this host: {reason}")]
    Unsupported {
        /// The first line that `nft` wrote.
        reason: String,
    },
    /// `nft` refused a transaction; as transactions are atomic, the kernel still holds what it held.
    #[error("nft refused the transaction: {reason}")]
    Refused {
        /// The first line that `nft` wrote.
        reason: String,
    },
    /// `nft` could not be run.
    #[error("cannot {action}")]
    Nft {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// `nft` did not end in time and was killed.
    #[error("nft did not end within {seconds} s")]
    NftTimeout {
        /// The time it was given.
        seconds: u64,
    },
    /// A network namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] swarm_netns::Error),
    /// The kernel's netfilter netlink failed.
    #[error("cannot {action}")]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// IPVS said no.
    #[error(transparent)]
    Ipvs(#[from] ipvs_rs::Error),
    /// A setting of the kernel's could not be read or changed.
    #[error("cannot set net.ipv4.vs.{name}")]
    Sysctl {
        /// Its last part.
        name: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// An error that a test asked [`crate::FakeBalancer`] for.
    #[error("{0}")]
    Injected(String),
}
