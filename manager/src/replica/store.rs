//! A manager's replica of the state: Raft writes it, everything else reads it and hears what changed.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::OrdMap;
use swarm_model::{NetworkId, codec};
use swarm_raft::{Committed, StateMachine};
use swarm_state::{Command, Envelope, OpenError, Outcome, Rejected, State, Touched, Written};
use tokio::sync::{broadcast, watch};

use crate::error::ApiError;
use crate::replica::affected;
use crate::replica::dialect::{Dialect, refuse_above};

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
    dialect: Arc<Dialect>,
    /// Why this replica has stopped, if it has: it was given what it cannot read.
    unreadable: Arc<OnceLock<String>>,
}

/// What readers are given: the state after a whole batch of commands.
struct Current {
    state: Arc<State>,
    changed_at: Arc<ChangedAt>,
}

impl Store {
    /// An empty replica of a manager that speaks so, and the state machine that Raft drives it with.
    pub fn new(dialect: Dialect) -> (Store, Replica) {
        let (state, changed_at) = (State::new(), ChangedAt::default());
        let current =
            Current { state: Arc::new(state.clone()), changed_at: Arc::new(changed_at.clone()) };
        let store = Store {
            current: Arc::new(ArcSwap::from_pointee(current)),
            events: broadcast::Sender::new(EVENTS_KEPT),
            revision: watch::Sender::new(0),
            dialect: Arc::new(dialect),
            unreadable: Arc::default(),
        };
        (store.clone(), Replica { store, state, changed_at })
    }

    /// What this manager speaks.
    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// Why this replica has stopped, in words; none if it goes on. It is older than the swarm's state then, for good,
    /// and nobody is to be told what is in it.
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.get().map(String::as_str)
    }

    /// Refuses who asks something of a replica that has stopped.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        match self.unreadable() {
            Some(why) => Err(ApiError::Precondition(why.to_owned())),
            None => Ok(()),
        }
    }

    /// Stops; returns why.
    fn stop(&self, error: &OpenError) -> String {
        let why = self.unreadable.get_or_init(|| error.to_string());
        tracing::error!("this manager stops: {why}");
        why.clone()
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
        let mut stopped = Ok(());
        for entry in batch {
            match apply_one(&mut self.state, &entry, &self.store.dialect, &mut touched) {
                Ok(results) => responses.push(codec::encode(&results).into()),
                // Others may have applied it: from here on this replica would be another.
                Err(error) => {
                    stopped = Err(self.store.stop(&error));
                    break;
                }
            }
        }
        self.publish(self.state.revision(), touched);
        stopped.map(|()| responses)
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let (state, dialect) = (self.state.clone(), Arc::clone(&self.store.dialect));
        Box::new(move || state.seal(&dialect.engine.engine_version))
    }

    fn restore(&mut self, revision: u64, bytes: &[u8]) -> Result<(), String> {
        let restored = State::open(bytes, &self.store.dialect.engine);
        self.state = restored.map_err(|error| self.store.stop(&error))?;
        self.changed_at.networks = OrdMap::new();
        self.publish(revision, everything(&self.state));
        Ok(())
    }
}

fn apply_one(
    state: &mut State,
    entry: &Committed,
    dialect: &Dialect,
    touched: &mut Vec<Touched>,
) -> Result<Results, OpenError> {
    let what = Written::Command(entry.revision);
    let (level, command) = Command::open(what, &entry.command, dialect.engine.feature_level)?;
    // Who proposes sees to it. This holds even if one does not: a node may know less than the managers do.
    if let Err(rejected) = refuse_above(state, level) {
        return Ok(vec![Err(rejected); command.changes.len()]);
    }
    let (results, changed) = state.apply(entry.revision, command);
    touched.extend(changed);
    let (speaks, needs) = (dialect.engine.feature_level, state.feature_level());
    if needs > speaks {
        let version = Envelope::read(&entry.command).map_or("", |envelope| envelope.version);
        return Err(OpenError::TooNew { what, speaks, needs, version: version.to_owned() });
    }
    Ok(results)
}

fn everything(state: &State) -> Vec<Touched> {
    let nodes = state.nodes().map(|node| Touched::Node(node.id.clone()));
    let networks = state.networks().map(|network| Touched::Network(network.id.clone()));
    let services = state.services().map(|service| Touched::Service(service.id.clone()));
    let tasks = state.tasks().map(|t| Touched::Task(t.id.clone(), t.service_id.clone()));
    nodes.chain(networks).chain(services).chain(tasks).chain([Touched::Cluster]).collect()
}

#[cfg(test)]
mod tests {
    use swarm_model::{EngineDescription, FeatureLevel, NodeRole, Timestamp};
    use swarm_state::Change;

    use super::*;

    fn level(number: u32) -> FeatureLevel {
        FeatureLevel::new(number).unwrap()
    }

    fn replica(speaks: u32) -> (Store, Replica) {
        let feature_level = level(speaks);
        let engine = EngineDescription { engine_version: format!("0.{speaks}"), feature_level };
        Store::new(Dialect { engine, ..Dialect::own() })
    }

