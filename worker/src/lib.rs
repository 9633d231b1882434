//! What a worker does: it follows a manager, programs its node's data plane, and runs its tasks.
//!
//! - [`worker`] puts a node's adapters together, which [`adapters`] names;
//! - `agent` is the loop, `progress` says what it does next, purely;
//! - `line`, `session` and `outgoing` are its way to a manager, `managers` is where those are, `memory` what outlives a
//!   restart; `identity` is what a node says of itself, `standing` what it hears of itself;
//! - `networks` and `container` translate what the managers say, purely;
//! - `dataplane` programs overlay, balancer and DNS, `encryption` what of it must be encrypted;
//! - `supervisor` and `task` run the tasks, `readiness` tells whether they can serve;
//! - `io` serves logs and consoles.

#![forbid(unsafe_code)]

pub mod adapters;
mod agent;
mod container;
mod dataplane;
mod encryption;
mod identity;
mod io;
mod line;
mod managers;
mod memory;
mod networks;
mod outgoing;
mod progress;
mod readiness;
mod reporter;
mod session;
mod standing;
mod supervisor;
mod task;
pub mod worker;

pub use encryption::Encryption;
pub use identity::resources;
pub use managers::Managers;
pub use standing::{Standing, Trust};
pub use worker::{Prepared, Who, Worker, WorkerError, WorkerOptions};
