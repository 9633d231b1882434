//! What openraft is parametrised with: opaque commands and responses, `u64` ids, addresses as node data.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::leader_id::{CommittedLeaderId, LeaderId};

/// A proposed command, opaque to Raft.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the state machine answered to a command, opaque to Raft; empty for Raft's own entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Response(pub(crate) Bytes);

openraft::declare_raft_types!(
    /// The types of this crate's Raft.
    pub(crate) TypeConfig:
        D = Command,
        R = Response,
        NodeId = u64,
        Node = openraft::BasicNode,
        LeaderId = LeaderId,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Payload = openraft::EntryPayload<Command, u64, openraft::BasicNode>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<u64, openraft::BasicNode>;
pub(crate) type StoredMembership =
    openraft::StoredMembership<CommittedLeaderId, u64, openraft::BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, openraft::BasicNode>;
pub(crate) type Snapshot =
    openraft::Snapshot<CommittedLeaderId, u64, openraft::BasicNode, crate::snapshot::SnapshotFile>;
pub(crate) type OpenRaft = openraft::Raft<TypeConfig, crate::state_machine::Machine>;

/// The log id of the entry at `index` that the leader `node_id` of `term` proposed.
pub(crate) fn log_id(term: u64, node_id: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId { term, node_id }, index)
}
