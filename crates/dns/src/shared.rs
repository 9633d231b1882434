//! What all sandboxes share: how the server behaves, its names, its relay.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use crate::names::Names;
use crate::relay::Relay;

/// How the server behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The node's resolvers, in order of preference. 127.0.0.11:53, the server itself, is left out.
    pub upstreams: Vec<SocketAddr>,
    /// How long clients may keep an answer, in seconds.
    pub ttl: u32,
    /// What is bounded.
    pub limits: Limits,
}

impl Default for Options {
    /// No resolvers. TTL 0: asking again costs microseconds, while a kept answer sends traffic to tasks that are gone.
    fn default() -> Self {
        Self { upstreams: Vec::new(), ttl: 0, limits: Limits::default() }
    }
}

/// Bounds on what waits. Beyond them a query to be relayed gets SERVFAIL, a connection waits to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Queries being relayed at once, of all sandboxes. Each holds one descriptor.
    pub relayed_queries: usize,
    /// Queries being relayed at once, of one sandbox.
    pub relayed_queries_per_sandbox: usize,
    /// TCP connections of one sandbox.
    pub tcp_connections_per_sandbox: usize,
    /// How long a TCP connection may stay without a whole query, or a reply may take to be read.
    pub tcp_idle: Duration,
    /// How long one resolver has to answer.
    pub upstream_attempt: Duration,
    /// How long all resolvers together have. Below the 5 s after which the C library gives up on this server.
    pub upstream_total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            relayed_queries: 512,
            relayed_queries_per_sandbox: 128,
            tcp_connections_per_sandbox: 32,
            tcp_idle: Duration::from_secs(10),
            upstream_attempt: Duration::from_millis(1500),
            upstream_total: Duration::from_millis(4500),
        }
    }
}

/// What all sandboxes share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) names: ArcSwap<Names>,
    pub(crate) relay: Relay,
    pub(crate) relayed: Arc<Semaphore>,
}
