//! Signals that end `swarmctl`, where it has something to put right before it ends.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Error;

/// Heard from now on: to be made before what must be put right.
pub(crate) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl EndSignals {
    pub(crate) fn listen() -> Result<EndSignals, Error> {
        Ok(EndSignals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for one; gives the exit code that says so.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 128 + 2,
            _ = self.terminate.recv() => 128 + 15,
            _ = self.hang_up.recv() => 128 + 1,
        }
    }
}

/// Hears one kind of signal.
pub(crate) fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|e| Error::io("listen for signals", e))
}
