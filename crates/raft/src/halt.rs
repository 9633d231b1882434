//! The end of a state machine that was given what it cannot read: nothing is applied any more, so Raft ends, as after a
//! failed disk. What is on disk stays as it is for a version that can read it.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Whether the state machine has come to that end; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Halt {
    inner: Arc<Mutex<Inner>>,
}

/// Both under one lock: of a reason that is noted while Raft starts, one of the two sides hears.
#[derive(Debug, Default)]
struct Inner {
    reason: Option<String>,
    started: bool,
}

impl Halt {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it has, in words; none if it goes on.
    pub(crate) fn reason(&self) -> Option<String> {
        self.lock().reason.clone()
    }

    /// Notes the reason; the first one stays. It is an error for Raft to end by, but none while it starts: an openraft
    /// that does not start would leave nobody to tell of it, so it is ended right after.
    pub(crate) fn set(&self, reason: String) -> io::Result<()> {
        self.lock().reason.get_or_insert(reason);
        self.check()
    }

    /// An error if it has come to its end, and Raft has started.
    pub(crate) fn check(&self) -> io::Result<()> {
        let inner = self.lock();
        match &inner.reason {
            Some(reason) if inner.started => {
                Err(io::Error::new(io::ErrorKind::InvalidData, reason.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Raft has started; whether it is to end at once.
    pub(crate) fn started(&self) -> bool {
        let mut inner = self.lock();
        inner.started = true;
        inner.reason.is_some()
    }
}
