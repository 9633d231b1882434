//! What a manager knows of its cluster, kept up to date in a watch channel.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use openraft::{Instant as _, RaftMetrics, ServerState, async_runtime::watch::WatchReceiver};
use tokio::{sync::watch, time::Instant};

use crate::{
    halt::Halt,
    network::{Contacts, Missing},
    peers::Peers,
    service::LastHeard,
    types::{OpenRaft, StoredMembership, TypeConfig},
};

/// A manager.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// Its Raft id.
    pub id: u64,
    /// Where the others reach it.
    pub addr: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "manager {} at {}", self.id, self.addr)
    }
}

/// The part a manager plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not in a cluster yet.
    Uninitialized,
    /// Receives the log, does not vote: it is being added.
    Learner,
    /// Follows a leader.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Was removed from the cluster, for good: its id is never used again.
    Removed,
    /// Has been shut down.
    Stopped,
    /// Stopped by a failure of its disk or state machine, in words.
    Failed(String),
}

/// A manager's view of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This manager's id.
    pub id: u64,
    /// Its part.
    pub role: Role,
    /// The newest term it knows.
    pub term: u64,
    /// The leader, as long as it is heard of.
    pub leader: Option<Member>,
    /// The last revision applied here.
    pub last_applied: Option<u64>,
    /// The last revision known to be committed.
    pub committed: Option<u64>,
    /// The managers that vote, by id.
    pub voters: Vec<Member>,
    /// The managers that are being added, by id.
    pub learners: Vec<Member>,
    /// Since when this manager has been without a working leader or, as the leader, without answers
    /// from a majority. `None` when all is well.
    pub quorum_lost_since: Option<Instant>,
    /// Leader only: the voters that have lately answered, itself included.
    pub reachable: Vec<u64>,
    /// The voters that have not answered the leader lately, though they have had the time; empty without a leader.
    pub missing: Vec<u64>,
}

/// Keeps the status and the peers' addresses up to date.
pub(crate) struct Watcher {
    pub(crate) raft: OpenRaft,
    pub(crate) peers: Peers,
    pub(crate) last_heard: LastHeard,
    pub(crate) removed: Arc<AtomicBool>,
    pub(crate) halt: Halt,
    /// Set while this manager leads without hearing from a majority, which it says to whom it leads.
    pub(crate) without_quorum: Arc<AtomicBool>,
    pub(crate) missing: Missing,
    pub(crate) contacts: Contacts,
    /// Silence longer than this is a loss.
    pub(crate) lease: Duration,
    pub(crate) leads_since: Option<Instant>,
    pub(crate) started: Instant,
}

