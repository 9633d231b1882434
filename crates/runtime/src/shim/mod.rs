//! The processes between the daemon and its containers. Each is the daemon's own executable, run again, single-threaded
//! and without tokio, because libcontainer forks and may not do so in a threaded process:
//!
//! - `shim <bundle>` sets a container up, then becomes
//! - `shim-watch ...`, which keeps its logs and learns its exit status;
//! - `shim-exec <bundle>` runs one further process in a container.

mod create;
mod detach;
mod exec;
mod executor;
mod rootfs;
mod watch;

pub(crate) use exec::{ExecRequest, ExecUpdate};

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::process::ProcessId;

pub(crate) const CREATE: &str = "shim";
pub(crate) const WATCH: &str = "shim-watch";
pub(crate) const EXEC: &str = "shim-exec";

/// What `shim` says on its standard output, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Started { init: ProcessId, started_at: SystemTime },
    Failed(Failure),
}

/// Whether this process was started to be a shim: the first argument says so. The daemon's `main` asks this before
/// anything else, above all before it starts threads or a tokio runtime.
pub fn requested() -> bool {
    let role = std::env::args_os().nth(1);
    role.is_some_and(|r| r == CREATE || r == WATCH || r == EXEC)
}

/// Does what a shim does; call it when [`requested`], in a process that has one thread.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let role = args.next().unwrap_or_default();
    let result = match (role.to_str(), args.next().map(PathBuf::from)) {
        (Some(CREATE), Some(bundle)) => create::run(&bundle),
        (Some(WATCH), Some(bundle)) => watch::run(&bundle, args),
        (Some(EXEC), Some(bundle)) => exec::run(&bundle),
        _ => Err(Failure::setup("usage: shim <bundle>; started by the daemon, not by people")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // To shim.log; those who wait for an answer have had it.
            eprintln!("{}", failure.message);
            ExitCode::FAILURE
        }
    }
}

/// `what`, and why it failed, as a failure to set up.
fn setup_error(what: impl std::fmt::Display, err: impl std::error::Error) -> Failure {
    Failure::setup(format!("{what}: {}", crate::error::chain(&err)))
}
