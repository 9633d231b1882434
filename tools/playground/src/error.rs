//! What can go wrong with a playground, in words.

use std::path::PathBuf;
use std::time::Duration;

/// Result of every operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on a playground failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that make no playground: a bad name, no nodes, more managers than nodes.
    #[error("invalid playground options: {0}")]
    Options(String),
    /// A playground of that name is up, or its remains are there.
    #[error("playground {0} exists; remove it with `swarmctl playground down --name {0}`")]
    Exists(String),
    /// No playground of that name is up.
    #[error("no playground {0} is up")]
    NotUp(String),
    /// No host of that name.
    #[error("no playground node {0} is up; see `swarmctl playground ls`")]
    NoSuchNode(String),
    /// The host is in a state in which this cannot be done.
    #[error("cannot {action} node {node}: it is {state}")]
    NodeState {
        /// What was asked for, as a verb.
        action: &'static str,
        /// Hostname.
        node: String,
        /// `off`, `running` or `paused`.
        state: String,
    },
    /// A system call or a file operation failed.
    #[error("cannot {action} {object}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what: a path or a kernel object.
        object: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A program that was run failed.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Exit status or signal.
        status: String,
        /// What it wrote to stderr, else to stdout.
        output: String,
    },
    /// A host did not come up.
    #[error("node {node} did not boot: {reason}\n{log}")]
    Boot {
        /// Hostname.
        node: String,
        /// What went wrong.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// The host's init refused a request.
    #[error("init of node {node} refuses to {request}: {reason}")]
    Init {
        /// Hostname.
        node: String,
        /// The request.
        request: String,
        /// Its answer.
        reason: String,
    },
    /// A condition did not come true in time.
    #[error("{what} did not happen within {after:?}; last seen: {last}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The last observation.
        last: String,
    },
    /// Every candidate subnet clashes with a route of this machine.
    #[error(
        "no free subnet in 10.123.0.0/16 for the playground: every /24 clashes with a route of this machine; name one with --subnet"
    )]
    NoFreeSubnet,
    /// The asked subnet clashes.
    #[error("subnet {subnet} clashes with the route {route} of this machine")]
    SubnetClash {
        /// Asked for.
        subnet: String,
        /// The route in its way.
        route: String,
    },
    /// A file that is needed is not there or of no use.
    #[error("cannot use {path}: {reason}")]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and how to mend it.
        reason: String,
    },
    /// Some parts of a playground could not be removed; the others were.
    #[error("playground {name} is not removed completely: {}", .errors.join("; "))]
    Teardown {
        /// Playground.
        name: String,
        /// Each failure.
        errors: Vec<String>,
    },
}

/// Says what was tried on what when an I/O operation fails.
pub(crate) trait IoContext<T> {
    fn io(self, action: &'static str, object: impl std::fmt::Display) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn io(self, action: &'static str, object: impl std::fmt::Display) -> Result<T> {
        self.map_err(|source| Error::Io {
            action,
            object: object.to_string(),
            source: source.into(),
        })
    }
}
