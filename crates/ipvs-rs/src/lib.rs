//! Linux IPVS, the kernel's layer 4 load balancer, over generic netlink.
//!
//! An [`Ipvs`] is a socket in one network namespace. A virtual [`Service`] is an address and port of a protocol, or a
//! firewall mark; packets to it go to its [`Destination`]s as its scheduler says.
//!
//! ```no_run
//! use std::num::NonZeroU32;
//! use ipvs_rs::{Destination, Family, Forwarding, Ipvs, Service, ServiceKey};
//!
//! # async fn example() -> ipvs_rs::Result<()> {
//! let mut ipvs = Ipvs::open_in("/run/netns/blue").await?;
//! let web = ServiceKey::tcp(([10, 0, 1, 2], 80));
//! ipvs.create_service(&Service::new(web, "wrr")).await?;
//! let backend = Destination::new(([10, 0, 1, 11], 8080), Forwarding::Masquerade).weight(3);
//! ipvs.create_destination(&web, &backend).await?;
//!
//! let marked = ServiceKey::mark(Family::V4, NonZeroU32::new(0x101).unwrap());
//! ipvs.create_service(&Service::new(marked, "rr").persistent(300)).await?;
//!
//! for entry in ipvs.services().await? {
//!     println!("{} {}: {} connections", entry.service.key, entry.service.scheduler, entry.stats.connections);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`handle`]: [`Ipvs`], every operation.
//! - [`key`]: which service; [`service`] and [`destination`]: what they are; [`stats`], [`settings`]: the rest.
//! - [`connection`]: what the kernel remembers of connections.
//! - [`error`]: what went wrong, with which object.
//! - `attribute` and `message`: the encoding; `socket`: requests and answers; `uapi`: the numbers of
//!   `include/uapi/linux/ip_vs.h`, the ABI's source.
//!
//! The caller needs `CAP_NET_ADMIN` in the initial user namespace. The kernel loads the module `ip_vs` when it is asked
//! for, and a scheduler's (`ip_vs_rr`) when a service names it, if it finds them.

#![forbid(unsafe_code)]

mod attribute;
pub mod connection;
pub mod destination;
pub mod error;
pub mod handle;
pub mod key;
mod message;
pub mod service;
pub mod settings;
mod socket;
pub mod stats;
mod uapi;

#[cfg(test)]
mod codec_tests;
#[cfg(test)]
mod golden_tests;

pub use attribute::Attribute;
pub use connection::{Connection, connections, connections_in};
pub use destination::{Destination, DestinationEntry, Encapsulation, Forwarding};
pub use error::{Error, Object, Result};
pub use handle::Ipvs;
pub use key::{Family, Protocol, ServiceKey};
pub use service::{Netmask, Service, ServiceEntry, ServiceFlags};
pub use settings::{Info, Timeouts};
pub use stats::Stats;
