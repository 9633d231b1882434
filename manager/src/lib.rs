//! What a manager does beyond replicating: it answers the manager API, decides as the leader, and tells
//! workers what concerns them.
//!
//! - [`manager`] puts a manager together;
//! - [`replica`] is the state that Raft drives, and the way to change it;
//! - [`leader`] decides, purely in [`leader::plan`], and proposes what was decided;
//! - [`sessions`] tell each node its view, hear what became of its tasks, and bring to the leader how far nodes are;
//! - [`members`] is about nodes themselves: how hosts join and leave, who may, who is missing;
//! - [`api`] is what can be asked of a manager, as functions, and [`error`] why it refuses;
//! - `transport` is that over gRPC.

#![forbid(unsafe_code)]

pub mod api;
pub mod clock;
pub mod error;
pub mod handle;
pub mod leader;
pub mod manager;
pub mod members;
pub mod replica;
pub mod sessions;
mod transport;

/// The random changes that the state's own tests are made of.
#[cfg(test)]
#[path = "../../crates/state/tests/state/support.rs"]
#[allow(dead_code, reason = "the state's tests use more of it")]
mod support;

pub use api::{Api, Images};
pub use error::ApiError;
pub use handle::Handle;
pub use manager::{Manager, ManagerError, ManagerOptions, NewCluster};
pub use replica::dialect::Dialect;
pub use replica::lock::Files;
pub use transport::Control;
