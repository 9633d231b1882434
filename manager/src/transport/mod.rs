//! The manager API over gRPC, at both ends: messages and JSON documents become domain types here and nowhere else.
//! The service is above the API, the clients are below it.
//!
//! - `control` is the service that swarmctl and other managers call; `strict` reads the specs they send, `shape` and
//!   `keys` are the documents they get, `messages` the other messages, `streams` those of logs and exec;
//! - `leader` calls the leader's service, `peer` passes a command on to it, `task_io` calls the node that a task runs on;
//! - `status` is which error is which code.

mod control;
mod keys;
pub(crate) mod leader;
mod messages;
pub(crate) mod peer;
mod shape;
mod status;
mod streams;
mod strict;
pub(crate) mod task_io;

pub use control::Control;
