//! The leader takes managers out of the quorum that are to be workers, or whose node was removed. The wish is in the
//! replicated state, so that it outlives whoever was asked for it: any leader completes what another began.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use swarm_model::{Node, NodeId};
use swarm_raft::{MembershipError, Raft, Role, Status};
use swarm_state::{Change, Touched};
use tokio::sync::{broadcast, watch};

use crate::replica::proposer::Proposer;
use crate::replica::store::{Applied, Store};

/// The pause after a demotion that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Demotes while this manager leads.
pub(crate) struct Demotions {
    pub(crate) store: Store,
    pub(crate) raft: Raft,
    pub(crate) proposer: Proposer,
}

/// A manager that is to be a worker.
struct Demoted {
    id: NodeId,
    raft_id: u64,
}

impl Demotions {
    /// Ends with Raft.
    pub(crate) async fn run(self) {
        let mut status = self.raft.status();
        while status.wait_for(|status| status.role == Role::Leader).await.is_ok() {
            self.lead(&mut status).await;
        }
    }

    async fn lead(&self, status: &mut watch::Receiver<Status>) {
        let mut events = self.store.events();
        loop {
            let members = members(&status.borrow_and_update());
            let failed = !self.settle(&members).await;
            tokio::select! {
                () = touches_a_node(&mut events) => {}
                () = tokio::time::sleep(RETRY_PAUSE), if failed => {} // before the next try
                _ = status.wait_for(|now| now.role != Role::Leader || self::members(now) != members) => {}
            }
            if status.borrow().role != Role::Leader {
                return;
            }
        }
    }

    /// Does what is to be done now; whether all of it was.
    async fn settle(&self, members: &[u64]) -> bool {
        // The log tells of members before this replica knows their nodes.
        if let Err(e) = self.proposer.barrier().await {
            tracing::debug!("whether a manager is to be demoted is not known yet: {e}");
            return false;
        }
        let mut done = true;
        for raft_id in self.without_a_node(members) {
            match self.raft.remove(raft_id).await {
                Ok(()) => tracing::info!("manager {raft_id}, whose node is gone, is dropped"),
                Err(e) => {
                    tracing::warn!("cannot drop manager {raft_id}, whose node is gone: {e}");
                    done = false;
                }
            }
        }
        for demoted in self.waiting() {
            if let Err(e) = self.demote(&demoted).await {
                tracing::warn!("cannot demote manager {} yet: {e}", demoted.id);
                done = false;
            }
        }
        done
    }

    /// One that was being added while its node was removed.
    fn without_a_node(&self, members: &[u64]) -> Vec<u64> {
        let own = self.raft.status().borrow().id;
        let state = self.store.read();
        let known: BTreeSet<u64> = state
            .nodes()
            .filter_map(|node| node.manager_status.as_ref())
            .map(|manager| manager.raft_id)
            .collect();
        // Before the first node is in the state, or this one again as it goes on alone, nobody is known.
        let is_stray = |id: &u64| *id != own && !known.contains(id);
        members.iter().copied().filter(|id| known.contains(&own) && is_stray(id)).collect()
    }

    fn waiting(&self) -> Vec<Demoted> {
        let demoted = |node: &Arc<Node>| {
            let raft_id = node.manager_status.as_ref()?.raft_id;
            (!node.is_manager()).then(|| Demoted { id: node.id.clone(), raft_id })
        };
        self.store.read().nodes().filter_map(demoted).collect()
    }

    async fn demote(&self, demoted: &Demoted) -> Result<(), String> {
        let own = self.raft.status().borrow().id;
        if demoted.raft_id == own {
            // The next leader does it.
            return self.raft.transfer_leadership(None).await.map_err(|e| e.to_string());
        }
        match self.raft.remove(demoted.raft_id).await {
            // It has not become one yet, or an earlier attempt came this far.
            Ok(()) | Err(MembershipError::Unknown(_)) => {}
            Err(e) => return Err(e.to_string()),
        }
        let change = Change::DropManager { id: demoted.id.clone() };
        self.proposer.propose_one(change).await.map_err(|e| e.to_string())?;
        tracing::info!("manager {} is a worker now", demoted.id);
        Ok(())
    }
}

/// The Raft ids of the managers that vote, or are being added.
fn members(status: &Status) -> Vec<u64> {
    status.voters.iter().chain(&status.learners).map(|member| member.id).collect()
}

async fn touches_a_node(events: &mut broadcast::Receiver<Arc<Applied>>) {
    let is_node = |object: &Touched| matches!(object, Touched::Node(_));
    while let Ok(applied) = events.recv().await {
        if applied.touched.iter().any(is_node) {
            return;
        }
    }
    // Some were missed: any of them may have been one.
}
