//! What a manager does beyond replicating: it answers the control API, decides as the leader, and tells
//! workers what concerns them.
//!
//! - [`manager`] puts a manager together;
//! - [`store`] is the replica that Raft drives, [`proposer`] the way to change it;
//! - [`plan`] decides, purely; [`leader`] proposes what was decided;
//! - [`dispatcher`] and `sessions` tell each node its view, which `views` works out, [`reports`] hears what became of tasks;
//! - [`link`] and [`fleet`] bring to the leader which nodes are heard of and how far they are;
//! - `managers` tells nodes where the managers are;
//! - [`control`] is what swarmctl talks to, [`membership`] how hosts join and leave, [`peer`] what
//!   managers ask of each other.

#![forbid(unsafe_code)]

mod affected;
pub mod clock;
pub mod control;
pub mod dispatcher;
pub mod fleet;
pub mod leader;
mod link;
pub mod manager;
mod managers;
pub mod membership;
pub mod peer;
pub mod peers;
pub mod plan;
pub mod proposer;
mod reports;
mod sessions;
pub mod store;
mod views;

pub use control::{Control, Images};
pub use manager::{Manager, ManagerError, ManagerOptions, NewCluster};
