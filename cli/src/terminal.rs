//! The terminal: its modes, for `exec -t` and what is typed unseen, and its size.

use std::io::Stdin;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use swarm_proto::control::TerminalSize;

use crate::error::Error;

/// Standard input in another mode, until this is dropped: also when a panic unwinds.
pub(crate) struct Mode {
    stdin: Stdin,
    before: Termios,
}

impl Mode {
    /// Every key is handed on as it is. Standard input must be a terminal.
    pub(crate) fn raw() -> Result<Mode, Error> {
        Mode::enter("set the terminal to raw mode", Termios::make_raw)
    }

    /// What is typed is not shown. Standard input must be a terminal.
    pub(crate) fn unseen() -> Result<Mode, Error> {
        Mode::enter("hide what is typed", |mode| mode.local_modes.remove(LocalModes::ECHO))
    }

    fn enter(action: &'static str, change: impl FnOnce(&mut Termios)) -> Result<Mode, Error> {
        let failed = |e: rustix::io::Errno| Error::io(action, e.into());
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(&stdin).map_err(failed)?;
        let mut mode = before.clone();
        change(&mut mode);
        termios::tcsetattr(&stdin, OptionalActions::Flush, &mode).map_err(failed)?;
        Ok(Mode { stdin, before })
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(&self.stdin, OptionalActions::Now, &self.before);
    }
}

/// Columns and rows of the terminal that standard error is.
pub(crate) fn error_size() -> (usize, usize) {
    let size = termios::tcgetwinsize(std::io::stderr()).ok();
    // One that does not know its size (on a serial line, say) is taken for the usual one.
    let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
}

/// The size of the terminal, if there is one.
pub(crate) fn size() -> Option<TerminalSize> {
    let size = termios::tcgetwinsize(std::io::stdin())
        .or_else(|_| termios::tcgetwinsize(std::io::stdout()))
        .ok()?;
    let known = size.ws_row > 0 && size.ws_col > 0;
    known.then(|| TerminalSize { rows: size.ws_row.into(), columns: size.ws_col.into() })
}
