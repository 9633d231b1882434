//! Rotation of the root: whoever leads ends it, when every node is there and not before.

use proptest::prelude::*;
use swarm_model::NodeId;
use swarm_state::Change;

use super::world::{World, node};
use crate::leader::plan::waiting_for;
use crate::support::{cluster, rotation, tls_info};

/// A swarm of nodes with certificates of its first root.
fn swarm(nodes: usize) -> World {
    let mut world = World::new(nodes);
    world.change(Change::CreateCluster(Box::new(cluster())));
    for n in 0..nodes {
        certify(&mut world, &node(n), "first");
    }
    world
}

fn certify(world: &mut World, id: &NodeId, key: &str) {
    world.change(Change::SetNodeTls { id: id.clone(), tls_info: tls_info(key) });
}

fn rotate(world: &mut World, key: &str) {
    let version = world.state.cluster().unwrap().meta.version.index;
    world.change(Change::RotateRoot(Box::new(rotation(version, key))));
}

/// The root in force, and whether another is to follow.
fn root(world: &World) -> (String, bool) {
    let cluster = world.state.cluster().unwrap();
    (cluster.root_ca.cert_pem.clone(), cluster.root_rotation.is_some())
}

/// A leader decides, from the state alone: it may be another one each time.
fn lead(world: &mut World) {
    for change in world.decide().changes {
        world.change(change);
    }
}

#[test]
fn a_node_that_is_down_holds_the_rotation_up_and_is_named_with_why() {
    let mut world = swarm(3);
    rotate(&mut world, "next");
    world.change(Change::SetNodeState {
        id: node(2),
        state: swarm_model::NodeState::Down,
        message: "not heard of".into(),
    });
    certify(&mut world, &node(0), "next");
    lead(&mut world);
    assert_eq!(root(&world), ("cert".into(), true));
    let names = [node(1).to_string(), format!("{} (not heard of)", node(2))];
    assert_eq!(waiting_for(&world.state), names);
    certify(&mut world, &node(1), "next");
    lead(&mut world);
    assert_eq!(root(&world), ("cert".into(), true));
    world.change(Change::RemoveNode { id: node(2), force: true });
    lead(&mut world);
    assert_eq!(root(&world), ("cert next".into(), false));
    assert_eq!(waiting_for(&world.state), Vec::<String>::new());
}

proptest! {
    #[test]
    fn a_rotation_ends_with_the_last_node_whatever_the_order(
        steps in proptest::collection::vec((0usize..6, 0usize..5), 0..60),
    ) {
        let mut world = swarm(4);
        let mut target = "first".to_owned();
        for (at, (kind, n)) in steps.into_iter().enumerate() {
            let id = node(n);
            let known = world.state.node(&id).is_some();
            match kind {
                0 => {
                    target = format!("root{at}");
                    rotate(&mut world, &target);
                }
                1 if known && world.state.nodes().count() > 1 => {
                    world.change(Change::RemoveNode { id, force: true });
                }
                2 if !known => world.change(Change::AddNode {
                    id,
                    role: swarm_model::NodeRole::Worker,
                    hostname: format!("host-{n}"),
                    addr: String::new(), engine: Default::default() }),
                3.. if known => certify(&mut world, &id, &target),
                _ => {}
            }
            let waits = world.state.without_next_certificate().next().is_some();
            let (before, rotating) = root(&world);
            lead(&mut world);
            let now = root(&world);
            if rotating && !waits {
                prop_assert_eq!(now, (format!("cert {target}"), false));
            } else {
                prop_assert_eq!(now, (before, rotating));
            }
        }
        for id in world.state.nodes().map(|node| node.id.clone()).collect::<Vec<_>>() {
            certify(&mut world, &id, &target);
        }
        lead(&mut world);
        prop_assert!(!root(&world).1);
    }
}
