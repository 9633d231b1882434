//! Between openraft's messages and `swarm/v1/raft.proto`.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use swarm_proto::raft as pb;
use tonic::Status;

use crate::{
    record::{decode_entry, encode_entry},
    types::{LogId, TypeConfig, Vote, log_id},
};

pub(crate) fn ballot(vote: &Vote) -> pb::Ballot {
    pb::Ballot {
        term: vote.leader_id.term,
        node_id: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub(crate) fn vote(ballot: Option<pb::Ballot>) -> Result<Vote, Status> {
    let ballot = ballot.ok_or_else(|| missing("ballot"))?;
    Ok(match ballot.committed {
        true => Vote::new_committed(ballot.term, ballot.node_id),
        false => Vote::new(ballot.term, ballot.node_id),
    })
}

pub(crate) fn pb_log_id(id: LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
}

pub(crate) fn from_log_id(id: pb::LogId) -> LogId {
    log_id(id.term, id.node_id, id.index)
}

pub(crate) fn append_request(
    target: u64,
    request: AppendEntriesRequest<TypeConfig>,
    without_quorum: bool,
) -> pb::AppendRequest {
    pb::AppendRequest {
        target,
        leader: Some(ballot(&request.vote)),
        previous: request.prev_log_id.map(pb_log_id),
        entries: request.entries.iter().map(encode_entry).collect(),
        commit: request.leader_commit.map(pb_log_id),
        without_quorum,
        missing: Vec::new(),
    }
}

pub(crate) fn from_append_request(
    request: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    let entry = |record: Bytes| {
        decode_entry(record).map_err(|error| invalid(&format!("log entry: {error}")))
    };
    Ok(AppendEntriesRequest {
        vote: vote(request.leader)?,
        prev_log_id: request.previous.map(from_log_id),
        entries: request.entries.into_iter().map(entry).collect::<Result<_, _>>()?,
        leader_commit: request.commit.map(from_log_id),
    })
}

pub(crate) fn append_response(result: StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Outcome;
    let outcome = match result {
        Ok(last) => Outcome::Accepted(pb::Accepted { log_id: last.map(pb_log_id) }),
        Err(StreamAppendError::Conflict(id)) => {
            Outcome::Conflict(pb::Conflict { log_id: Some(pb_log_id(id)) })
        }
        Err(StreamAppendError::HigherVote(vote)) => Outcome::Newer(ballot(&vote)),
    };
    pb::AppendResponse { outcome: Some(outcome) }
}

pub(crate) fn from_append_response(
    response: pb::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, Status> {
    use pb::append_response::Outcome;
    Ok(match response.outcome.ok_or_else(|| missing("outcome"))? {
        Outcome::Accepted(accepted) => Ok(accepted.log_id.map(from_log_id)),
        Outcome::Conflict(conflict) => {
            let id = conflict.log_id.ok_or_else(|| missing("log id"))?;
            Err(StreamAppendError::Conflict(from_log_id(id)))
        }
        Outcome::Newer(newer) => Err(StreamAppendError::HigherVote(vote(Some(newer))?)),
    })
}

pub(crate) fn vote_request(
    target: u64,
    request: &VoteRequest<TypeConfig>,
    pre_vote: bool,
) -> pb::VoteRequest {
    pb::VoteRequest {
        target,
        candidate: Some(ballot(&request.vote)),
        last_log: request.last_log_id.map(pb_log_id),
        leadership_transfer: request.leadership_transfer,
        pre_vote,
    }
}

pub(crate) fn from_vote_request(
    request: &pb::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, Status> {
    Ok(VoteRequest {
        vote: vote(request.candidate)?,
        last_log_id: request.last_log.map(from_log_id),
        leadership_transfer: request.leadership_transfer,
    })
}

pub(crate) fn vote_response(
    response: &VoteResponse<TypeConfig>,
    removed: bool,
) -> pb::VoteResponse {
    pb::VoteResponse {
        ballot: Some(ballot(&response.vote)),
        granted: response.vote_granted,
        last_log: response.last_log_id.map(pb_log_id),
        removed,
    }
}

pub(crate) fn from_vote_response(
    response: &pb::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, Status> {
    Ok(VoteResponse {
        vote: vote(response.ballot)?,
        vote_granted: response.granted,
        last_log_id: response.last_log.map(from_log_id),
    })
}

pub(crate) fn transfer_request(
    request: &TransferLeaderRequest<TypeConfig>,
    target: u64,
) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        target,
        to: *request.to_node_id(),
        leader: Some(ballot(request.from_leader())),
        last_log: request.last_log_id().copied().map(pb_log_id),
    }
}

pub(crate) fn from_transfer_request(
    request: &pb::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, Status> {
    Ok(TransferLeaderRequest::new(
        vote(request.leader)?,
        request.to,
        request.last_log.map(from_log_id),
    ))
}

pub(crate) fn transfer_response(
    response: &TransferLeaderResponse<TypeConfig>,
) -> pb::TransferLeaderResponse {
    use pb::transfer_leader_response::Refusal;
    let refusal = response.as_ref().err().map(|error| match error {
        TransferLeaderError::VoteChanged { expected, actual } => {
            Refusal::BallotChanged(pb::BallotChanged {
                expected: Some(ballot(expected)),
                actual: Some(ballot(actual)),
            })
        }
        TransferLeaderError::LogNotFlushed { expected, actual } => {
            Refusal::LogNotFlushed(pb::LogNotFlushed {
                expected: expected.map(pb_log_id),
                actual: actual.map(pb_log_id),
            })
        }
    });
    pb::TransferLeaderResponse { refusal }
}

pub(crate) fn from_transfer_response(
    response: pb::TransferLeaderResponse,
) -> Result<TransferLeaderResponse<TypeConfig>, Status> {
    use pb::transfer_leader_response::Refusal;
    Ok(match response.refusal {
        None => Ok(()),
        Some(Refusal::BallotChanged(changed)) => Err(TransferLeaderError::VoteChanged {
            expected: vote(changed.expected)?,
            actual: vote(changed.actual)?,
        }),
        Some(Refusal::LogNotFlushed(missing)) => Err(TransferLeaderError::LogNotFlushed {
            expected: missing.expected.map(from_log_id),
            actual: missing.actual.map(from_log_id),
        }),
    })
}

pub(crate) fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("raft message without {field}"))
}

pub(crate) fn invalid(reason: &str) -> Status {
    Status::invalid_argument(format!("invalid raft message: {reason}"))
}
