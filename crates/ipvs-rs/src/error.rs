//! What can go wrong, and with what.

use std::{fmt, io, net::SocketAddr, time::Duration};

use crate::ServiceKey;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an operation was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// IPVS itself.
    Ipvs,
    /// All services of the namespace.
    Services,
    /// One service.
    Service(ServiceKey),
    /// All destinations of a service.
    Destinations(ServiceKey),
    /// One destination.
    Destination {
        /// Of this service.
        service: ServiceKey,
        /// Its address.
        address: SocketAddr,
    },
    /// The namespace's timeouts.
    Timeouts,
    /// All connections of the namespace.
    Connections,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipvs => f.write_str("ipvs"),
            Self::Services => f.write_str("all services"),
            Self::Service(key) => write!(f, "service {key}"),
            Self::Destinations(key) => write!(f, "the destinations of service {key}"),
            Self::Destination { service, address } => {
                write!(f, "destination {address} of service {service}")
            }
            Self::Timeouts => f.write_str("the timeouts"),
            Self::Connections => f.write_str("all connections"),
        }
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel knows no generic netlink family `IPVS`: the module `ip_vs` is neither loaded nor did the kernel load it,
    /// which it tries with its own `modprobe`.
    #[error("this kernel has no ipvs: module ip_vs is not loaded and could not be")]
    NoIpvs,
    /// The kernel has no scheduler or persistence engine of that name, and could not load its module.
    #[error("cannot {action} {object}: the kernel has no {module}")]
    NoModule {
        /// What was done.
        action: &'static str,
        /// To what.
        object: Object,
        /// What it lacks: `scheduler "rr" (module ip_vs_rr)`.
        module: String,
    },
    /// It exists already.
    #[error("cannot {action} {object}: it exists already")]
    Exists {
        /// What was done.
        action: &'static str,
        /// To what.
        object: Object,
    },
    /// It, or the service it should belong to, does not exist.
    #[error("cannot {action} {object}: no such {missing}")]
    NotFound {
        /// What was done.
        action: &'static str,
        /// To what.
        object: Object,
        /// `service` or `destination`.
        missing: &'static str,
    },
    /// The caller lacks `CAP_NET_ADMIN`.
    #[error("cannot {action} {object}: not permitted, this needs CAP_NET_ADMIN")]
    NotPermitted {
        /// What was done.
        action: &'static str,
        /// To what.
        object: Object,
    },
    /// The kernel refused for another reason.
    #[error("cannot {action} {object}: {source}{}", explained(.explanation))]
    Refused {
        /// What was done.
        action: &'static str,
        /// To what.
        object: Object,
        /// The kernel's error number.
        source: io::Error,
        /// The kernel's words (extended acknowledgement), if it said any.
        explanation: Option<String>,
    },
    /// It cannot be said to the kernel.
    #[error("{object} is invalid: {reason}")]
    Invalid {
        /// What.
        object: Object,
        /// Why.
        reason: String,
    },
    /// The kernel's answer makes no sense.
    #[error("cannot {action} {object}: the kernel's answer is malformed: {reason}")]
    Malformed {
        /// What was done.
        action: &'static str,
        /// To what.
        object: Object,
        /// Why.
        reason: String,
    },
    /// The netlink socket failed.
    #[error("cannot {action} {object}: netlink socket: {source}")]
    Socket {
        /// What was done.
        action: &'static str,
        /// To what.
        object: Object,
        /// How.
        source: io::Error,
    },
    /// `/proc` cannot be read.
    #[error("cannot list all connections: {source}")]
    Connections {
        /// How.
        source: io::Error,
    },
    /// The kernel did not answer.
    #[error("cannot {action} {object}: no answer from the kernel within {} s", .after.as_secs())]
    TimedOut {
        /// What was done.
        action: &'static str,
        /// To what.
        object: Object,
        /// How long was waited.
        after: Duration,
    },
    /// The network namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] swarm_netns::Error),
}

fn explained(words: &Option<String>) -> String {
    words.as_ref().map_or_else(String::new, |words| format!(" ({words})"))
}
