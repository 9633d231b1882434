//! The leader's loop: look at what changed, decide, propose, again. All deciding is in [`crate::leader::plan`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use swarm_model::{NodeId, ServiceId};
use swarm_raft::{Raft, Role, Status};
use swarm_state::{Change, State, Touched};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::clock;
use crate::leader::agenda::Agenda;
use crate::leader::fleet::Fleet;
use crate::leader::plan::{Facts, Plan, plan};
use crate::replica::pieces::pieces;
use crate::replica::proposer::Proposer;
use crate::replica::store::{Applied, Store};

/// A node silent for longer is dead: its tasks leave DNS and the balancers, and are replaced.
pub const DEAD_AFTER: Duration = Duration::from_secs(2);
/// The least time without a leader before another is elected.
const ELECTION: Duration = Duration::from_millis(1100);
/// How often everything is looked at, should an event have been missed.
const AUDIT: Duration = Duration::from_secs(30);
/// The pause after a proposal that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Leads whenever this manager is the leader.
pub(crate) struct Leader {
    pub(crate) node_id: NodeId,
    pub(crate) store: Store,
    pub(crate) raft: Raft,
    pub(crate) fleet: Fleet,
    pub(crate) proposer: Proposer,
}

impl Leader {
    /// Ends with Raft.
    pub(crate) async fn run(self) {
        let mut status = self.raft.status();
        let mut reigns = Reigns::default();
        loop {
            let (leads, leader) = {
                let status = status.borrow_and_update();
                (status.role == Role::Leader, status.leader.as_ref().map(|leader| leader.id))
            };
            reigns.note(leader, Instant::now());
            if leads {
                self.lead(status.clone(), reigns.former).await;
            }
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    async fn lead(&self, mut status: watch::Receiver<Status>, former: Option<u64>) {
        let mut events = self.store.events();
        let mut heard = self.fleet.changes();
        let (mut agenda, began) = (self.begin(former), Instant::now());
        let mut audit = tokio::time::interval(AUDIT);
        // The status changes with every revision, which is no reason to decide anew.
        let deposed = async { status.wait_for(|s| s.role != Role::Leader).await.is_ok() };
        tokio::pin!(deposed);
        loop {
            let plan = self.decide(&mut agenda, began.elapsed());
            let wake = self.pause(&plan, &agenda, began.elapsed());
            if !plan.changes.is_empty() && !self.propose(plan, &mut agenda).await {
                tokio::time::sleep(RETRY_PAUSE).await; // between tries without a quorum
            }
            tokio::select! {
                event = events.recv() => self.note(event, &mut events, &mut agenda),
                changed = heard.changed() => if changed.is_err() { return },
                _ = &mut deposed => return,
                // A restart delay, a node's last moment, or services that had no turn yet.
                () = tokio::time::sleep(wake) => {}
                _ = audit.tick() => self.audit(&mut agenda),
            }
            self.catch_up(&mut events, &mut agenda);
        }
    }

    /// Everything is to be looked at. Every node counts as just heard of, but for that of the former
    /// leader: it has been silent for as long as an election takes, or else reports at once.
    fn begin(&self, former: Option<u64>) -> Agenda {
        let state = self.store.read();
        self.fleet.begin(state.nodes().map(|node| {
            let raft_id = node.manager_status.as_ref().map(|manager| manager.raft_id);
            let led = raft_id.is_some() && raft_id == former;
            let silence = if led { ELECTION } else { Duration::ZERO };
            (node.id.clone(), node.meta.version.index, silence)
        }));
        let mut agenda = Agenda::default();
        agenda.note(all_services(&state));
        agenda
    }

    fn audit(&self, agenda: &mut Agenda) {
        let state = self.store.read();
        agenda.note(all_services(&state));
        self.fleet.keep(|node| state.node(node).is_some());
    }

    /// Takes in all that happened meanwhile, so that one proposal answers it.
    fn catch_up(&self, events: &mut broadcast::Receiver<Arc<Applied>>, agenda: &mut Agenda) {
        loop {
            match events.try_recv() {
                Ok(applied) => note_applied(&self.store.read(), &applied, agenda),
                // What was missed is not known, so it may be anything.
                Err(TryRecvError::Lagged(_)) => agenda.note(all_services(&self.store.read())),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn decide(&self, agenda: &mut Agenda, now: Duration) -> Plan {
        let state = self.store.read();
        let ready = state.nodes().filter(|node| node.is_alive());
        self.fleet.expect(ready.map(|node| (&node.id, node.meta.version.index)));
        let mut nodes = self.fleet.facts();
        if let Some(own) = nodes.get_mut(&self.node_id) {
            // Whoever decides is alive: the node's agent may only be busy, as after a restart.
            own.silence = Duration::ZERO;
        }
        let speaks = self.store.dialect().engine.feature_level;
        let facts = Facts { now: clock::now(), nodes, dead_after: DEAD_AFTER, speaks };
        let due = agenda.due(now);
        let mut plan = plan(&state, &facts, &due, &mut clock::new_id);
        if let Some(generation) = plan.new_key {
            let secret = clock::new_secret();
            plan.changes.insert(0, Change::AddNetworkKey { generation, secret });
        }
        // A service that is changed by this is looked at again when that is applied.
        agenda.looked_at(&due, &plan, &state, now);
        plan
    }

    fn pause(&self, plan: &Plan, agenda: &Agenda, now: Duration) -> Duration {
        let moment = plan.wake_at.map_or(AUDIT, |moment| moment.since(clock::now()));
        let turn = agenda.wake_at(now).map_or(AUDIT, |at| at.saturating_sub(now));
        moment.min(turn).min(AUDIT)
    }

    async fn propose(&self, plan: Plan, agenda: &mut Agenda) -> bool {
        for piece in pieces(plan.changes) {
            match self.proposer.propose_as_leader(piece).await {
                Ok(results) => {
                    // What another proposal overtook is decided anew from the state it left.
                    let mut rejected = results.iter().filter_map(|result| result.as_ref().err());
                    if let Some(rejected) = rejected.next_back() {
                        tracing::debug!("overtaken decision: {rejected}");
                        // What overtook it, as a node of other services, may not be an event of this one.
                        agenda.note(all_services(&self.store.read()));
                    }
                }
                Err(e) => {
                    tracing::warn!("cannot replicate the leader's decisions: {e}");
                    agenda.note(all_services(&self.store.read()));
                    return false;
                }
            }
        }
        true
    }

    fn note(
        &self,
        event: Result<Arc<Applied>, broadcast::error::RecvError>,
        events: &mut broadcast::Receiver<Arc<Applied>>,
        agenda: &mut Agenda,
    ) {
        let state = self.store.read();
        match event {
            Ok(applied) => note_applied(&state, &applied, agenda),
            Err(_) => {
                *events = events.resubscribe();
                agenda.note(all_services(&state));
            }
        }
    }
}

/// Who led before. A leader counts only once it was named for longer than the dead can be: a manager that
/// has just started names the one it finds on its disk, heard of or not.
#[derive(Default)]
struct Reigns {
    named: Option<(u64, Instant)>,
    former: Option<u64>,
}

impl Reigns {
    fn note(&mut self, leader: Option<u64>, now: Instant) {
        if leader == self.named.map(|(id, _)| id) {
            return;
        }
        if let Some((id, since)) = self.named
            && now.saturating_duration_since(since) > DEAD_AFTER
        {
            self.former = Some(id);
        }
        self.named = leader.map(|id| (id, now));
    }
}

fn all_services(state: &State) -> BTreeSet<ServiceId> {
    state.services().map(|service| service.id.clone()).collect()
}

/// The services that a batch of changes concerns: a node that changed concerns those with tasks on it.
/// (Services that wait for a node are looked at each time anyway.)
pub(crate) fn note_applied(state: &State, applied: &Applied, agenda: &mut Agenda) {
    for object in &applied.touched {
        match object {
            Touched::Service(id) | Touched::Task(_, id) => {
                agenda.note([id.clone()]);
            }
            Touched::Node(id) => {
                agenda.note(state.tasks_on(id).map(|task| task.service_id.clone()));
            }
            // Tasks that wait for a node are looked at each time; keys and certificates are no service's.
            Touched::Cluster
            | Touched::Network(_)
            | Touched::NodeHistory(_)
            | Touched::Carriers(_)
            | Touched::Endpoint(_)
            | Touched::Assignment(_)
            | Touched::NetworkKeys
            | Touched::NodeCertificate(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_found_on_disk_is_not_a_former_one() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut reigns = Reigns::default();
        reigns.note(Some(1), at(0));
        reigns.note(None, at(1150));
        reigns.note(Some(2), at(1500));
        assert_eq!(reigns.former, None, "nobody has heard of 1 since the start");
        // 2 leads, as is said again and again, and is lost.
        reigns.note(Some(2), at(3000));
        reigns.note(None, at(60_000));
        reigns.note(Some(3), at(61_000));
        assert_eq!(reigns.former, Some(2));
        reigns.note(None, at(61_100));
        reigns.note(Some(1), at(62_000));
        assert_eq!(reigns.former, Some(2), "3 hardly led");
    }
}
