//! What can go wrong, in words for the person who runs the node.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use nix::errno::Errno;

/// Errors of this crate. Texts name the object and the action.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a request over rtnetlink.
    #[error("{action}: {source}")]
    Netlink {
        /// What was asked, naming the object.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file, mount or namespace operation failed.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A network namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] swarm_netns::Error),
    /// The kernel lacks the `vxlan` driver.
    #[error("this kernel has no VXLAN support: load the vxlan module or build with CONFIG_VXLAN")]
    NoVxlan,
    /// The kernel lacks `br_netfilter`, which service VIPs need.
    #[error(
        "this kernel has no br_netfilter: load the br_netfilter module or build with CONFIG_BRIDGE_NETFILTER"
    )]
    NoBridgeNetfilter,
    /// Another program listens on the VXLAN port.
    #[error("udp port {port} is in use by another program on this node")]
    PortInUse {
        /// The data-path port.
        port: u16,
    },
    /// The process may not change the network.
    #[error("setting up networks needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN)")]
    Privileges,
    /// The `nft` binary is missing.
    #[error("the nft command is missing: install the nftables package")]
    NoNft,
    /// `nft` rejected the ruleset.
    #[error("nft refused the egress rules: {0}")]
    Nft(String),
    /// The data-path address is not configured on this node.
    #[error("data-path address {0} is on no interface of this node")]
    NoSuchAddress(IpAddr),
    /// An input is out of range or contradicts itself.
    #[error("{object}: {reason}")]
    Invalid {
        /// The object, such as `network web`.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A sandbox names a network that was never ensured here.
    #[error("network {0} is not set up on this node")]
    NoNetwork(String),
    /// Every candidate subnet for the egress bridge is routed elsewhere.
    #[error("no egress subnet is free on this node: {0} are all routed elsewhere")]
    NoEgressSubnet(String),
    /// The egress bridge has given out all its addresses.
    #[error("egress subnet of gateway {gateway} has no free address")]
    EgressExhausted {
        /// The bridge's own address.
        gateway: IpAddr,
    },
    /// More than one step failed; all of them.
    #[error("{object}: {}", List(errors))]
    Several {
        /// The object worked on.
        object: String,
        /// Every failure, in order.
        errors: Vec<Error>,
    },
}

/// How many errors of a collection are spelled out.
const SPELLED_OUT: usize = 5;

struct List<'a>(&'a [Error]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().take(SPELLED_OUT).enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        if self.0.len() > SPELLED_OUT {
            write!(f, "; and {} more", self.0.len() - SPELLED_OUT)?;
        }
        Ok(())
    }
}

impl Error {
    pub(crate) fn netlink(action: impl Into<String>, source: io::Error) -> Self {
        Self::Netlink { action: action.into(), source }
    }

    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::File { action, path: path.into(), source: source.into() }
    }

    /// The kernel's error number behind this error, if there is one.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Netlink { source, .. } | Self::File { source, .. } => {
                source.raw_os_error().map(Errno::from_raw)
            }
            Self::Namespace(error) => error.errno(),
            _ => None,
        }
    }

    /// `Ok` for no error, the error itself for one, [`Error::Several`] for more.
    pub(crate) fn collect(object: impl Into<String>, mut errors: Vec<Error>) -> Result<(), Error> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several { object: object.into(), errors }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_errors_are_counted_not_listed() {
        let errors = (0..8).map(|i| Error::NoNetwork(i.to_string())).collect();
        let text = Error::collect("network web", errors).unwrap_err().to_string();
        assert!(text.starts_with("network web: network 0 is not set up on this node; "));
        assert!(text.ends_with("; and 3 more"), "{text}");
    }
}