impl Watcher {
    /// Runs until Raft ends. Looks again every `interval`, since silence makes no event.
    pub(crate) async fn run(mut self, status: watch::Sender<Status>, interval: Duration) {
        let mut metrics = self.raft.metrics();
        let mut membership = None;
        loop {
            let (mut new, effective) = {
                let metrics = metrics.borrow_and_update();
                self.leads_since = (metrics.state == ServerState::Leader)
                    .then(|| self.leads_since.unwrap_or_else(Instant::now));
                let new = self.status(&metrics);
                let without_quorum = self.leads_without_quorum(&metrics, &new);
                self.without_quorum.store(without_quorum, Ordering::Relaxed);
                (new, metrics.membership_config.clone())
            };
            steady(&mut new, &status.borrow());
            if new.role == Role::Leader {
                self.missing.set(&new.missing);
            }
            if membership.as_ref() != Some(&effective) {
                self.peers.set_addresses(addresses(&effective));
                membership = Some(effective);
            }
            let ended = matches!(new.role, Role::Stopped | Role::Failed(_));
            status.send_if_modified(|current| {
                let changed = *current != new;
                *current = new;
                changed
            });
            if ended {
                return;
            }
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() {
                    status.send_modify(|status| status.role = Role::Stopped);
                    return;
                },
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    pub(crate) fn status(&self, metrics: &RaftMetrics<TypeConfig>) -> Status {
        let now = Instant::now();
        let membership = metrics.membership_config.membership();
        let member = |id: u64| {
            let node = membership.get_node(&id)?;
            Some(Member { id, addr: node.addr.clone() })
        };
        let role = self.role(metrics, now);
        let quorum_lost_since = self.quorum_lost_since(metrics, &role, now);
        let leader = match role {
            Role::Leader => Some(metrics.id),
            Role::Follower | Role::Learner if quorum_lost_since.is_none() => metrics.current_leader,
            _ => None,
        };
        let reachable = self.reachable(metrics, &role);
        Status {
            id: metrics.id,
            term: metrics.current_term,
            leader: leader.and_then(member),
            last_applied: metrics.last_applied.map(|id| id.index),
            committed: metrics.local_committed.map(|id| id.index),
            voters: membership.voter_ids().filter_map(member).collect(),
            learners: membership.learner_ids().filter_map(member).collect(),
            quorum_lost_since,
            missing: match leader {
                Some(_) => self.missing(metrics, &role, &reachable),
                None => Vec::new(),
            },
            reachable,
            role,
        }
    }

    fn role(&self, metrics: &RaftMetrics<TypeConfig>, now: Instant) -> Role {
        if let Some(reason) = self.halt.reason() {
            return Role::Failed(reason);
        }
        if let Err(error) = &metrics.running_state {
            return match error {
                openraft::errors::Fatal::Stopped => Role::Stopped,
                other => Role::Failed(other.to_string()),
            };
        }
        let membership = &metrics.membership_config;
        if membership.log_id().is_none() {
            return Role::Uninitialized;
        }
        // Its log may say so in passing, while it is caught up; who removed it talks to it no more, perhaps before
        // it could say that the removal is committed.
        let silence = now.saturating_duration_since(self.last_heard.at().unwrap_or(self.started));
        let left_out = membership.membership().get_node(&metrics.id).is_none()
            && metrics.committed_membership_config.log_id().is_some()
            && silence > 2 * self.lease;
        if self.removed.load(Ordering::Relaxed)
            || (left_out && metrics.state != ServerState::Leader)
        {
            return Role::Removed;
        }
        match metrics.state {
            ServerState::Leader => Role::Leader,
            ServerState::Candidate => Role::Candidate,
            ServerState::Follower => Role::Follower,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        }
    }

    fn quorum_lost_since(
        &self,
        metrics: &RaftMetrics<TypeConfig>,
        role: &Role,
        now: Instant,
    ) -> Option<Instant> {
        let last = match role {
            Role::Leader if metrics.membership_config.voter_ids().eq([metrics.id]) => return None,
            Role::Leader => metrics.last_quorum_acked.map(|at| now - at.elapsed()),
            Role::Follower | Role::Candidate | Role::Learner => self.last_heard.at(),
            Role::Uninitialized | Role::Removed | Role::Stopped | Role::Failed(_) => return None,
        };
        let last = last.unwrap_or(self.started);
        (now.saturating_duration_since(last) > self.lease).then_some(last)
    }

    /// Whether this manager leads, and hears from no majority.
    fn leads_without_quorum(&self, metrics: &RaftMetrics<TypeConfig>, status: &Status) -> bool {
        // One that has just begun to lead has yet to hear from anybody.
        if status.role != Role::Leader
            || status.quorum_lost_since.is_none()
            || metrics.last_quorum_acked.is_none()
        {
            return false;
        }
        let heard =
            |voter: &&Member| voter.id == status.id || self.contacts.within(voter.id, self.lease);
        2 * status.voters.iter().filter(heard).count() <= status.voters.len()
    }

    fn reachable(&self, metrics: &RaftMetrics<TypeConfig>, role: &Role) -> Vec<u64> {
        if *role != Role::Leader {
            return Vec::new();
        }
        let answered = |id: &u64| {
            let beat = metrics.heartbeat.as_ref().and_then(|beats| beats.get(id));
            *id == metrics.id
                || beat.copied().flatten().is_some_and(|at| at.elapsed() <= self.lease)
        };
        metrics.membership_config.voter_ids().filter(answered).collect()
    }

    fn missing(
        &self,
        metrics: &RaftMetrics<TypeConfig>,
        role: &Role,
        reachable: &[u64],
    ) -> Vec<u64> {
        match role {
            Role::Leader if self.leads_since.is_some_and(|since| since.elapsed() > self.lease) => {
                let voters = metrics.membership_config.voter_ids();
                voters.filter(|id| !reachable.contains(id)).collect()
            }
            Role::Follower | Role::Learner => self.last_heard.missing(),
            _ => Vec::new(),
        }
    }
}

/// Keeps the time of a loss as first reported: openraft's clock shows it with some jitter.
fn steady(new: &mut Status, old: &Status) {
    let (Some(since), Some(before)) = (new.quorum_lost_since, old.quorum_lost_since) else {
        return;
    };
    if since.max(before) - since.min(before) < Duration::from_millis(100) {
        new.quorum_lost_since = Some(before);
    }
}

fn addresses(membership: &StoredMembership) -> HashMap<u64, String> {
    membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect()
}
