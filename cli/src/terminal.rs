//! The terminal: raw mode and size of that of `exec -t`, and what is typed unseen.

use std::io::Stdin;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use swarm_proto::control::TerminalSize;

use crate::error::Error;

/// Standard input in raw mode, until this is dropped: also when a panic unwinds.
pub(crate) struct RawMode {
    stdin: Stdin,
    before: Termios,
}

impl RawMode {
    /// Switches standard input, which must be a terminal.
    pub(crate) fn enter() -> Result<RawMode, Error> {
        let failed = |e: rustix::io::Errno| Error::io("set the terminal to raw mode", e.into());
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Flush, &raw).map_err(failed)?;
        Ok(RawMode { stdin, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(&self.stdin, OptionalActions::Now, &self.before);
    }
}

/// Standard input that does not show what is typed, until this is dropped.
pub(crate) struct NoEcho {
    stdin: Stdin,
    before: Termios,
}

impl NoEcho {
    /// Switches standard input, which must be a terminal.
    pub(crate) fn enter() -> Result<NoEcho, Error> {
        let failed = |e: rustix::io::Errno| Error::io("hide what is typed", e.into());
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(&stdin).map_err(failed)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(failed)?;
        Ok(NoEcho { stdin, before })
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(&self.stdin, OptionalActions::Now, &self.before);
    }
}

/// The size of the terminal, if there is one.
pub(crate) fn size() -> Option<TerminalSize> {
    let size = termios::tcgetwinsize(std::io::stdin())
        .or_else(|_| termios::tcgetwinsize(std::io::stdout()))
        .ok()?;
    let known = size.ws_row > 0 && size.ws_col > 0;
    known.then(|| TerminalSize { rows: size.ws_row.into(), columns: size.ws_col.into() })
}
