//! The embedded DNS server of a node: it answers every task at 127.0.0.11:53 inside the task's own
//! network namespace, from an immutable snapshot of the names its networks have, and relays what it
//! does not know to the node's resolvers.
//!
//! | module | its one idea |
//! |---|---|
//! | [`names`] | what is published: names and addresses, per network |
//! | [`server`] | [`DnsServer`]: publish, attach, detach |
//! | `scope`, `shared` | what one sandbox sees; what all of them share |
//! | `sandbox` | the serving loop of one task's sockets |
//! | `netns` | sockets opened inside another network namespace |
//! | `query` | from bytes to a question that can be looked up |
//! | `respond` | from a question to an answer, or to the verdict that it must be relayed |
//! | `relay` | asking the node's resolvers, in turn and in bounded time |
//! | `resolv_conf` | which resolvers those are |
//!
//! `OVERVIEW.md` tells how they play together and why.
#![forbid(unsafe_code)]

mod error;
pub mod names;
mod netns;
mod query;
mod relay;
mod resolv_conf;
mod respond;
mod sandbox;
mod scope;
pub mod server;
mod shared;

pub use error::Error;
pub use names::{Answer, Names, NetworkNames};
pub use resolv_conf::parse_resolv_conf;
pub use scope::Scope;
pub use server::DnsServer;
pub use shared::{Limits, Options};

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// Where tasks find the server: 127.0.0.11:53, as in Docker. It lies in 127.0.0.0/8, so a loopback
/// interface that is up is all a namespace needs.
pub const LISTEN_ADDRESS: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53));
