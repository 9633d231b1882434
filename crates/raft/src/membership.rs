//! The one task that changes the set of managers, one request after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{
    BasicNode, ChangeMembers, ServerState,
    async_runtime::watch::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
    raft::VoteRequest,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    error::{MembershipError, ProposeError, fatal, write_error},
    handle::no_quorum,
    status::{Role, Status},
    types::{OpenRaft, StoredMembership, TypeConfig, Vote, log_id},
};

/// Requests that may wait.
pub(crate) const QUEUE: usize = 64;

/// How many entries a new manager may be behind to be given a vote.
const MAX_LAG: u64 = 200;

/// How long a change waits for the one before it to commit.
const RETRY: Duration = Duration::from_millis(10);

/// What the task is asked to do.
pub(crate) enum Change {
    AddVoter { id: u64, addr: String },
    Remove { id: u64 },
    UpdateAddr { id: u64, addr: String },
    Transfer { to: Option<u64> },
}

pub(crate) type Request = (Change, oneshot::Sender<Result<(), MembershipError>>);

/// Owns membership changes.
pub(crate) struct Changer {
    pub(crate) raft: OpenRaft,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) timeout: Duration,
    pub(crate) catch_up: Duration,
}

impl Changer {
    /// Serves requests until all handles are gone or Raft ends.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<Request>) {
        while let Some((change, reply)) = requests.recv().await {
            if reply.is_closed() {
                // The caller gave up while this waited.
                continue;
            }
            let result = match change {
                Change::AddVoter { id, addr } => self.add_voter(id, addr).await,
                Change::Remove { id } => self.remove(id).await,
                Change::UpdateAddr { id, addr } => self.update_addr(id, addr).await,
                Change::Transfer { to } => self.transfer(to).await,
            };
            // The caller may have given up meanwhile; the change stands.
            let _ = reply.send(result);
        }
    }

    fn membership(&self) -> std::sync::Arc<StoredMembership> {
        self.raft.metrics().borrow_watched().membership_config.clone()
    }

    /// Adds a learner, lets it catch up, gives it a vote. Repeating an interrupted call completes it.
    async fn add_voter(&self, id: u64, addr: String) -> Result<(), MembershipError> {
        self.require_leader()?;
        let membership = self.membership();
        let known = membership.get_node(&id).map(|node| node.addr.clone());
        if known.as_ref().is_some_and(|known| *known != addr) {
            self.update_addr(id, addr.clone()).await?;
        }
        if membership.get_joint_config().iter().all(|voters| voters.contains(&id)) {
            return Ok(());
        }
        if known.is_none() {
            let node = BTreeMap::from([(id, BasicNode { addr })]);
            self.change(ChangeMembers::AddNodes(node)).await?;
        }
        if let Err(error) = self.caught_up(id).await {
            if known.is_none() {
                self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await?;
            }
            return Err(error);
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Removes a voter or learner. Removing itself makes the leader step down afterwards.
    async fn remove(&self, id: u64) -> Result<(), MembershipError> {
        self.require_leader()?;
        let membership = self.membership();
        if membership.get_node(&id).is_none() {
            return Err(MembershipError::Unknown(id));
        }
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        if !voters.contains(&id) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await;
        }
        if voters.len() == 1 {
            return Err(MembershipError::LastVoter(id));
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await
    }

    async fn update_addr(&self, id: u64, addr: String) -> Result<(), MembershipError> {
        self.require_leader()?;
        match self.membership().get_node(&id) {
            None => Err(MembershipError::Unknown(id)),
            Some(node) if node.addr == addr => Ok(()),
            Some(_) => {
                self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, BasicNode { addr })])))
                    .await
            }
        }
    }

    async fn transfer(&self, to: Option<u64>) -> Result<(), MembershipError> {
        self.require_leader()?;
        let own = *self.raft.node_id();
        let to = match to {
            Some(to) if to == own => return Ok(()),
            Some(to) if self.membership().voter_ids().any(|id| id == to) => to,
            Some(to) => return Err(MembershipError::Unknown(to)),
            None => self.most_up_to_date().ok_or(MembershipError::Alone)?,
        };
        self.raft.trigger().transfer_leader(to).await.map_err(fatal)?;
        let mut status = self.status.clone();
        let leads = |status: &Status| status.leader.as_ref().is_some_and(|leader| leader.id == to);
        let taken_over = async { status.wait_for(leads).await.map(drop) };
        match tokio::time::timeout(self.timeout, taken_over).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ProposeError::ShutDown.into()),
            Err(_) => {
                self.step_down(to).await?;
                Err(MembershipError::Transfer(to))
            }
        }
    }

    /// A leader that hands over proposes nothing and sends no heartbeats until another one leads. If the others lack an
    /// entry, none of them can be elected, and openraft lets no leader stand for election. So it gives its vote in the
    /// next term to the one that did not take over, follows nobody from then on, and stands for election as any other.
    async fn step_down(&self, absent: u64) -> Result<(), MembershipError> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.state != ServerState::Leader {
            return Ok(());
        }
        let vote = Vote::new(metrics.current_term + 1, absent);
        // A log that no log is longer than: only such a one is given a vote.
        let last_log_id = Some(log_id(metrics.current_term, metrics.id, u64::MAX));
        let request = VoteRequest { vote, last_log_id, leadership_transfer: true };
        let answer = self.raft.vote(request).await;
        answer.map(drop).map_err(|error| match error {
            RaftError::Fatal(error) => fatal(error).into(),
            RaftError::APIError(never) => match never {},
        })
    }

    /// The other voter with the longest log, among those that answer.
    fn most_up_to_date(&self) -> Option<u64> {
        let reachable = self.status.borrow().reachable.clone();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let others = metrics
            .membership_config
            .voter_ids()
            .filter(|id| *id != metrics.id && reachable.contains(id));
        others.max_by_key(|id| replication.get(id).copied().flatten())
    }

    fn require_leader(&self) -> Result<(), MembershipError> {
        match self.raft.as_leader() {
            Ok(_) => Ok(()),
            Err(_) => {
                Err(ProposeError::NotLeader { leader: self.status.borrow().leader.clone() }.into())
            }
        }
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), MembershipError> {
        let work = async {
            loop {
                match self.raft.change_membership(change.clone(), false).await {
                    // The change before this one, or a new leader's first entry, is yet to be committed.
                    Err(error) if in_progress(&error) => tokio::time::sleep(RETRY).await,
                    result => return result,
                }
            }
        };
        match tokio::time::timeout(self.timeout, work).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(write_error(error, self.timeout, || no_quorum(&self.status))),
            Err(_) => Err(ProposeError::Unconfirmed(self.timeout).into()),
        }
    }

    async fn caught_up(&self, id: u64) -> Result<(), MembershipError> {
        let deadline = Instant::now() + self.catch_up;
        let mut metrics = self.raft.metrics();
        let (mut matched, mut last) = (0, 0);
        loop {
            {
                let metrics = metrics.borrow_and_update();
                let Some(replication) = &metrics.replication else {
                    return Err(ProposeError::NotLeader {
                        leader: self.status.borrow().leader.clone(),
                    }
                    .into());
                };
                if let Some(log_id) = replication.get(&id).copied().flatten() {
                    (matched, last) = (log_id.index, metrics.last_log_index.unwrap_or(0));
                    if matched + MAX_LAG >= last {
                        return Ok(());
                    }
                }
            }
            match tokio::time::timeout_at(deadline, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(ProposeError::ShutDown.into()),
                Err(_) => {
                    return Err(MembershipError::CatchUp {
                        id,
                        limit: self.catch_up,
                        matched,
                        last,
                    });
                }
            }
        }
    }
}

fn in_progress(error: &RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> bool {
    use ChangeMembershipError::{InProgress, UncommittedLeaderLog};
    let refused = error.api_error();
    matches!(
        refused,
        Some(ClientWriteError::ChangeMembershipError(InProgress(_) | UncommittedLeaderLog(_)))
    )
}

/// Whether this role can be asked to change the membership.
pub(crate) fn leads(status: &Status) -> bool {
    status.role == Role::Leader
}
