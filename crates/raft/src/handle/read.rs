//! Linearizable reads: making sure that this manager's state is current.

use std::time::Duration;

use openraft::{
    ReadPolicy,
    errors::{LinearizableReadError, RaftError},
};
use swarm_proto::raft as pb;

use super::{Raft, no_quorum};
use crate::{
    error::{ProposeError, fatal},
    peers::Purpose,
    status::{Member, Role},
};

/// The pause before the leader is looked for again.
const RETRY: Duration = Duration::from_millis(25);

impl Raft {
    /// Returns when this manager has applied everything that was committed anywhere before the call:
    /// a read of its state afterwards is linearizable. Followers ask the leader (read index). During an
    /// election it waits for the leader; a quorum lost for longer than that is an error at once.
    ///
    /// # Errors
    /// See [`ProposeError`]; [`ProposeError::ReadTimeout`] if it takes too long.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        let inner = &*self.inner;
        let work = async {
            let index = loop {
                match self.read_index().await {
                    Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum { .. })
                        if self.may_be_electing() =>
                    {
                        tokio::time::sleep(RETRY).await; // reading again does no harm
                    }
                    result => break result?,
                }
            };
            let applied =
                inner.raft.wait(None).applied_index_at_least(Some(index), "read barrier").await;
            applied.map(|_| ()).map_err(|_| ProposeError::ShutDown)
        };
        match tokio::time::timeout(inner.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(ProposeError::ReadTimeout(inner.timeout)),
        }
    }

    /// Whether what is missing may be there in a moment: a leader, or answers to a new one.
    fn may_be_electing(&self) -> bool {
        // A lost leader is noticed after a lease and replaced within another; one more if votes split.
        let patience = 3 * self.inner.lease;
        let status = self.inner.status.borrow();
        matches!(status.role, Role::Leader | Role::Candidate | Role::Follower | Role::Learner)
            && status.quorum_lost_since.is_none_or(|since| since.elapsed() < patience)
    }

    async fn read_index(&self) -> Result<u64, ProposeError> {
        let inner = &*self.inner;
        match inner.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _applied)) => Ok(read.index()),
            Err(RaftError::Fatal(error)) => Err(fatal(error)),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(no_quorum(&inner.status))
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                self.remote_read_index().await
            }
        }
    }

    async fn remote_read_index(&self) -> Result<u64, ProposeError> {
        let mut status = self.status();
        let leader = status.borrow().leader.clone();
        let own = *self.inner.raft.node_id();
        let Some(leader) = leader.filter(|leader| leader.id != own) else {
            return Err(ProposeError::NotLeader { leader: None });
        };
        // A leader whose host is gone does not even refuse: ask no longer than it is the leader.
        tokio::select! {
            answer = self.ask_read_index(&leader) => answer,
            _ = status.wait_for(|status| status.leader.as_ref() != Some(&leader)) => {
                Err(ProposeError::NotLeader { leader: None })
            }
        }
    }

    async fn ask_read_index(&self, leader: &Member) -> Result<u64, ProposeError> {
        let peers = &self.inner.peers;
        let not_leader = |_| ProposeError::NotLeader { leader: None };
        let mut client = peers.client(&leader.addr, Purpose::Control).await.map_err(not_leader)?;
        let answer = client.read_index(pb::ReadIndexRequest { target: leader.id }).await.map_err(
            |status| {
                peers.report(&leader.addr, Purpose::Control, &status);
                ProposeError::NotLeader { leader: None }
            },
        )?;
        Ok(answer.into_inner().index)
    }
}
