//! Proposing changes from any manager: the one that does not lead passes the command on to the leader.

use std::time::Duration;

use bytes::Bytes;
use swarm_model::codec;
use swarm_proto::membership::ProposeRequest;
use swarm_proto::membership::peer_client::PeerClient;
use swarm_raft::{Member, ProposeError, Raft, Role};
use swarm_state::{Change, Command, Outcome, Written};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::clock;
use crate::members::peers::Peers;
use crate::replica::dialect::refuse_above;
use crate::replica::store::{Results, Store};

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
    pub(crate) async fn barrier(&self) -> Result<(), Status> {
        self.raft.read_barrier().await.map_err(|error| match error {
            ProposeError::NotLeader { .. } => self.no_leader(),
            error => Status::unavailable(error.to_string()),
        })
    }

    /// Proposes one change; answers when it is in force on this manager.
    pub async fn propose_one(&self, change: Change) -> Result<Outcome, Status> {
        let results = self.propose(vec![change]).await?;
        let result = results.into_iter().next();
        result.ok_or_else(|| Status::internal("no result for a change"))?.map_err(rejected)
    }

    /// Proposes changes in one command; answers when it is applied on this manager.
    pub async fn propose(&self, changes: Vec<Change>) -> Result<Results, Status> {
        let command = self.seal(changes)?;
        let (revision, response) = self.propose_sealed(command).await?;
        // Whoever made a change sees it here. (Reads have a barrier of their own.)
        if tokio::time::timeout(REPLICA_PATIENCE, self.store.reached(revision)).await.is_err() {
            tracing::warn!("this manager's replica lags behind revision {revision}");
        }
        codec::decode(&response).map_err(|e| Status::internal(e.to_string()))
    }

    /// Proposes what this manager decided as the leader, if it still leads. Another leader must not get it: it was
    /// decided on what was heard here, and whoever is cut off hears of nobody.
    pub(crate) async fn propose_as_leader(&self, changes: Vec<Change>) -> Result<Results, Status> {
        let command = self.seal(changes)?;
        let (_, response) = self.propose_here(command).await?;
        codec::decode(&response).map_err(|e| Status::internal(e.to_string()))
    }

    /// A command of these changes, in its envelope. Nothing above the swarm's feature level is proposed.
    fn seal(&self, changes: Vec<Change>) -> Result<Bytes, Status> {
        let dialect = self.store.dialect();
        let level = dialect.needed_by(&changes);
        refuse_above(&self.store.read(), level).map_err(rejected)?;
        let command = Command { now: clock::now(), changes };
        Ok(command.seal(level, &dialect.engine.engine_version).into())
    }

    async fn propose_sealed(&self, command: Bytes) -> Result<(u64, Bytes), Status> {
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
    ) -> Result<Option<(u64, Bytes)>, Status> {
        let mut client: PeerClient<Channel> = PeerClient::new(self.peers.channel(&leader.addr)?);
        let mut status = self.raft.status();
        let is_another = |status: &swarm_raft::Status| {
            status.leader.as_ref().is_some_and(|other| other.id != leader.id)
        };
        let answer = tokio::select! {
            answer = client.propose(ProposeRequest { command: command.clone() }) => answer,
            // It may never answer, or only when its connection is found to be dead.
            Ok(_) = status.wait_for(is_another) => {
                self.peers.forget(&leader.addr);
                return Err(Status::unknown(
                    "the leader was lost before it answered: whether the change was made is not known, so look before trying again",
                ));
            }
        };
        match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                Ok(Some((answer.revision, answer.response)))
            }
            Err(status) if status.code() == Code::FailedPrecondition => Ok(None),
            Err(status) if status.code() == Code::Unavailable => {
                self.peers.forget(&leader.addr);
                Ok(None)
            }
            Err(status) => Err(status),
        }
    }

    /// Why nobody leads, as far as this manager can see.
    pub(crate) fn no_leader(&self) -> Status {
        match self.raft.status().borrow().role {
            Role::Removed => Status::failed_precondition(
                "this node is no manager any more: the swarm can be seen and changed on its managers only",
            ),
            _ => Status::unavailable("the swarm has no leader: too few managers are reachable"),
        }
    }

    /// Proposes for another manager: only as the leader, and only what all managers can read. One command that they
    /// cannot would end them all.
    pub(crate) async fn propose_for_peer(&self, command: Bytes) -> Result<(u64, Bytes), Status> {
        let dialect = self.store.dialect();
        let (level, opened) =
            Command::open(Written::Proposal, &command, dialect.engine.feature_level)
                .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let needed = dialect.needed_by(&opened.changes);
        if needed > level {
            return Err(Status::invalid_argument(format!(
                "a command says that it needs feature level {level}, and needs {needed}"
            )));
        }
        // A leader that is new may not have heard yet that the level was raised: it is asked again.
        refuse_above(&self.store.read(), level).map_err(rejected)?;
        self.propose_here(command).await
    }

    async fn propose_here(&self, command: Bytes) -> Result<(u64, Bytes), Status> {
        self.raft.propose(command).await.map_err(|e| match e {
            ProposeError::NotLeader { .. } => Status::failed_precondition(e.to_string()),
            e => not_proposed(e),
        })
    }
}

fn not_proposed(error: ProposeError) -> Status {
    match error {
        ProposeError::NoQuorum { .. } => Status::unavailable(error.to_string()),
        ProposeError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
        // Neither `unavailable` nor `aborted`: they invite to try again what may have happened.
        _ => Status::unknown(error.to_string()),
    }
}

/// A rejected change, in gRPC's words.
pub(crate) fn rejected(reason: swarm_state::Rejected) -> Status {
    use swarm_state::Rejected as R;
    let text = reason.to_string();
    match reason {
        R::NotFound(_) => Status::not_found(text),
        R::Exists(_) => Status::already_exists(text),
        R::InUse(_) => Status::failed_precondition(text),
        R::OutOfDate(_) => Status::aborted(text),
        R::Invalid(_) => Status::invalid_argument(text),
        R::Exhausted(_) => Status::resource_exhausted(text),
        R::Level(_) => Status::failed_precondition(text),
    }
}
