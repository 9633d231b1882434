//! Whole swarms in one thread, on a network, disks, kernels and clocks that are simulated: the same seed gives
//! the same swarm, to the last bit. The managers and workers are the product's own.
//!
//! - [`run`] is one simulation: a swarm comes up, things go wrong, all is repaired, everything must settle;
//! - `determinism` and `random`: where time and chance come from;
//! - `node`: a host, with `net`, `disk` and `kernel` below the product's `Manager` and `Worker`;
//! - `faults`: what goes wrong; `client`: users, and what they were promised; `versions`: upgrades;
//! - `ledger` and `checks`: what must hold at every step, by name;
//! - `leader`: who leads, and what operators ask of it;
//! - `break_it`, `bad_leader`: bugs made on purpose, to show that they are found.

#![deny(unsafe_code)]

mod bad_leader;
mod break_it;
mod checks;
mod client;
mod determinism;
mod disk;
mod faults;
mod kernel;
mod leader;
mod ledger;
mod net;
mod node;
mod random;
mod run;
mod versions;

pub use break_it::Break;
pub use client::Traffic;
pub use ledger::Violation;
pub use run::{Plan, Report, run};
