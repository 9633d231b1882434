//! What can go wrong, the words that say so, and the exit status that goes with it.

use std::io;
use std::path::PathBuf;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens on the socket.
    #[error("cannot connect to swarmd at {}: is it running? start it with: swarmd", .0.display())]
    NoDaemon(PathBuf),
    /// The socket is not for this user.
    #[error("permission denied on the socket of swarmd at {}: run as root", .0.display())]
    Denied(PathBuf),
    /// The connection broke, or what answers is no `swarmd`.
    #[error("lost the connection to swarmd: {0}")]
    Lost(String),
    /// swarmd's answer.
    #[error("{}", remote_message(.0))]
    Remote(tonic::Status),
    /// An answer that is not what it should be.
    #[error("swarmd sent an unreadable {what} document: {source}")]
    Document {
        /// The object that was asked for.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Something on this machine.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// Flags that do not go together or have bad values, found after parsing.
    #[error("{0}")]
    Usage(String),
    /// Anything else, in one line.
    #[error("{0}")]
    Failed(String),
    /// Ctrl-C while waiting for a change that goes on without us.
    #[error("{0}")]
    Interrupted(String),
    /// All was said already; only the exit status is left.
    #[error("exit status {0}")]
    Exit(u8),
}

impl Error {
    /// A failed operation of this machine.
    pub(crate) fn io(action: impl Into<String>, source: io::Error) -> Error {
        Error::Io { action: action.into(), source }
    }

    /// What to say of it on stderr, if anything.
    pub(crate) fn line(&self) -> Option<String> {
        match self {
            Error::Exit(_) => None,
            error if error.is_closed_pipe() => None,
            Error::Interrupted(text) => Some(text.clone()),
            error => Some(format!("error: {error}")),
        }
    }

    /// The exit status that says so.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Error::Exit(code) => *code,
            error if error.is_closed_pipe() => 0,
            Error::Interrupted(_) => 130,
            Error::Usage(_) => 2,
            _ => 1,
        }
    }

    /// `| head` has seen enough.
    fn is_closed_pipe(&self) -> bool {
        matches!(self, Error::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether another try may do: the swarm is between leaders, or the connection broke.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Error::Lost(_) | Error::NoDaemon(_) => true,
            Error::Remote(status) => status.code() == tonic::Code::Unavailable,
            _ => false,
        }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        let source = std::error::Error::source(&status);
        match source {
            Some(source) if !source.is::<tonic::TimeoutExpired>() => Error::Lost(root(source)),
            _ => Error::Remote(status),
        }
    }
}

/// The innermost reason, as words.
pub(crate) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn remote_message(status: &tonic::Status) -> String {
    match (status.code(), status.message()) {
        (tonic::Code::Cancelled | tonic::Code::DeadlineExceeded, "Timeout expired") => {
            "swarmd did not answer in time".to_owned()
        }
        (tonic::Code::Unimplemented, "") => {
            "swarmd does not know this request: is it another version?".to_owned()
        }
        (code, "") => code.description().to_owned(),
        (_, message) => message.to_owned(),
    }
}
