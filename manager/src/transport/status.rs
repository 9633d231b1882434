//! Errors in gRPC's words. Those who call retry by the code: one that says "not done" is tried again.

use tonic::{Code, Status};

use crate::error::ApiError;

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Status {
        Status::new(code(&error), error.to_string())
    }
}

fn code(error: &ApiError) -> Code {
    match error {
        ApiError::Invalid(_) | ApiError::Ambiguous(_) => Code::InvalidArgument,
        ApiError::NotFound(_) => Code::NotFound,
        ApiError::Exists(_) => Code::AlreadyExists,
        ApiError::OutOfDate(_) => Code::Aborted,
        ApiError::Exhausted(_) => Code::ResourceExhausted,
        ApiError::InUse(_)
        | ApiError::Level(_)
        | ApiError::Precondition(_)
        | ApiError::NotLeader(_)
        | ApiError::NotManager(_) => Code::FailedPrecondition,
        ApiError::Unavailable(_) => Code::Unavailable,
        ApiError::Unknown(_) => Code::Unknown,
        ApiError::Internal(_) => Code::Internal,
        ApiError::Denied(_) => Code::PermissionDenied,
        ApiError::TimedOut(_) => Code::DeadlineExceeded,
        ApiError::Cancelled(_) => Code::Cancelled,
        ApiError::Unsupported(_) => Code::Unimplemented,
    }
}

/// What another node answered: told on, it has the same code and the same words. Of kinds that share a code it is the
/// general one: `Ambiguous` becomes `Invalid`, what has to do with leaders, levels and uses becomes `Precondition`.
impl From<Status> for ApiError {
    fn from(status: Status) -> ApiError {
        let text = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument => ApiError::Invalid(text),
            Code::NotFound => ApiError::NotFound(text),
            Code::AlreadyExists => ApiError::Exists(text),
            Code::Aborted => ApiError::OutOfDate(text),
            Code::ResourceExhausted => ApiError::Exhausted(text),
            Code::FailedPrecondition => ApiError::Precondition(text),
            Code::Unavailable => ApiError::Unavailable(text),
            Code::Unknown => ApiError::Unknown(text),
            Code::PermissionDenied | Code::Unauthenticated => ApiError::Denied(text),
            Code::DeadlineExceeded => ApiError::TimedOut(text),
            Code::Cancelled => ApiError::Cancelled(text),
            Code::Unimplemented => ApiError::Unsupported(text),
            // No node answers with the other codes.
            Code::Internal | Code::Ok | Code::OutOfRange | Code::DataLoss => {
                ApiError::Internal(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_state::Rejected;

    use super::*;

    #[test]
    fn what_another_node_answered_is_told_on_as_it_was() {
        let unused = [Code::OutOfRange, Code::DataLoss, Code::Unauthenticated];
        for code in (1..=16).map(Code::from).filter(|code| !unused.contains(code)) {
            let told = Status::from(ApiError::from(Status::new(code, "why")));
            assert_eq!((told.code(), told.message()), (code, "why"));
        }
    }

    #[test]
    fn what_the_state_refuses_has_a_code_by_which_it_is_tried_again_or_not() {
        let text = || "it".to_owned();
        for (reason, code, words) in [
            (Rejected::NotFound(text()), Code::NotFound, "it not found"),
            (Rejected::Exists(text()), Code::AlreadyExists, "it already exists"),
            (Rejected::InUse(text()), Code::FailedPrecondition, "it"),
            (
                Rejected::OutOfDate(text()),
                Code::Aborted,
                "it is out of date: it was changed meanwhile, try again",
            ),
            (Rejected::Invalid(text()), Code::InvalidArgument, "it"),
            (Rejected::Exhausted(text()), Code::ResourceExhausted, "it"),
            (Rejected::Level(text()), Code::FailedPrecondition, "it"),
        ] {
            let told = Status::from(ApiError::from(reason));
            assert_eq!((told.code(), told.message()), (code, words));
        }
    }
}
