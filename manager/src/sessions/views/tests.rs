//! What a node makes of the changes it is told is its view.

use proptest::prelude::*;
use swarm_model::{FeatureLevel, Timestamp, codec};
use swarm_raft::{Committed, StateMachine};
use swarm_state::{Change, Command};

use super::*;
use crate::replica::dialect::Dialect;
use crate::replica::store::{Replica, Results};
use crate::support;

/// A node that hears.
#[derive(Default)]
struct Listener {
    view: NodeView,
    told: Option<Told>,
}

impl Listener {
    fn hear(&mut self, views: &Views, node: &NodeId) {
        let (delta, told) = views.changes(node, self.told.as_ref());
        self.view.apply(delta);
        self.told = Some(told);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Each node hears now and then, bit by bit `hears`, and a new session begins now and then. At the end of each batch
    /// those that heard know what the state says.
    #[test]
    fn who_heard_knows(
        ops in support::ops(1..150), lag in 1usize..5,
        hears in prop::collection::vec(any::<u8>(), 1..150), forgets in prop::collection::vec(0u8..20, 1..150),
    ) {
        // Random logs raise the level.
        let dialect = Dialect { engine: support::engine(9), ..Dialect::own() };
        let (store, mut replica) = Store::new(dialect);
        let views = Views::new(store.clone());
        let mut nodes: Vec<_> = (0..4).map(|n| (support::node_id(n), Listener::default())).collect();
        for (at, batch) in ops.chunks(lag).enumerate() {
            for op in batch {
                let (revision, changes) = {
                    let state = store.read();
                    (state.revision() + 1, vec![op.clone().resolve(&state)])
                };
                let command = Command { now: Timestamp(revision as i64), changes };
                let command = command.seal(FeatureLevel::FIRST, "test").into();
                replica.apply(vec![Committed { revision, command }]).unwrap();
            }
            for (bit, (node, listener)) in nodes.iter_mut().enumerate() {
                if forgets[at % forgets.len()] == bit as u8 {
                    *listener = Listener::default();
                }
                if hears[at % hears.len()] & (1 << bit) != 0 {
                    listener.hear(&views, node);
                    prop_assert_eq!(&listener.view, &store.read().node_view(node), "after {:?}", batch);
                }
            }
        }
    }
}

/// Applies changes that must all take effect.
fn apply(replica: &mut Replica, revision: u64, changes: Vec<Change>) {
    let command = Command { now: Timestamp(1), changes };
    let command = command.seal(FeatureLevel::FIRST, "test").into();
    let answers = replica.apply(vec![Committed { revision, command }]).unwrap();
    for result in codec::decode::<Results>(&answers[0]).unwrap() {
        result.unwrap();
    }
}

#[test]
fn nodes_on_a_network_share_what_they_are_told_of_it() {
    let (store, mut replica) = Store::new(Dialect::own());
    let views = Views::new(store.clone());
    apply(&mut replica, 1, support::two_nodes_on_a_network());
    let [(_, a), (_, b)] = [0, 1].map(|n| views.changes(&support::node_id(n), None));
    assert_eq!(a.networks.len(), 1);
    let same =
        |a: &Told, b: &Told| a.networks.iter().all(|(id, c)| Arc::ptr_eq(c, &b.networks[id]));
    assert!(same(&a, &b), "worked out once");

    let withdraw = Change::WithdrawTask { id: support::task_id(0) };
    apply(&mut replica, 2, vec![withdraw]);
    let [(delta, a), (_, b)] =
        [(0, &a), (1, &b)].map(|(n, told)| views.changes(&support::node_id(n), Some(told)));
    assert_eq!(delta.upsert.len(), 1, "its endpoint; what the node is to do stays: {delta:?}");
    assert!(same(&a, &b));
    let (nothing, again) = views.changes(&support::node_id(0), Some(&a));
    assert!(nothing.is_empty() && same(&a, &again));
}
