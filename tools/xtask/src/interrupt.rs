//! Ctrl-C that lets us clean up: the programs we call end by it, we go on and see that they failed.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigHandler, Signal, signal};
use std::sync::atomic::{AtomicBool, Ordering};

static SEEN: AtomicBool = AtomicBool::new(false);

extern "C" fn remember(_: nix::libc::c_int) {
    SEEN.store(true, Ordering::Relaxed);
}

/// From now on SIGINT and SIGTERM are remembered instead of ending us. Programs started later have the default again.
pub(crate) fn catch() -> Result<()> {
    for number in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is safe in a signal handler.
        unsafe { signal(number, SigHandler::Handler(remember)) }.context("cannot catch signals")?;
    }
    Ok(())
}

pub(crate) fn seen() -> bool {
    SEEN.load(Ordering::Relaxed)
}

/// Fails once a signal was seen, to leave by the way of errors.
pub(crate) fn check() -> Result<()> {
    if seen() {
        bail!("interrupted");
    }
    Ok(())
}
