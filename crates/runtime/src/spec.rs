//! What to run and what became of it: the crate's input and output types.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::error::RuntimeError;

/// Longest container id.
const MAX_ID: usize = 64;

/// A container: one task's process, its file system and its limits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Task id; letters, digits, `_`, `-` and `.`, at most 64, not beginning with `.`.
    pub id: String,
    /// Unpacked layers, lowest first; at least one.
    pub layers: Vec<PathBuf>,
    /// Command and arguments; `args[0]` is looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// `NAME=value`; `PATH`, `HOSTNAME` and `HOME` are added unless given.
    pub env: Vec<String>,
    /// Working directory; made if it is not there; empty means `/`.
    pub cwd: String,
    /// `user[:group]`, names or numbers, looked up in the container's `/etc/passwd` and `/etc/group`; empty means root.
    pub user: String,
    /// Host name; empty means the first 12 characters of the id, as Docker does.
    pub hostname: String,
    /// The network namespace to join, such as `/run/netns/x`.
    pub netns: PathBuf,
    /// Content of `/etc/hosts`.
    pub hosts: String,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// CPU limit in billionths of a CPU.
    pub cpu_limit: Option<i64>,
    /// Memory limit in bytes.
    pub memory_limit: Option<i64>,
    /// Limit of processes and threads.
    pub pids_limit: Option<i64>,
    /// The signal that asks the container to stop, as `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`; none means SIGTERM.
    pub stop_signal: Option<String>,
    /// Annotations for whoever looks at the bundle; not interpreted.
    pub labels: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// Checks what can be checked without the file system.
    ///
    /// # Errors
    /// [`RuntimeError::Invalid`] names the field.
    pub fn validate(&self) -> Result<(), RuntimeError> {
        validate_id(&self.id)?;
        if self.layers.is_empty() {
            return Err(RuntimeError::Invalid("no layers".into()));
        }
        validate_command(&self.args, &self.env, &self.cwd)?;
        if !self.netns.is_absolute() {
            return Err(RuntimeError::Invalid(format!(
                "network namespace {:?} is not an absolute path",
                self.netns
            )));
        }
        if self.hostname.len() > 64 || self.hostname.contains(['\0', '\n']) {
            return Err(RuntimeError::Invalid(format!(
                "host name {:?} is not valid",
                self.hostname
            )));
        }
        for (what, limit) in
            [("cpu", self.cpu_limit), ("memory", self.memory_limit), ("pids", self.pids_limit)]
        {
            if limit.is_some_and(|l| l <= 0) {
                return Err(RuntimeError::Invalid(format!("{what} limit must be positive")));
            }
        }
        self.stop_signal_number().map(|_| ())
    }

    /// The number of the stop signal.
    ///
    /// # Errors
    /// [`RuntimeError::Invalid`] if the signal is not known.
    pub fn stop_signal_number(&self) -> Result<i32, RuntimeError> {
        self.stop_signal.as_deref().map_or(Ok(libc::SIGTERM), parse_signal)
    }

    /// The host name the container gets.
    pub(crate) fn effective_hostname(&self) -> &str {
        if self.hostname.is_empty() {
            self.id.get(..12).unwrap_or(&self.id)
        } else {
            &self.hostname
        }
    }
}

/// Checks that `id` can name a directory and a cgroup.
pub(crate) fn validate_id(id: &str) -> Result<(), RuntimeError> {
    let ok = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if id.is_empty() || id.len() > MAX_ID || id.starts_with('.') || !id.chars().all(ok) {
        return Err(RuntimeError::Invalid(format!("container id {id:?} is not valid")));
    }
    Ok(())
}

