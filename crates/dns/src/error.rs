//! What can go wrong, in words that name the object and the action.

use std::io;
use std::path::PathBuf;

/// An operation on the DNS server that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that DNS cannot carry (RFC 1035 section 3.1), given to be published.
    #[error("cannot publish the name {name:?}: {reason}")]
    InvalidName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The sandbox is being served already.
    #[error("cannot attach sandbox {id}: it is attached already")]
    AlreadyAttached {
        /// The sandbox's id.
        id: String,
    },
    /// No sandbox of that id is being served.
    #[error("sandbox {id} is not attached to the DNS server")]
    NotAttached {
        /// The sandbox's id.
        id: String,
    },
    /// The network namespace could not be opened or entered.
    #[error(transparent)]
    Namespace(#[from] swarm_netns::Error),
    /// A socket could not be bound inside the namespace: mostly because something else listens there.
    #[error("cannot listen on {transport} 127.0.0.11:53 in network namespace {}: {cause}", path.display())]
    Bind {
        /// "udp" or "tcp".
        transport: &'static str,
        /// The namespace's file.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
}
