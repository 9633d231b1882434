//! No node whose view changed is forgotten.

use proptest::prelude::*;
use swarm_model::{NodeView, Timestamp};
use swarm_state::Command;

use super::*;
use crate::support;

fn views(state: &State) -> Vec<(NodeId, NodeView)> {
    // Nodes that were removed are told of it too.
    (0..4).map(support::node_id).map(|id| (id.clone(), state.node_view(&id))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// A miss is a stale data plane. `lag` commands are heard of at once, from the last one's
    /// state, as by a manager that was busy.
    #[test]
    fn no_node_whose_view_differs_is_missed(ops in support::ops(1..150), lag in 1usize..5) {
        let mut state = State::new();
        for batch in ops.chunks(lag) {
            let before = views(&state);
            let mut heard = BTreeSet::new();
            let mut touched = Vec::new();
            for op in batch {
                let revision = state.revision() + 1;
                let change = op.clone().resolve(&state);
                let now = Timestamp(revision as i64);
                touched.push(state.apply(revision, Command { now, changes: vec![change] }).1);
            }
            for touched in &touched {
                heard.extend(affected(&state, touched));
            }
            for ((node, before), (_, after)) in before.into_iter().zip(views(&state)) {
                prop_assert!(before == after || heard.contains(&node),
                    "{node} is not told after {batch:?}");
            }
        }
    }

    /// A manager that restored a snapshot hears that everything that is there was touched.
    #[test]
    fn a_restored_manager_tells_every_node(ops in support::ops(1..100)) {
        let mut state = State::new();
        for op in ops {
            let revision = state.revision() + 1;
            let changes = vec![op.resolve(&state)];
            state.apply(revision, Command { now: Timestamp(1), changes });
        }
        let all: Vec<Touched> = state.nodes().map(|n| Touched::Node(n.id.clone())).collect();
        let all_nodes: BTreeSet<NodeId> = state.nodes().map(|n| n.id.clone()).collect();
        prop_assert!(affected(&state, &all).is_superset(&all_nodes));
    }
}
