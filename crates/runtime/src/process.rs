//! Processes that are not to be confused with later ones of the same pid: pid, start time and a pidfd.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Names a process beyond doubt until the machine restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Clock ticks after boot at which it began; field 22 of `/proc/<pid>/stat`.
    pub(crate) start_ticks: u64,
}

impl ProcessId {
    /// Of the living (or not yet reaped) process `pid`.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_ticks = parse_start_ticks(&stat).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {stat:?}"))
        })?;
        Ok(Self { pid, start_ticks })
    }

    /// A pidfd for it, or none if it ended (whoever has its pid now).
    pub(crate) fn open(self) -> io::Result<Option<OwnedFd>> {
        let fd = match sys::pidfd_open(self.pid) {
            Ok(fd) => fd,
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(e) => return Err(e),
        };
        // Compared after the pidfd was opened: from here on the pid cannot change hands unnoticed.
        match Self::of(self.pid) {
            Ok(now) if now == self => Ok(Some(fd)),
            Ok(_) => Ok(None),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// The command's name may hold blanks and parentheses: fields are counted after the last `)`.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// A process the daemon watches.
#[derive(Debug)]
pub(crate) struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(pidfd: OwnedFd) -> io::Result<Self> {
        sys::async_fd(pidfd, Interest::READABLE).map(Self)
    }

    /// Waits for its end, and reaps it if it is a child of ours.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        // Never cleared: an ended process stays ended.
        let _ready = self.0.readable().await?;
        match waitid(
            Id::PIDFd(self.0.get_ref().as_fd()),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG,
        ) {
            // ECHILD: not ours (adopted after a restart), its parent reaps it.
            Ok(_) | Err(Errno::ECHILD) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        signal_unless_ended(self.0.get_ref(), signal)
    }
}

/// Sends a signal; a process that has ended already needs none.
pub(crate) fn signal_unless_ended(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    match sys::pidfd_send_signal(pidfd.as_fd(), signal) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_odd_names() {
        let fields: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        assert_eq!(parse_start_ticks(&format!("7 (a ) b) S {}", fields.join(" "))), Some(22));
        assert_eq!(parse_start_ticks("7 (a"), None);
    }

    #[test]
    fn another_process_of_the_same_pid_is_not_opened() {
        let me = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(me.open().unwrap().is_some());
        assert!(ProcessId { start_ticks: me.start_ticks + 1, ..me }.open().unwrap().is_none());
    }
}
