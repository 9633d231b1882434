//! Raft for the managers of a swarm: openraft behind a small interface.
//!
//! [`Raft`] replicates opaque commands to a [`StateMachine`] on every manager. The log is on sled,
//! synced before it is acknowledged; snapshots are files; managers talk gRPC over channels that a
//! [`Connector`] opens. `OVERVIEW.md` has the mental model.
//!
//! - `handle`: [`Raft`], the way in; `options`, `error`, `status`: what goes in and out.
//! - `types`: openraft's parameters. `state_machine`, `snapshot`: the state and its file; `halt`: its end.
//! - `log_store`: the recent log in memory; `writer`: the storage thread and its group commit;
//!   `stored`: entries in an engine;
//!   [`disk`] and [`engine`]: what it is kept on; `acknowledged`: the guard against silent loss;
//!   `record`: the encoding; `sealed_file`: an encrypted file; `blocking`: work on files.
//! - `network`, `peers`, `service`, `wire`: the transport.
//! - `membership`: the task that changes the set of managers. `recover`: a cluster goes on with one manager.

#![forbid(unsafe_code)]

mod acknowledged;
mod blocking;
pub mod disk;
pub mod engine;
mod error;
mod halt;
mod handle;
mod leader_id;
mod log_store;
mod membership;
mod network;
mod options;
mod peers;
mod record;
mod recover;
mod sealed_file;
mod service;
mod snapshot;
mod state_machine;
mod status;
mod stored;
mod types;
mod wire;
mod writer;

#[cfg(test)]
mod conformance;

pub use error::{MembershipError, ProposeError, StartError};
pub use handle::Raft;
pub use options::{MAX_COMMAND, Options};
pub use peers::{ConnectError, Connector};
pub use recover::{Alone, begin_with, go_on_alone};
pub use service::{Outsider, RaftService, Transport};
pub use state_machine::{Committed, StateMachine};
pub use status::{Member, Role, Status};
pub use swarm_seal::SealKey;

/// Whether a manager's files in the folder `dir` are encrypted: not if there are none, or an older version wrote them.
///
/// # Errors
/// Those of the system, or a file that says so is damaged.
pub fn is_sealed(dir: &std::path::Path) -> std::io::Result<bool> {
    engine::is_sealed(&dir.join("log"))
}