    fn joins(id: &str) -> Change {
        let (role, hostname, addr) = (NodeRole::Worker, format!("host-{id}"), String::new());
        let engine = EngineDescription { feature_level: level(2), ..Default::default() };
        Change::AddNode { id: id.into(), role, hostname, addr, engine }
    }

    fn committed(revision: u64, needs: u32, changes: Vec<Change>) -> Committed {
        let command = Command { now: Timestamp(1), changes };
        Committed { revision, command: command.seal(level(needs), "0.2").into() }
    }

    fn results(answer: &Bytes) -> Results {
        codec::decode(answer).unwrap()
    }

    #[test]
    fn a_command_of_a_level_that_is_not_spoken_stops_the_replica_before_it() {
        let (store, mut replica) = replica(1);
        let batch = vec![
            committed(1, 1, vec![joins("a")]),
            committed(2, 2, vec![joins("b")]),
            committed(3, 1, vec![joins("c")]),
        ];
        let why = replica.apply(batch).unwrap_err();
        assert_eq!(
            why,
            "this manager speaks feature level 1, the swarm's log (at revision 2) needs 2 (written by swarmd 0.2): upgrade swarmd on this node"
        );
        assert_eq!(store.unreadable(), Some(&*why));
        let state = store.read();
        assert_eq!((state.revision(), state.nodes().count()), (1, 1), "what came before it counts");
        assert_eq!(store.check().unwrap_err().to_string(), why);
    }

    #[test]
    fn a_snapshot_of_a_level_that_is_not_spoken_stops_the_replica() {
        let mut state = State::new();
        let cluster = swarm_model::Cluster { feature_level: level(2), ..crate::support::cluster() };
        let changes = vec![Change::CreateCluster(Box::new(cluster)), joins("a")];
        state.apply(7, Command { now: Timestamp(1), changes });
        let (old, mut replica_of_old) = replica(1);
        let why = replica_of_old.restore(7, &state.seal("0.2")).unwrap_err();
        assert!(why.contains("the swarm's snapshot needs 2 (written by swarmd 0.2)"), "{why}");
        assert_eq!((old.unreadable(), old.read().revision()), (Some(&*why), 0));
        let (new, mut replica) = replica(2);
        replica.restore(7, &state.seal("0.2")).unwrap();
        assert_eq!(new.read().feature_level(), level(2));
        assert_eq!(replica.snapshot()(), state.seal("0.2"));
    }

    #[test]
    fn what_raises_the_level_may_stand_beside_other_changes() {
        let (store, mut replica) = replica(2);
        let describes = Change::DescribeNode {
            id: "a".into(),
            description: Box::new(swarm_model::NodeDescription {
                engine: EngineDescription { feature_level: level(2), ..Default::default() },
                ..Default::default()
            }),
            addr: String::new(),
        };
        let founds = Change::CreateCluster(Box::new(crate::support::cluster()));
        let raise = Change::RaiseFeatureLevel { level: level(2) };
        let batch = vec![
            committed(1, 1, vec![founds, joins("a"), describes]),
            committed(2, 1, vec![Change::RotateNetworkKeys, raise]),
        ];
        let answers = replica.apply(batch.clone()).unwrap();
        assert!(results(&answers[1])[1].is_ok(), "{:?}", results(&answers[1]));
        assert_eq!(store.read().feature_level(), level(2));

        let (old, mut replica_of_old) = self::replica(1);
        let why = replica_of_old.apply(batch).unwrap_err();
        assert!(why.contains("the swarm's log (at revision 2) needs 2"), "{why}");
        assert_eq!(old.unreadable(), Some(&*why));
    }

    #[test]
    fn a_raise_that_is_refused_ends_nobody() {
        let (store, mut replica) = replica(1);
        let founds = Change::CreateCluster(Box::new(crate::support::cluster()));
        let raise = Change::RaiseFeatureLevel { level: level(2) };
        let batch = vec![
            committed(1, 1, vec![founds, joins("a")]), // and never was there
            committed(2, 1, vec![raise]),
        ];
        let answers = replica.apply(batch).unwrap();
        assert!(matches!(results(&answers[1])[0], Err(Rejected::Level(_))));
        assert_eq!((store.unreadable(), store.read().feature_level()), (None, level(1)));
    }

    #[test]
    fn what_is_above_the_swarms_level_takes_no_effect() {
        let (store, mut replica) = replica(3);
        let batch = vec![
            committed(1, 1, vec![Change::CreateCluster(Box::new(crate::support::cluster()))]),
            committed(2, 2, vec![joins("a"), joins("b")]),
            committed(3, 1, vec![joins("c")]),
            committed(4, 2, vec![Change::RemoveNode { id: "c".into(), force: true }]),
        ];
        let answers = replica.apply(batch).unwrap();
        assert!(results(&answers[0])[0].is_ok() && results(&answers[2])[0].is_ok());
        for (at, changes) in [(1, 2), (3, 1)] {
            let refused = results(&answers[at]);
            assert_eq!(refused.len(), changes);
            assert!(matches!(&refused[0], Err(Rejected::Level(_))), "{refused:?}");
        }
        assert_eq!(store.read().nodes().map(|n| n.id.to_string()).collect::<Vec<_>>(), ["c"]);
    }
}