fn validate_command(args: &[String], env: &[String], cwd: &str) -> Result<(), RuntimeError> {
    if args.is_empty() {
        return Err(RuntimeError::Invalid("no command specified".into()));
    }
    if args.iter().chain(env).any(|s| s.contains('\0')) || cwd.contains('\0') {
        return Err(RuntimeError::Invalid(
            "a NUL byte in the command, the environment or the directory".into(),
        ));
    }
    if let Some(bad) = env.iter().find(|e| e.find('=').is_none_or(|at| at == 0)) {
        return Err(RuntimeError::Invalid(format!(
            "environment variable {bad:?} is not NAME=value"
        )));
    }
    if !cwd.is_empty() && !Path::new(cwd).is_absolute() {
        return Err(RuntimeError::Invalid(format!(
            "working directory {cwd:?} is not an absolute path"
        )));
    }
    Ok(())
}

/// Parses a signal as Docker's `--stop-signal` does.
fn parse_signal(text: &str) -> Result<i32, RuntimeError> {
    let unknown = || RuntimeError::Invalid(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=libc::SIGRTMAX()).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    for (anchor, base, sign) in [("RTMIN", libc::SIGRTMIN(), 1), ("RTMAX", libc::SIGRTMAX(), -1)] {
        let Some(rest) = name.strip_prefix(anchor) else { continue };
        let offset: i32 =
            if rest.is_empty() { 0 } else { rest[1..].parse().map_err(|_| unknown())? };
        let number = base + sign * offset;
        let in_range = (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number);
        return if in_range { Ok(number) } else { Err(unknown()) };
    }
    format!("SIG{name}").parse::<Signal>().map(|s| s as i32).map_err(|_| unknown())
}

/// A further process in a running container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Command and arguments.
    pub args: Vec<String>,
    /// `NAME=value`, over the container's environment.
    pub env: Vec<String>,
    /// Working directory, which must be there; empty means the container's.
    pub cwd: String,
    /// `user[:group]`; empty means the container's.
    pub user: String,
    /// Gives the process a terminal; output is then one stream.
    pub tty: bool,
    /// The terminal's first size, rows and columns.
    pub tty_size: Option<(u16, u16)>,
    /// Connects standard input; `/dev/null` otherwise (a terminal is always connected).
    pub stdin: bool,
}

impl ExecSpec {
    pub(crate) fn validate(&self) -> Result<(), RuntimeError> {
        validate_command(&self.args, &self.env, &self.cwd)
    }
}

/// A container that has been started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Process id of the container's first process, in the daemon's pid namespace.
    pub pid: i32,
    /// When the command was executed.
    pub started_at: SystemTime,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal number if a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel's OOM killer killed a process of it.
    pub oom_killed: bool,
    /// When it ended, as far as known.
    pub finished_at: SystemTime,
    /// Why the code is not the command's own, such as a lost shim.
    pub error: Option<String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Being set up; has no process yet.
    Starting,
    /// Its first process runs.
    Running(Started),
    /// It ended; logs and status are kept until it is deleted.
    Exited(Exit),
}

/// A container found or known, and its state.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// Task id.
    pub id: String,
    /// Its state now.
    pub state: ContainerState,
    /// The labels it was started with; empty if the description was lost.
    pub labels: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_parsed_as_docker_does() {
        for (text, number) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", libc::SIGRTMIN() + 3)]
        {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIGNONE", "0", "65", "SIGRTMIN+99", "SIGRTMIN+x", "-1"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bad_specs_are_refused() {
        let good = ContainerSpec {
            id: "a".into(),
            layers: vec!["/l".into()],
            args: vec!["true".into()],
            netns: "/run/netns/x".into(),
            ..Default::default()
        };
        good.validate().unwrap();
        for id in ["", "..", "a/b", &"x".repeat(65)] {
            assert!(ContainerSpec { id: id.into(), ..good.clone() }.validate().is_err(), "{id}");
        }
        assert!(ContainerSpec { args: vec![], ..good.clone() }.validate().is_err());
        assert!(ContainerSpec { env: vec!["=x".into()], ..good.clone() }.validate().is_err());
        assert!(ContainerSpec { cwd: "rel".into(), ..good.clone() }.validate().is_err());
        assert!(ContainerSpec { memory_limit: Some(0), ..good }.validate().is_err());
    }
}
