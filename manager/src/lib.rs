//! What a manager does beyond replicating: it answers the control API, decides as the leader, and tells
//! workers what concerns them.
//!
//! - [`manager`] puts a manager together;
//! - [`store`] is the replica that Raft drives, [`proposer`] the way to change it;
//! - [`plan`] decides, purely; [`leader`] proposes what was decided;
//! - [`dispatcher`] and `sessions` tell each node its view, which `views` works out, [`reports`] hears what became of tasks;
//! - [`link`] and [`fleet`] bring to the leader which nodes are heard of and how far they are;
//! - [`backup`] is the file of a saved state;
//! - [`health`] says how many managers may be lost, and who is missing;
//! - `managers` tells nodes where the managers are; `demotions` takes from the quorum those that are to be workers;
//! - [`control`] is what swarmctl talks to, [`membership`] how hosts join and leave, [`peer`] what
//!   managers ask of each other.

#![forbid(unsafe_code)]

mod affected;
pub mod authority;
pub mod backup;
pub mod clock;
pub mod control;
mod demotions;
pub mod dispatcher;
pub mod fleet;
pub mod health;
pub mod leader;
mod link;
mod lock;
pub mod manager;
mod managers;
pub mod membership;
pub mod peer;
pub mod peers;
pub mod plan;
mod probe;
pub mod proposer;
mod reports;
mod sessions;
pub mod store;
mod twin;
mod views;

/// The random changes that the state's own tests are made of.
#[cfg(test)]
#[path = "../../crates/state/tests/state/support.rs"]
#[allow(dead_code, reason = "the state's tests use more of it")]
mod support;

pub use control::{Control, Images};
pub use lock::Files;
pub use manager::{Manager, ManagerError, ManagerOptions, NewCluster};
