//! Containers for tasks: libcontainer in a shim process per task, their logs, exec into them, and adoption after a
//! restart of the daemon. See `OVERVIEW.md` for how the processes relate.
//!
//! - [`Runtime`]: start, wait, stop, kill, delete, list, adopt, stats
//! - [`ContainerSpec`], [`Exit`]: what to run and how it ended
//! - [`ExecSpec`], [`ExecSession`]: a further process in a running container
//! - [`LogOptions`], [`LogStream`]: what containers printed
//! - [`shim::main`]: what the daemon's executable must call, first thing, when [`shim::requested`]

mod bundle;
mod cgroup;
mod error;
mod exec;
mod log;
mod monitor;
mod oci;
mod process;
mod runtime;
pub mod shim;
mod spec;
mod start;
mod sys;
mod user;

pub use cgroup::Stats;
pub use error::{ExecError, RuntimeError, StartError};
pub use exec::{ExecReader, ExecSession, ExecWriter};
pub use log::{LogLine, LogOptions, LogStream, Stream};
pub use runtime::{Options, Runtime};
pub use spec::{Adopted, ContainerSpec, ContainerState, ExecSpec, Exit, Started};
