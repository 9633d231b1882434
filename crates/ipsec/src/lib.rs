//! IPsec for encrypted overlay networks on one node: desired state -> kernel, by diff, over xfrm netlink.
//!
//! Encrypted networks use a VXLAN port of their own, so that what is to be protected is "UDP to that port between two nodes".
//! A default deny blocks that port in both directions; each peer has policies of a better priority that demand ESP in
//! transport mode (RFC 4303) with AES-GCM (RFC 4106). Without keys the deny holds: clear text is never sent, never accepted.
//! [`Ipsec::program`] reads the kernel first and programs the difference, so it is also what repairs drift and what adopts
//! the work of an earlier process. `docs/adr/0009` has the reasons.
//!
//! | module | idea |
//! |---|---|
//! | `ipsec` | the public handle |
//! | `probe` | does this kernel have what it takes |
//! | `desired` | what a node's IPsec should hold |
//! | `plan` | the steps from what the kernel holds to that; pure |
//! | `kernel` | reading and changing what the kernel holds |
//! | `ledger` | incarnation and spent keys: no key encrypts again from sequence number 1 |
//! | `table` | policies and security associations as values |
//! | `wire`, `socket` | their netlink messages; a socket for them |
//! | `bypass` | settings that would let packets go round IPsec |
//! | `status`, `changes`, `error` | what is told |

#![forbid(unsafe_code)]

mod bypass;
mod changes;
mod desired;
mod error;
mod ipsec;
mod kernel;
mod ledger;
mod plan;
mod probe;
mod socket;
mod status;
mod table;
mod wire;

pub use changes::Changes;
pub use desired::{Desired, Key, Sa, Tunnel};
pub use error::{Error, Unsupported};
pub use ipsec::{Ipsec, Options};
pub use status::{Dropped, Peer, Status};
