//! The feature level: the leader raises it by itself, when every node is there and speaks it, and not before.

use swarm_model::{FeatureLevel, NodeDescription, NodeState};
use swarm_state::Change;

use super::world::{World, node};
use crate::leader::plan::{Facts, plan};
use crate::support::{cluster, engine};

fn level(number: u32) -> FeatureLevel {
    FeatureLevel::new(number).unwrap()
}

fn describe(world: &mut World, n: usize, speaks: u32) {
    let (hostname, engine) = (format!("host-{n}"), engine(speaks));
    let description = Box::new(NodeDescription { hostname, engine, ..Default::default() });
    world.change(Change::DescribeNode { id: node(n), description, addr: String::new() });
}

/// What a leader that speaks this raises the level to.
fn raised(world: &World, speaks: u32) -> Option<FeatureLevel> {
    let facts = Facts { speaks: level(speaks), ..world.facts() };
    let plan = plan(&world.state, &facts, &[], &mut || unreachable!());
    let mut levels = plan.changes.iter().filter_map(|change| match change {
        Change::RaiseFeatureLevel { level } => Some(*level),
        _ => None,
    });
    let first = levels.next();
    assert_eq!(levels.next(), None);
    first
}

#[test]
fn the_leader_raises_what_nothing_holds_back() {
    let mut world = World::new(3);
    assert_eq!(raised(&world, 3), None, "there is no swarm");
    world.change(Change::CreateCluster(Box::new(cluster())));
    for (n, speaks) in [(0, 3), (1, 2), (2, 1)] {
        describe(&mut world, n, speaks);
    }
    assert_eq!(raised(&world, 3), None, "one speaks level 1");
    describe(&mut world, 2, 3);
    assert_eq!(raised(&world, 3), Some(level(2)));
    assert_eq!(raised(&world, 1), None, "not above the leader's own");
    let is = |state| Change::SetNodeState { id: node(1), state, message: String::new() };
    world.change(is(NodeState::Down));
    assert_eq!(raised(&world, 3), None, "it may come back with another version");
    world.change(is(NodeState::Ready));
    world.change(Change::RaiseFeatureLevel { level: level(2) });
    assert_eq!(raised(&world, 3), None, "it is done");
    world.change(Change::RemoveNode { id: node(1), force: true });
    assert_eq!(raised(&world, 3), Some(level(3)));
}
