//! Who stands for election or leads, ordered as in Raft's paper: one vote in a term, so one leader.
//!
//! openraft's default orders two candidates of a term by their ids, so that the greater may be elected after the
//! smaller: two lead one term. Its `leader_id_std` does not; but it leaves the leader out of log ids, where ours is
//! written since the first version. So candidates are ordered here, and log ids stay as they are.

use std::{cmp::Ordering, fmt};

use openraft::vote::{LeaderIdCompare, RaftLeaderId, leader_id_adv};
use serde::{Deserialize, Serialize};

/// Who proposed a log entry: elected, so there is no other one of its term.
pub(crate) type CommittedLeaderId = leader_id_adv::CommittedLeaderId<u64, u64>;

/// Whom a vote is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaderId {
    pub(crate) term: u64,
    pub(crate) node_id: u64,
}

impl fmt::Display for LeaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-N{}", self.term, self.node_id)
    }
}

impl PartialOrd for LeaderId {
    /// None for two of the same term: neither may take the other's place.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        LeaderIdCompare::std(self, other)
    }
}

impl PartialEq<CommittedLeaderId> for LeaderId {
    /// A candidate is no leader yet.
    fn eq(&self, _: &CommittedLeaderId) -> bool {
        false
    }
}

impl PartialOrd<CommittedLeaderId> for LeaderId {
    /// The leader of a term is above its candidates.
    fn partial_cmp(&self, other: &CommittedLeaderId) -> Option<Ordering> {
        Some(self.term.cmp(&other.term).then(Ordering::Less))
    }
}

impl RaftLeaderId for LeaderId {
    type Term = u64;
    type NodeId = u64;
    type Committed = CommittedLeaderId;

    fn new(term: u64, node_id: u64) -> Self {
        Self { term, node_id }
    }

    fn term(&self) -> u64 {
        self.term
    }

    fn node_id(&self) -> &u64 {
        &self.node_id
    }

    fn to_committed(&self) -> CommittedLeaderId {
        CommittedLeaderId { term: self.term, node_id: self.node_id }
    }
}

#[cfg(test)]
mod tests {
    use crate::types::Vote;

    #[test]
    fn a_vote_is_given_once_a_term() {
        let given = Vote::new(4, 2);
        for node in [1, 3, 5] {
            assert_eq!(
                Vote::new(4, node).partial_cmp(&given),
                None,
                "node {node} in the same term"
            );
        }
        assert!(Vote::new(4, 2) >= given, "the same candidate asks again");
        assert!(Vote::new(5, 1) > given, "a later term");
        assert!(Vote::new(3, 9) < given, "an earlier one");
    }

    #[test]
    fn who_voted_for_another_follows_the_leader_elected() {
        assert!(Vote::new_committed(4, 2) > Vote::new(4, 5));
        assert!(Vote::new(4, 5) < Vote::new_committed(4, 2));
        assert!(Vote::new(5, 5) > Vote::new_committed(4, 2));
    }
}
