//! A manager's replica of the state: Raft writes it, everything else reads it and hears what changed.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::OrdMap;
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
#[derive(Debug, Clone, Default)]
pub(crate) struct ChangedAt {
    /// Of each network.
    pub(crate) networks: OrdMap<NetworkId, u64>,
    /// Of their tunnels to each other.
    pub(crate) tunnels: u64,
}

/// The result of each change of a command, in order.
pub type Results = Vec<Result<Outcome, Rejected>>;

/// A handle on the replica; cheap to clone.
#[derive(Clone)]
pub struct Store {
    current: Arc<ArcSwap<Current>>,
    events: broadcast::Sender<Arc<Applied>>,
    revision: watch::Sender<u64>,
}

/// What readers are given: the state after a whole batch of commands.
struct Current {
    state: Arc<State>,
    changed_at: Arc<ChangedAt>,
}

impl Store {
    /// An empty replica, and the state machine that Raft drives it with.
    pub fn new() -> (Store, Replica) {
        let (state, changed_at) = (State::new(), ChangedAt::default());
        let current =
            Current { state: Arc::new(state.clone()), changed_at: Arc::new(changed_at.clone()) };
        let store = Store {
            current: Arc::new(ArcSwap::from_pointee(current)),
            events: broadcast::Sender::new(EVENTS_KEPT),
            revision: watch::Sender::new(0),
        };
        (store.clone(), Replica { store, state, changed_at })
    }

    /// The state as it is now. It stays as it is, for as long as it is held, and keeps nobody waiting.
    pub fn read(&self) -> Arc<State> {
        Arc::clone(&self.current.load().state)
    }

    /// The state as it is now, and when its networks and tunnels changed.
    pub(crate) fn read_with_changes(&self) -> (Arc<State>, Arc<ChangedAt>) {
        let current = self.current.load_full();
        (Arc::clone(&current.state), Arc::clone(&current.changed_at))
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

impl ChangedAt {
    /// Notes which networks a batch changed, and whether it changed tunnels.
    fn note(&mut self, state: &State, touched: &[Touched]) {
        for network in affected::networks(state, touched) {
            if state.network(&network).is_some() {
                self.networks.insert(network, state.revision());
            } else {
                self.networks.remove(&network);
            }
        }
        if affected::tunnels(state, touched) {
            self.tunnels = state.revision();
        }
    }
}

/// Raft's end of a [`Store`].
pub struct Replica {
    store: Store,
    state: State,
    changed_at: ChangedAt,
}

impl Replica {
    /// Shows readers the state as it is now, and tells listeners what of it changed.
    fn publish(&mut self, revision: u64, touched: Vec<Touched>) {
        self.changed_at.note(&self.state, &touched);
        self.store.current.store(Arc::new(Current {
            state: Arc::new(self.state.clone()),
            changed_at: Arc::new(self.changed_at.clone()),
        }));
        self.store.announce(revision, touched);
    }
}

impl StateMachine for Replica {
    fn apply(&mut self, batch: Vec<Committed>) -> Result<Vec<Bytes>, String> {
        let mut responses = Vec::with_capacity(batch.len());
        let mut touched = Vec::new();
        for entry in batch {
            let results = apply_one(&mut self.state, &entry, &mut touched);
            responses.push(codec::encode(&results).into());
        }
        self.publish(self.state.revision(), touched);
        Ok(responses)
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let state = self.state.clone();
        Box::new(move || state.to_snapshot())
    }

    fn restore(&mut self, revision: u64, bytes: &[u8]) -> Result<(), String> {
        self.state = State::from_snapshot(bytes).map_err(|e| e.to_string())?;
        self.changed_at.networks = OrdMap::new();
        self.publish(revision, everything(&self.state));
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
