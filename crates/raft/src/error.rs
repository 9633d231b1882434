//! What can go wrong, for callers of this crate.

use std::time::Duration;

use openraft::errors::{ClientWriteError, Fatal, ForwardReason, ForwardToLeader, RaftError};

use crate::{status::Member, types::TypeConfig};

/// Why a manager's Raft does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option is out of range.
    #[error("invalid raft options: {0}")]
    Options(String),
    /// The log or the snapshot cannot be read, or is damaged. The text names the file.
    #[error("{0}")]
    Storage(#[from] std::io::Error),
    /// openraft does not start.
    #[error("raft does not start: {0}")]
    Raft(String),
}

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another manager leads, or an election is going on. The command was not accepted.
    #[error("this manager is not the leader, {}", leader.as_ref().map_or("none is known".to_owned(), |m| format!("{m} is")))]
    NotLeader {
        /// Whom to ask instead.
        leader: Option<Member>,
    },
    /// Too few managers answer. The command was not accepted.
    #[error("too few managers are reachable to commit a change ({reachable} of {voters})")]
    NoQuorum {
        /// Managers that answered the leader lately, itself included.
        reachable: usize,
        /// Managers that vote.
        voters: usize,
    },
    /// The command was accepted but did not commit in time, or leadership changed meanwhile. It may
    /// still take effect: retry only what is safe to do twice.
    #[error("change was not confirmed within {0:?}, it may still take effect")]
    Unconfirmed(Duration),
    /// A read could not be shown to be current in time.
    #[error("state was not confirmed to be current within {0:?}")]
    ReadTimeout(Duration),
    /// The command is too large to be replicated.
    #[error("command of {size} bytes is larger than {max}")]
    TooLarge {
        /// Its length.
        size: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// This manager's Raft has been shut down.
    #[error("raft is shut down")]
    ShutDown,
    /// The disk failed, or the state machine. This manager takes no part any more until it restarts.
    #[error("raft storage failed: {0}")]
    Storage(String),
}

/// Why the set of managers was not changed, or leadership not transferred.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// See [`ProposeError`].
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// A cluster exists already, on this manager or by its membership.
    #[error("cluster is already initialized")]
    Initialized,
    /// No manager has this id.
    #[error("manager {0} is not a member")]
    Unknown(u64),
    /// The last manager cannot be removed.
    #[error("manager {0} is the last one")]
    LastVoter(u64),
    /// The new manager did not come up to date.
    #[error("manager {id} did not catch up within {limit:?}: it has {matched} of {last} entries")]
    CatchUp {
        /// The new manager.
        id: u64,
        /// How long it was given.
        limit: Duration,
        /// How far its log goes.
        matched: u64,
        /// How far the leader's log goes.
        last: u64,
    },
    /// The manager chosen did not take over.
    #[error("leadership was not transferred to manager {0} in time")]
    Transfer(u64),
    /// There is no other manager.
    #[error("there is no other manager to lead")]
    Alone,
    /// openraft refuses the change.
    #[error("membership cannot be changed: {0}")]
    Refused(String),
}

pub(crate) fn fatal(error: Fatal<TypeConfig>) -> ProposeError {
    match error {
        Fatal::Stopped => ProposeError::ShutDown,
        other => ProposeError::Storage(other.to_string()),
    }
}

fn forward(
    forward: ForwardToLeader<TypeConfig>,
    no_quorum: impl FnOnce() -> ProposeError,
) -> ProposeError {
    if forward.reason == ForwardReason::LeaseExpired {
        return no_quorum();
    }
    let member = |(id, node): (u64, openraft::BasicNode)| Member { id, addr: node.addr };
    ProposeError::NotLeader { leader: forward.leader_id.zip(forward.leader_node).map(member) }
}

/// Translates openraft's answer to a write; `limit` is how long it was waited for.
pub(crate) fn write_error(
    error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
    limit: Duration,
    no_quorum: impl FnOnce() -> ProposeError,
) -> MembershipError {
    match error {
        RaftError::Fatal(error) => fatal(error).into(),
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => forward(to, no_quorum).into(),
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            ProposeError::Unconfirmed(limit).into()
        }
        RaftError::APIError(other) => MembershipError::Refused(other.to_string()),
    }
}
