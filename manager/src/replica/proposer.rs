//! Proposing changes from any manager: the one that does not lead passes the command on to the leader.

use std::time::Duration;

use bytes::Bytes;
use swarm_model::codec;
use swarm_raft::{Member, ProposeError, Raft, Role};
use swarm_state::{Change, Command, Outcome, Written};
use tokio::time::Instant;

use crate::clock;
use crate::error::ApiError;
use crate::members::peers::Peers;
use crate::replica::dialect::refuse_above;
use crate::replica::store::{Results, Store};
use crate::transport::peer::LeaderProposer;

/// How long a proposal waits for a leader to be elected.
const ELECTION_PATIENCE: Duration = Duration::from_secs(8);
/// The pause before asking again who leads.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long the local replica may lag behind a change that the leader has confirmed.
const REPLICA_PATIENCE: Duration = Duration::from_secs(2);

/// Proposes changes; cheap to clone.
#[derive(Clone)]
pub struct Proposer {
    raft: Raft,
    peers: Peers,
    store: Store,
}

impl Proposer {
    pub(crate) fn new(raft: Raft, peers: Peers, store: Store) -> Proposer {
        Proposer { raft, peers, store }
    }

    /// Waits until what is read here is not older than any change confirmed before.
    pub(crate) async fn barrier(&self) -> Result<(), ApiError> {
        self.raft.read_barrier().await.map_err(|error| match error {
            ProposeError::NotLeader { .. } => self.no_leader(),
            error => ApiError::Unavailable(error.to_string()),
        })
    }

    /// Proposes one change; answers when it is in force on this manager.
    pub async fn propose_one(&self, change: Change) -> Result<Outcome, ApiError> {
        let results = self.propose(vec![change]).await?;
        let result = results.into_iter().next();
        let result = result.ok_or_else(|| ApiError::Internal("no result for a change".into()))?;
        Ok(result?)
    }

    /// Proposes changes in one command; answers when it is applied on this manager.
    pub async fn propose(&self, changes: Vec<Change>) -> Result<Results, ApiError> {
        let command = self.seal(changes)?;
        let (revision, response) = self.propose_sealed(command).await?;
        self.await_applied(revision).await;
        codec::decode(&response).map_err(|e| ApiError::Internal(e.to_string()))
    }

    /// Whoever made a change sees it here. (Reads have a barrier of their own.) A replica that is slow, or that has failed, is
    /// not waited for: the change is made.
    async fn await_applied(&self, revision: u64) {
        let mut status = self.raft.status();
        tokio::select! {
            () = self.store.reached(revision) => return,
            Ok(_) = status.wait_for(|status| matches!(status.role, Role::Failed(_))) => {}
            () = tokio::time::sleep(REPLICA_PATIENCE) => {}
        }
        tracing::warn!("this manager's replica lags behind revision {revision}");
    }

    /// Proposes what this manager decided as the leader, if it still leads. Another leader must not get it: it was
    /// decided on what was heard here, and whoever is cut off hears of nobody.
    pub(crate) async fn propose_as_leader(
        &self,
        changes: Vec<Change>,
    ) -> Result<Results, ApiError> {
        let command = self.seal(changes)?;
        let (_, response) = self.propose_here(command).await?;
        codec::decode(&response).map_err(|e| ApiError::Internal(e.to_string()))
    }

    /// A command of these changes, in its envelope. Nothing above the swarm's feature level is proposed.
    fn seal(&self, changes: Vec<Change>) -> Result<Bytes, ApiError> {
        let dialect = self.store.dialect();
        let level = dialect.needed_by(&changes);
        refuse_above(&self.store.read(), level)?;
        let command = Command { now: clock::now(), changes };
        Ok(command.seal(level, &dialect.engine.engine_version).into())
    }

    async fn propose_sealed(&self, command: Bytes) -> Result<(u64, Bytes), ApiError> {
        let deadline = Instant::now() + ELECTION_PATIENCE;
        loop {
            let leader = match self.raft.propose(command.clone()).await {
                Err(ProposeError::NotLeader { leader }) => leader,
                result => return result.map_err(not_proposed),
            };
            if let Some(leader) = leader
                && let Some(answer) = self.forward(&leader, &command).await?
            {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                return Err(self.no_leader());
            }
            tokio::time::sleep(RETRY_PAUSE).await; // between questions to a cluster in election
        }
    }

    /// Passes a command on. `None` if the leader surely did not accept it: it may be tried again.
    async fn forward(
        &self,
        leader: &Member,
        command: &Bytes,
    ) -> Result<Option<(u64, Bytes)>, ApiError> {
        let mut there = LeaderProposer::new(self.peers.channel(&leader.addr)?);
        let mut status = self.raft.status();
        let is_another = |status: &swarm_raft::Status| {
            status.leader.as_ref().is_some_and(|other| other.id != leader.id)
        };
        let answer = tokio::select! {
            answer = there.propose(command.clone()) => answer,
            // It may never answer, or only when its connection is found to be dead.
            Ok(_) = status.wait_for(is_another) => {
                self.peers.forget(&leader.addr);
                return Err(ApiError::Unknown(
                    "the leader was lost before it answered: whether the change was made is not known, so look before trying again".into(),
                ));
            }
        };
        match answer {
            Ok(accepted) => Ok(Some(accepted)),
            Err(ApiError::Precondition(_)) => Ok(None),
            Err(ApiError::Unavailable(_)) => {
                self.peers.forget(&leader.addr);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Why nobody leads, as far as this manager can see.
    pub(crate) fn no_leader(&self) -> ApiError {
        match self.raft.status().borrow().role {
            Role::Removed => ApiError::NotManager(
                "this node is no manager any more: the swarm can be seen and changed on its managers only".into(),
            ),
            _ => ApiError::Unavailable(
                "the swarm has no leader: too few managers are reachable".into(),
            ),
        }
    }

    /// Proposes for another manager: only as the leader, and only what all managers can read. One command that they
    /// cannot would end them all.
    pub(crate) async fn propose_for_peer(&self, command: Bytes) -> Result<(u64, Bytes), ApiError> {
        let dialect = self.store.dialect();
        let (level, opened) =
            Command::open(Written::Proposal, &command, dialect.engine.feature_level)
                .map_err(|e| ApiError::Invalid(e.to_string()))?;
        let needed = dialect.needed_by(&opened.changes);
        if needed > level {
            return Err(ApiError::Invalid(format!(
                "a command says that it needs feature level {level}, and needs {needed}"
            )));
        }
        // A leader that is new may not have heard yet that the level was raised: it is asked again.
        refuse_above(&self.store.read(), level)?;
        self.propose_here(command).await
    }

    async fn propose_here(&self, command: Bytes) -> Result<(u64, Bytes), ApiError> {
        self.raft.propose(command).await.map_err(|e| match e {
            ProposeError::NotLeader { .. } => ApiError::NotLeader(e.to_string()),
            e => not_proposed(e),
        })
    }
}

fn not_proposed(error: ProposeError) -> ApiError {
    match error {
        ProposeError::NoQuorum { .. } => ApiError::Unavailable(error.to_string()),
        ProposeError::TooLarge { .. } => ApiError::Invalid(error.to_string()),
        // Neither `Unavailable` nor `OutOfDate`: they invite to try again what may have happened.
        _ => ApiError::Unknown(error.to_string()),
    }
}
