//! PID 1 of a host: sets it up, reaps orphans, starts and ends `swarmd` when it is told to.
//!
//! A `swarmd` that ends stays ended: tests decide when it comes back.

use super::{HostSpec, SWARMD_RUN_DIR, control, mounts};
use crate::Result;
use crate::error::IoContext;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a daemon may take to end by SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause before looking for children again when there is not one.
const NO_CHILDREN_INTERVAL: Duration = Duration::from_millis(20);

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Runs for as long as the host does.
pub(super) fn run(spec: &HostSpec) -> Result<()> {
    let listener =
        UnixListener::bind(&spec.control_socket).io("listen on", spec.control_socket.display())?;
    mounts::set_up(spec)?;
    nix::unistd::sethostname(&spec.hostname).io("set hostname", &spec.hostname)?;
    // A new network namespace copies the machine's setting, which the playground switched on; a fresh host routes nothing.
    std::fs::write(IP_FORWARD, "0").io("write", IP_FORWARD)?;
    let daemon = Arc::new(Daemon::new(spec.clone()));
    let reaper = Arc::clone(&daemon);
    std::thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(move || reaper.reap_forever())
        .io("start", "the reaper")?;
    control::serve(&listener, |request| daemon.handle(request))
}

/// The host's `swarmd`, running or not.
struct Daemon {
    spec: HostSpec,
    pid: Mutex<Option<Pid>>,
    ended: Condvar,
}

impl Daemon {
    fn new(spec: HostSpec) -> Self {
        Self { spec, pid: Mutex::new(None), ended: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        // A pid is whole whatever happened to the thread that held the lock.
        self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, request: &str) -> std::result::Result<String, String> {
        match request {
            control::START_DAEMON => self.start(),
            control::KILL_DAEMON => self.end(Signal::SIGKILL),
            control::STOP_DAEMON => self.end(Signal::SIGTERM),
            control::DAEMON_PID => Ok(self.lock().map_or_else(String::new, |pid| pid.to_string())),
            other => Err(format!("unknown request {other:?}")),
        }
    }

    fn start(&self) -> std::result::Result<String, String> {
        let mut pid = self.lock();
        if let Some(pid) = *pid {
            return Err(format!("swarmd runs already, as process {pid}"));
        }
        let log = self.open_log().map_err(|e| e.to_string())?;
        let err = log.try_clone().map_err(|e| e.to_string())?;
        let mut command = Command::new(&self.spec.swarmd);
        command.arg("--state-dir").arg(self.spec.state_dir());
        command.args(["--run-dir", SWARMD_RUN_DIR]);
        for registry in &self.spec.insecure_registries {
            command.args(["--insecure-registry", registry]);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(err);
        let child = command
            .spawn()
            .map_err(|e| format!("cannot run {}: {e}", self.spec.swarmd.display()))?;
        let child = i32::try_from(child.id()).map_err(|e| e.to_string())?;
        *pid = Some(Pid::from_raw(child));
        Ok(child.to_string())
    }

    fn open_log(&self) -> Result<File> {
        let file = self.spec.daemon_log();
        OpenOptions::new().create(true).append(true).open(&file).io("open", file.display())
    }

    /// Sends `signal` and waits until the daemon has been reaped.
    fn end(&self, signal: Signal) -> std::result::Result<String, String> {
        let guard = self.lock();
        let Some(pid) = *guard else {
            return Err("swarmd does not run".to_owned());
        };
        kill(pid, signal).map_err(|e| format!("cannot send {signal} to process {pid}: {e}"))?;
        let waited = self.ended.wait_timeout_while(guard, STOP_TIMEOUT, |now| *now == Some(pid));
        let (_guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
        if result.timed_out() {
            return Err(format!("process {pid} did not end by {signal} within {STOP_TIMEOUT:?}"));
        }
        Ok(pid.to_string())
    }

    fn reap_forever(&self) {
        loop {
            // Look first, without reaping: a child that fails to exec is reaped by `spawn` itself, which holds the lock.
            match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Err(Errno::ECHILD) => std::thread::sleep(NO_CHILDREN_INTERVAL), // until there is a child to wait for
                _ => self.reap_all(),
            }
        }
    }

    fn reap_all(&self) {
        let mut daemon = self.lock();
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                return;
            }
            if status.pid().is_some() && status.pid() == *daemon {
                eprintln!("swarmd ended: {status:?}");
                *daemon = None;
                self.ended.notify_all();
            }
        }
    }
}
