//! No node whose view changed is forgotten.

use proptest::prelude::*;
use swarm_model::{NodeView, TaskState, TaskStatus, Timestamp};
use swarm_state::{Change, Command};

use super::*;
use crate::support;

fn views(state: &State) -> Vec<(NodeId, NodeView)> {
    // Nodes that were removed are told of it too.
    (0..4).map(support::node_id).map(|id| (id.clone(), state.node_view(&id))).collect()
}

/// A batch of changes that must take effect, and whom it concerns.
fn concerned(state: &mut State, changes: Vec<Change>) -> (BTreeSet<NodeId>, BTreeSet<NetworkId>) {
    let revision = state.revision() + 1;
    let (results, touched) = state.apply(revision, Command { now: Timestamp(1), changes });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    (affected(state, &touched), networks(state, &touched))
}

#[test]
fn what_a_node_reports_it_is_not_told() {
    let mut state = State::new();
    concerned(&mut state, support::two_nodes_on_a_network());
    let report = |state| {
        let status = TaskStatus { state, ..TaskStatus::default() };
        vec![Change::ReportTask { id: support::task_id(0), status }]
    };
    let nobody = (BTreeSet::new(), BTreeSet::new());
    for on_its_way in [TaskState::Accepted, TaskState::Preparing, TaskState::Starting] {
        assert_eq!(concerned(&mut state, report(on_its_way)), nobody, "{on_its_way}");
    }
    let both: BTreeSet<NodeId> = [0, 1].map(support::node_id).into();
    let network = BTreeSet::from([support::network_id(0)]);
    // It can be called from now on.
    assert_eq!(concerned(&mut state, report(TaskState::Running)), (both, network));
    assert_eq!(concerned(&mut state, report(TaskState::Running)), nobody, "said again");
}

#[test]
fn who_comes_to_carry_a_network_or_no_longer_does_concerns_its_carriers() {
    let mut state = State::new();
    concerned(&mut state, support::two_nodes_on_a_network());
    let network = support::network_id(0);
    let status = TaskStatus { state: TaskState::Failed, ..TaskStatus::default() };
    let ended = vec![Change::ReportTask { id: support::task_id(1), status }];
    let (nodes, networks) = concerned(&mut state, ended);
    // The one that no longer carries it is to forget it.
    let both = BTreeSet::from([0, 1].map(support::node_id));
    assert_eq!((nodes, networks), (both.clone(), BTreeSet::from([network.clone()])));
    assert!(state.carriers(&network).eq([&support::node_id(0)]));

    let (id, service) = (support::task_id(2), support::service_id(0));
    let again = Change::CreateTask { id, service, slot: 1, node: Some(support::node_id(1)) };
    assert_eq!(concerned(&mut state, vec![again]).0, both);
    assert!(state.carriers(&network).eq(&both));
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
