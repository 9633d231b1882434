//! The crate's errors. Those of a command that cannot be executed carry Docker's words and exit codes.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why something other than a start or an exec failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The input cannot be right.
    #[error("{0}")]
    Invalid(String),
    /// No container of that id.
    #[error("no such container: {0}")]
    NotFound(String),
    /// The container has no running process.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// It was killed, yet stays.
    #[error("container {0} does not end, though it was killed")]
    Unkillable(String),
    /// No cgroup file system that can be used.
    #[error("find cgroups: {0}")]
    Cgroup(String),
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// The verb.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A system call failed.
    #[error("{action}: {source}")]
    System {
        /// The verb and object.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a container did not start. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A container of that id is known already.
    #[error("container {0} already exists")]
    Exists(String),
    /// The command is not in the image; in Docker's words.
    #[error("{0}")]
    CommandNotFound(String),
    /// The command is there but cannot be executed; in Docker's words.
    #[error("{0}")]
    NotExecutable(String),
    /// The sandbox could not be made: file system, namespaces, cgroup, user.
    #[error("{0}")]
    Setup(String),
    /// The input was wrong or the daemon's side failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl StartError {
    /// The exit code Docker reports for such a failure: 127, 126, otherwise 128.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::CommandNotFound(_) => 127,
            Self::NotExecutable(_) => 126,
            _ => 128,
        }
    }
}

/// Why an exec did not start, or how it was lost.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The command is not in the container; in Docker's words.
    #[error("{0}")]
    CommandNotFound(String),
    /// The command is there but cannot be executed; in Docker's words.
    #[error("{0}")]
    NotExecutable(String),
    /// The process could not be placed in the container.
    #[error("{0}")]
    Setup(String),
    /// The helper process ended without saying how the command ended.
    #[error("exec process lost: {0}")]
    Lost(String),
    /// The input was wrong or the daemon's side failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl ExecError {
    /// The exit code Docker reports for such a failure: 127, 126, otherwise 128.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::CommandNotFound(_) => 127,
            Self::NotExecutable(_) => 126,
            _ => 128,
        }
    }
}

/// A failure on its way from a shim to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    NotFound,
    NotExecutable,
    Setup,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn setup(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Setup, message)
    }
}

impl From<Failure> for StartError {
    fn from(f: Failure) -> Self {
        match f.kind {
            FailureKind::NotFound => Self::CommandNotFound(f.message),
            FailureKind::NotExecutable => Self::NotExecutable(f.message),
            FailureKind::Setup => Self::Setup(f.message),
        }
    }
}

impl From<Failure> for ExecError {
    fn from(f: Failure) -> Self {
        match f.kind {
            FailureKind::NotFound => Self::CommandNotFound(f.message),
            FailureKind::NotExecutable => Self::NotExecutable(f.message),
            FailureKind::Setup => Self::Setup(f.message),
        }
    }
}

/// Adds verb and object to an I/O error.
pub(crate) trait FileContext<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, RuntimeError>;
}

impl<T> FileContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, RuntimeError> {
        self.map_err(|source| RuntimeError::File { action, path: path.into(), source })
    }
}

/// `err` and its causes on one line, without the repetitions that chains of `Display` make.
pub(crate) fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(cause) = next {
        let part = cause.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = cause.source();
    }
    text.replace('\n', " ")
}
