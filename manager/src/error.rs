//! Why the manager did not do what it was asked. Each kind carries the words for the user; how it is told to them, in gRPC
//! or HTTP, is the transport's.

use swarm_raft::{MembershipError, ProposeError};
use swarm_state::Rejected;

/// A refusal or a failure. What another manager answered may be of a coarser kind: see `transport/status.rs`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// It is not as it must be; asked again it would be refused again.
    #[error("{0}")]
    Invalid(String),
    /// There is no such object.
    #[error("{0}")]
    NotFound(String),
    /// A name, or the beginning of an id, means several objects.
    #[error("{0}")]
    Ambiguous(String),
    /// There is one of that name or id.
    #[error("{0}")]
    Exists(String),
    /// Something still needs it.
    #[error("{0}")]
    InUse(String),
    /// It changed since the version that the change was based on.
    #[error("{0}")]
    OutOfDate(String),
    /// There are no more addresses, subnets or VNIs.
    #[error("{0}")]
    Exhausted(String),
    /// It is above what a node, or the swarm, speaks.
    #[error("{0}")]
    Level(String),
    /// As the object or the swarm is now, it cannot be done.
    #[error("{0}")]
    Precondition(String),
    /// Only the leader does it, and this manager does not lead. It was not done.
    #[error("{0}")]
    NotLeader(String),
    /// This node is no manager any more.
    #[error("{0}")]
    NotManager(String),
    /// There is nobody to agree with, or to do it, now. It may be tried again; what was passed on to another node may have
    /// been done.
    #[error("{0}")]
    Unavailable(String),
    /// Whether it was done is not known.
    #[error("{0}")]
    Unknown(String),
    /// What must not happen.
    #[error("{0}")]
    Internal(String),
    /// Another node refuses it to this one.
    #[error("{0}")]
    Denied(String),
    /// Another node did not answer in time.
    #[error("{0}")]
    TimedOut(String),
    /// Another node was interrupted.
    #[error("{0}")]
    Cancelled(String),
    /// Another node, of another version, does not know how.
    #[error("{0}")]
    Unsupported(String),
}

impl From<Rejected> for ApiError {
    fn from(reason: Rejected) -> ApiError {
        let text = reason.to_string();
        match reason {
            Rejected::NotFound(_) => ApiError::NotFound(text),
            Rejected::Exists(_) => ApiError::Exists(text),
            Rejected::InUse(_) => ApiError::InUse(text),
            Rejected::OutOfDate(_) => ApiError::OutOfDate(text),
            Rejected::Invalid(_) => ApiError::Invalid(text),
            Rejected::Exhausted(_) => ApiError::Exhausted(text),
            Rejected::Level(_) => ApiError::Level(text),
        }
    }
}

/// A change of the quorum that failed.
impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> ApiError {
        match error {
            MembershipError::Propose(ProposeError::NotLeader { .. }) => {
                ApiError::Unavailable("leadership changed meanwhile: try again".into())
            }
            e => ApiError::Precondition(e.to_string()),
        }
    }
}
