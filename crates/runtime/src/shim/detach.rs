//! How a shim leaves the daemon that started it behind: it is to outlive it.

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{setgroups, setsid};

use super::setup_error;
use crate::error::Failure;
use crate::sys;

/// Nothing that happens to the daemon, its terminal or its groups is to reach the container.
pub(super) fn leave_the_daemon_behind() -> Result<(), Failure> {
    match setsid() {
        Ok(_) | Err(Errno::EPERM) => {} // EPERM: leads a session already
        Err(e) => return Err(setup_error("create session", e)),
    }
    sys::ignore_termination();
    umask(Mode::from_bits_truncate(0o022));
    setgroups(&[]).map_err(|e| setup_error("drop supplementary groups", e))
}
