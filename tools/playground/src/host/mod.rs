//! One host: how it is booted from outside ([`launch`]) and what runs inside ([`boot`], then [`init`] as PID 1).
//!
//! ```text
//! swarm-playground up ── spawns ──> swarm-playground host boot   joins the host's cgroup, unshares its namespaces
//!        │                                    └─ spawns ──> swarm-playground host init   PID 1: mounts, control socket
//!        └─ plugs eth0 into PID 1's network namespace, asks it to start swarmd
//! ```

mod boot;
mod control;
mod init;
mod launch;
mod mounts;

pub(crate) use control::{DAEMON_PID, KILL_DAEMON, START_DAEMON, STOP_DAEMON, request};
pub(crate) use launch::{boot, control_socket, init_process, log_tail, power_off};

use crate::Result;
use crate::error::IoContext;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The hidden sub-command under which an executable must call [`host_main`].
pub const HOST_COMMAND: &str = "host";

/// Run directory of `swarmd`, on the host's own /run.
pub(crate) const SWARMD_RUN_DIR: &str = "/run/swarmd";

/// What a host is told at boot, as a file in its run directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HostSpec {
    pub(crate) hostname: String,
    /// Names and addresses of all hosts, for /etc/hosts.
    pub(crate) hosts: Vec<(String, Ipv4Addr)>,
    pub(crate) swarmd: PathBuf,
    pub(crate) insecure_registries: Vec<String>,
    /// Cgroups: of the host as a whole, and where its processes belong.
    pub(crate) cgroup_root_files: Vec<PathBuf>,
    pub(crate) cgroup_member_files: Vec<PathBuf>,
    /// Where init answers; a path of the machine, bound before the host gets a /run of its own.
    pub(crate) control_socket: PathBuf,
    /// Written by `boot`: who init is, as the machine sees it.
    pub(crate) init_file: PathBuf,
    /// The host's disk.
    pub(crate) disk: PathBuf,
}

impl HostSpec {
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.disk.join("state")
    }

    pub(crate) fn daemon_log(&self) -> PathBuf {
        self.disk.join("swarmd.log")
    }

    fn load(file: &Path) -> Result<Self> {
        let text = std::fs::read(file).io("read", file.display())?;
        serde_json::from_slice(&text).map_err(std::io::Error::from).io("decode", file.display())
    }
}

/// Entry point of a host's own processes. An executable must call it when its first argument is [`HOST_COMMAND`],
/// with the arguments after that, *before it starts any thread* (a namespace of users or mounts can only be left alone by
/// a process with one thread).
pub fn host_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let outcome = match args.as_slice() {
        [verb, spec] if verb == "boot" => {
            HostSpec::load(Path::new(spec)).and_then(|s| boot::run(&s, Path::new(spec)))
        }
        [verb, spec] if verb == "init" => {
            HostSpec::load(Path::new(spec)).and_then(|s| init::run(&s))
        }
        _ => {
            eprintln!(
                "error: {HOST_COMMAND} is how a playground runs its hosts; it is not for people"
            );
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
