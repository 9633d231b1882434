//! A manager's replica of the state: Raft writes it, everything else reads it and hears what changed.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use swarm_model::{NetworkId, codec};
use swarm_raft::{Committed, StateMachine};
use swarm_state::{Command, Outcome, Rejected, State, Touched};
use tokio::sync::{broadcast, watch};

use crate::replica::affected;

/// How many batches a slow listener may be behind before it has to look at everything anew.
const EVENTS_KEPT: usize = 1024;

/// A batch of commands was applied.
#[derive(Debug)]
pub struct Applied {
    /// The state is at this revision now.
    pub revision: u64,
    /// What changed.
    pub touched: Vec<Touched>,
}

/// The revisions that last changed what nodes are told.
#[derive(Debug, Default)]
pub(crate) struct ChangedAt {
    /// Of each network.
    pub(crate) networks: BTreeMap<NetworkId, u64>,
    /// Of their tunnels to each other.
    pub(crate) tunnels: u64,
}

/// The result of each change of a command, in order.
pub type Results = Vec<Result<Outcome, Rejected>>;

/// A handle on the replica; cheap to clone.
#[derive(Clone)]
pub struct Store {
    state: Arc<RwLock<State>>,
    /// Locked after `state`, and written only while that is.
    changed_at: Arc<RwLock<ChangedAt>>,
    events: broadcast::Sender<Arc<Applied>>,
    revision: watch::Sender<u64>,
}

impl Store {
    /// An empty replica, and the state machine that Raft drives it with.
    pub fn new() -> (Store, Replica) {
        let store = Store {
            state: Arc::new(RwLock::new(State::new())),
            changed_at: Arc::default(),
            events: broadcast::Sender::new(EVENTS_KEPT),
            revision: watch::Sender::new(0),
        };
        (store.clone(), Replica { store })
    }

    /// The state as it is now. Hold it briefly: Raft waits.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic while writing would leave the replica half-changed, and `apply` does not panic.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state as it is now, and when its networks and tunnels changed. Hold it briefly: Raft waits.
    pub(crate) fn read_with_changes(
        &self,
    ) -> (RwLockReadGuard<'_, State>, RwLockReadGuard<'_, ChangedAt>) {
        (self.read(), self.changed_at.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes which networks a batch changed, and whether it changed tunnels. The state is locked for writing.
    fn note_changes(&self, state: &State, touched: &[Touched]) {
        let mut changed_at = self.changed_at.write().unwrap_or_else(PoisonError::into_inner);
        for network in affected::networks(state, touched) {
            changed_at.networks.insert(network, state.revision());
        }
        if affected::tunnels(state, touched) {
            changed_at.tunnels = state.revision();
        }
        changed_at.networks.retain(|network, _| state.network(network).is_some());
    }

    /// Hears of every change from now on.
    pub fn events(&self) -> broadcast::Receiver<Arc<Applied>> {
        self.events.subscribe()
    }

    /// Waits until the replica is at least at `revision`.
    pub async fn reached(&self, revision: u64) {
        let mut current = self.revision.subscribe();
        // The sender lives as long as `self`.
        let _ = current.wait_for(|at| *at >= revision).await;
    }

    /// The revision of the replica, as it grows.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn announce(&self, revision: u64, touched: Vec<Touched>) {
        self.revision.send_replace(revision);
        // Nobody may be listening.
        let _ = self.events.send(Arc::new(Applied { revision, touched }));
    }
}

/// Raft's end of a [`Store`].
pub struct Replica {
    store: Store,
}

impl StateMachine for Replica {
    fn apply(&mut self, batch: Vec<Committed>) -> Vec<Bytes> {
        let mut responses = Vec::with_capacity(batch.len());
        let mut touched = Vec::new();
        let revision = {
            let mut state = self.store.state.write().unwrap_or_else(PoisonError::into_inner);
            for entry in batch {
                let results = apply_one(&mut state, &entry, &mut touched);
                responses.push(codec::encode(&results).into());
            }
            self.store.note_changes(&state, &touched);
            state.revision()
        };
        self.store.announce(revision, touched);
        responses
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let state = self.store.read().clone();
        Box::new(move || state.to_snapshot())
    }

    fn restore(&mut self, revision: u64, bytes: &[u8]) -> Result<(), String> {
        let restored = State::from_snapshot(bytes).map_err(|e| e.to_string())?;
        let touched = everything(&restored);
        {
            let mut state = self.store.state.write().unwrap_or_else(PoisonError::into_inner);
            *state = restored;
            self.store.note_changes(&state, &touched);
        }
        self.store.announce(revision, touched);
        Ok(())
    }
}

fn apply_one(state: &mut State, entry: &Committed, touched: &mut Vec<Touched>) -> Results {
    match codec::decode::<Command>(&entry.command) {
        Ok(command) => {
            let (results, changed) = state.apply(entry.revision, command);
            touched.extend(changed);
            results
        }
        // The same on every manager of this version: it is an answer, not an accident.
        Err(e) => vec![Err(Rejected::Invalid(e.to_string()))],
    }
}

fn everything(state: &State) -> Vec<Touched> {
    let nodes = state.nodes().map(|node| Touched::Node(node.id.clone()));
    let networks = state.networks().map(|network| Touched::Network(network.id.clone()));
    let services = state.services().map(|service| Touched::Service(service.id.clone()));
    let tasks = state.tasks().map(|t| Touched::Task(t.id.clone(), t.service_id.clone()));
    nodes.chain(networks).chain(services).chain(tasks).chain([Touched::Cluster]).collect()
}
