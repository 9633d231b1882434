//! The swarm's feature level: what raises it, what holds it back, who is let in.

use swarm_model::{FeatureLevel, NodeDescription, NodeRole, NodeState, Timestamp};
use swarm_state::{Change, Command, Outcome, Rejected, State};

use crate::support::{cluster, engine};

fn level(number: u32) -> FeatureLevel {
    FeatureLevel::new(number).unwrap()
}

fn apply_one(state: &mut State, change: Change) -> Result<Outcome, Rejected> {
    let revision = state.revision() + 1;
    let command = Command { now: Timestamp(1), changes: vec![change] };
    state.apply(revision, command).0.remove(0)
}

fn join(state: &mut State, id: &str, speaks: u32) -> Result<Outcome, Rejected> {
    let (role, hostname, addr) = (NodeRole::Worker, format!("host-{id}"), String::new());
    let engine = engine(speaks);
    apply_one(state, Change::AddNode { id: id.into(), role, hostname, addr, engine })
}

fn describe(state: &mut State, id: &str, speaks: u32) -> Result<Outcome, Rejected> {
    let hostname = format!("host-{id}");
    let description = NodeDescription { hostname, engine: engine(speaks), ..Default::default() };
    let (description, addr) = (Box::new(description), String::new());
    apply_one(state, Change::DescribeNode { id: id.into(), description, addr })
}

fn is_there(state: &mut State, id: &str, now: NodeState) {
    let change = Change::SetNodeState { id: id.into(), state: now, message: String::new() };
    apply_one(state, change).unwrap();
}

fn raise(state: &mut State, to: u32) -> Result<Outcome, Rejected> {
    apply_one(state, Change::RaiseFeatureLevel { level: level(to) })
}

/// A cluster at level 1, with nodes that are there and speak these levels.
fn swarm(nodes: &[(&str, u32)]) -> State {
    let mut state = State::new();
    apply_one(&mut state, Change::CreateCluster(Box::new(cluster()))).unwrap();
    for (id, speaks) in nodes {
        join(&mut state, id, *speaks).unwrap();
        describe(&mut state, id, *speaks).unwrap();
    }
    state
}

#[test]
fn the_level_is_raised_once_all_are_there_and_speak_it() {
    let mut state = swarm(&[("a", 2), ("b", 1), ("c", 3)]);
    let refused = raise(&mut state, 2).unwrap_err().to_string();
    assert_eq!(
        refused,
        "the swarm cannot be at feature level 2, held back by host-b (swarmd 0.1, level 1)"
    );
    describe(&mut state, "b", 2).unwrap();
    assert!(raise(&mut state, 3).is_err(), "a and b do not speak it");
    is_there(&mut state, "c", NodeState::Down);
    let refused = raise(&mut state, 2).unwrap_err().to_string();
    assert!(refused.contains("held back by host-c (it is not there"), "{refused}");
    is_there(&mut state, "c", NodeState::Ready);
    raise(&mut state, 2).unwrap();
    assert_eq!(state.feature_level(), level(2));
    assert!(matches!(raise(&mut state, 2), Err(Rejected::OutOfDate(_))), "it is");
    assert!(matches!(raise(&mut state, 1), Err(Rejected::OutOfDate(_))), "never back");
    assert_eq!(State::from_snapshot(&state.to_snapshot()).unwrap().feature_level(), level(2));
}

#[test]
fn a_node_that_is_down_or_never_came_holds_the_level_back_until_it_is_removed() {
    let mut state = swarm(&[("a", 2), ("b", 2)]);
    join(&mut state, "c", 2).unwrap(); // and never was there
    is_there(&mut state, "b", NodeState::Down);
    let held = |state: &State| -> Vec<String> {
        state.holding_back(level(2)).map(|node| node.id.to_string()).collect()
    };
    assert_eq!(held(&state), ["b", "c"]);
    assert!(matches!(raise(&mut state, 2), Err(Rejected::Level(_))));
    for id in ["b", "c"] {
        apply_one(&mut state, Change::RemoveNode { id: id.into(), force: false }).unwrap();
    }
    raise(&mut state, 2).unwrap();
}

#[test]
fn nobody_below_the_level_is_let_in() {
    let mut state = swarm(&[("a", 2)]);
    raise(&mut state, 2).unwrap();
    let before = state.to_snapshot();
    let told =
        "this node speaks feature level 1 (swarmd 0.1), the swarm is at 2: upgrade swarmd on it";
    for refused in [join(&mut state, "b", 1), describe(&mut state, "a", 1)] {
        assert_eq!(refused, Err(Rejected::Level(told.into())));
    }
    assert_eq!(state.nodes().count(), 1);
    let unchanged = State::from_snapshot(&before).unwrap();
    assert_eq!(
        format!("{:?}", state.node(&"a".into())),
        format!("{:?}", unchanged.node(&"a".into()))
    );
    assert!(
        matches!(describe(&mut state, "x", 1), Err(Rejected::NotFound(_))),
        "removed is removed"
    );
    join(&mut state, "b", 3).unwrap();
    describe(&mut state, "a", 2).unwrap();
}

#[test]
fn a_swarm_begins_at_the_level_of_the_one_that_began_it() {
    let founding = swarm_model::Cluster { feature_level: level(3), ..cluster() };
    let founding = Change::CreateCluster(Box::new(founding));
    assert_eq!(founding.level(), level(3));
    let raise = Change::RaiseFeatureLevel { level: level(2) };
    assert_eq!(raise.level(), level(1), "it may be refused: all can read it");
    let mut state = State::new();
    apply_one(&mut state, founding).unwrap();
    assert_eq!(state.feature_level(), level(3));
}
