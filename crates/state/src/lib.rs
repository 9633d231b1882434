//! The replicated state: tables, indexes, and `apply`, the only way to change them.
//!
//! Pure: the same commands in the same order give the same state on every manager. Addresses, VNIs and
//! Raft ids are allocated *inside* [`State::apply`], so that a new leader cannot hand one out twice.
//! Time and new ids come in as data.

#![forbid(unsafe_code)]
// Pure: clippy.toml lists what is banned, and why.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod apply;
mod carry;
mod command;
mod envelope;
mod index;
mod ipam;
mod level;
mod mtu;
mod snapshot;
mod subnets;
mod tables;
mod tasks;
mod tunnels;
mod view;

pub use command::{Change, Command, Outcome, Rejected, RotateRoot, Touched};
pub use envelope::{Envelope, OpenError, Written};
pub use snapshot::RestoreError;
pub use tables::State;
