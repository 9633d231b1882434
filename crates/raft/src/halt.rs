//! The end of a state machine that was given what it cannot read: nothing is applied any more, so Raft ends, as after a
//! failed disk. What is on disk stays as it is for a version that can read it.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Whether the state machine has come to that end; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Halt {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    reason: OnceLock<String>,
    started: AtomicBool,
}

impl Halt {
    /// Why it has, in words; none if it goes on.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.inner.reason.get().map(String::as_str)
    }

    /// Notes the reason; the first one stays. It is an error for Raft to end by, but none while it starts: an openraft
    /// that does not start would leave nobody to tell of it, so it is ended right after.
    pub(crate) fn set(&self, reason: String) -> io::Result<()> {
        self.inner.reason.get_or_init(|| reason);
        self.check()
    }

    /// An error if it has come to its end, and Raft has started.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.reason() {
            Some(reason) if self.inner.started.load(Ordering::Acquire) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, reason))
            }
            _ => Ok(()),
        }
    }

    /// Raft has started.
    pub(crate) fn started(&self) {
        self.inner.started.store(true, Ordering::Release);
    }
}
