//! The service VIPs of one node: every network's desired [`VirtualService`]s go in, the kernel balances.
//!
//! - [`desired`]: what should be ([`Network`], [`VirtualService`], [`Backend`]) and what makes it invalid; [`ports`]: on
//!   which ports.
//! - [`engine`]: the [`Balancer`] interface that every engine offers, and [`choose`].
//! - `nftables`: the engine on nftables' `numgen` and NAT; `ipvs`: the engine on IPVS, led by nftables.
//! - `method`: what these two differ in; `worker`, `generic`: what they do alike; `fronts`: whose connections are whose.
//! - [`fake`]: an engine that records instead of programming, for simulations.
//! - `netlink`: the little netfilter netlink the engines need (generation id, connection tracking).
//! - `nft`: running the `nft` command.
//! - `networks`: blocking work inside network namespaces, one at a time for each network.
//!
//! `OVERVIEW.md` beside this crate tells how a packet and a change travel.

#![forbid(unsafe_code)]

pub mod desired;
pub mod engine;
mod error;
pub mod fake;
mod fronts;
mod generic;
mod ipvs;
mod method;
mod netlink;
mod networks;
mod nft;
mod nftables;
pub mod ports;
mod worker;

pub use desired::{Backend, Network, VirtualService};
pub use engine::{Balancer, Changes, Choice, Kind, Preference, Repaired, choose, ipvs, nftables};
pub use error::{Error, Result};
pub use fake::FakeBalancer;
pub use ports::{PortMap, Ports, Protocol};
