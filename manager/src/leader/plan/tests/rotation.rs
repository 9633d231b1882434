//! Keys of encrypted networks: placement, and rotation under which no node is ever sent what it cannot read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use swarm_model::{Item, ItemKey, NodeId, Rotation, TunnelView};
use swarm_state::{Change, State};

use super::world::{World, node, spec};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A task of one service on each node, in an encrypted network.
fn encrypted(nodes: usize) -> World {
    let mut world = World::new(nodes);
    world.encrypted_network("safe");
    world.service(spec("web", nodes as u64, &["safe"]));
    world.converge();
    world
}

/// The generations of the ring, and the one sent with.
fn ring(world: &World) -> (Vec<u32>, u32) {
    let ring = world.state.key_ring();
    (ring.keys.iter().map(|key| key.generation).collect(), ring.sending)
}

#[test]
fn the_first_encrypted_network_makes_the_first_key() {
    let mut world = World::new(2);
    world.network("plain", "10.9.0.0/24");
    world.settle();
    assert_eq!(ring(&world), (vec![], 0));
    world.encrypted_network("safe");
    world.settle();
    assert_eq!(ring(&world), (vec![1], 1));
}

#[test]
fn keys_are_rotated_every_twelve_hours_in_three_steps() {
    let mut world = encrypted(3);
    let wake = world.decide().wake_at.expect("time alone decides");
    assert!(wake.since(world.now) <= Duration::from_secs(3));
    world.advance(12 * HOUR - MINUTE);
    world.settle();
    assert_eq!(ring(&world), (vec![1], 1), "too early");
    world.advance(MINUTE);
    world.hosts.get_mut(&node(0)).unwrap().lags = true;
    world.settle();
    assert_eq!(ring(&world), (vec![1, 2], 1), "node0 does not accept the new key yet");
    acknowledge(&mut world, 0);
    world.settle();
    assert_eq!(ring(&world), (vec![1, 2], 2), "the former is accepted for a while");
    world.advance(MINUTE);
    world.settle();
    assert_eq!(ring(&world), (vec![1, 2], 2), "node0 may still send with the former");
    acknowledge(&mut world, 0);
    world.settle();
    assert_eq!(ring(&world), (vec![2], 2));
}

/// Acknowledges the newest, once.
fn acknowledge(world: &mut World, n: usize) {
    world.hosts.get_mut(&node(n)).unwrap().in_force = world.state.revision();
}

#[test]
fn a_user_s_wish_is_not_lost_in_a_rotation() {
    let mut world = encrypted(2);
    world.change(Change::RotateNetworkKeys);
    world.settle();
    assert_eq!(ring(&world), (vec![1, 2], 2));
    world.change(Change::RotateNetworkKeys);
    world.settle();
    assert_eq!(ring(&world), (vec![1, 2], 2), "one at a time");
    world.advance(MINUTE);
    world.settle();
    assert_eq!(ring(&world), (vec![2, 3], 3));
    world.advance(MINUTE);
    world.settle();
    assert_eq!((ring(&world), world.decide().new_key), ((vec![3], 3), None));
}

#[test]
fn a_dead_node_or_one_without_esp_holds_up_no_rotation() {
    let mut world = encrypted(3);
    world.without_esp.insert(node(1));
    world.describe(&node(1));
    world.kill(&node(0));
    world.hosts.get_mut(&node(1)).unwrap().lags = true;
    world.change(Change::RotateNetworkKeys);
    world.settle();
    assert_eq!(ring(&world), (vec![1, 2], 1), "node0 may live");
    world.advance(3 * Duration::from_secs(1));
    world.settle();
    world.advance(MINUTE);
    world.settle();
    assert_eq!(ring(&world), (vec![2], 2));
}

#[test]
fn keys_of_a_swarm_that_encrypts_nothing_any_more_rest() {
    let mut world = encrypted(2);
    world.change(Change::RemoveService { id: "web".into() });
    world.converge();
    world.change(Change::RemoveNetwork { id: "safe".into() });
    world.advance(24 * HOUR);
    world.settle();
    assert_eq!(ring(&world), (vec![1], 1));
    world.encrypted_network("safe");
    world.settle();
    assert_eq!(ring(&world), (vec![1, 2], 2), "it does not begin with old ones");
}

#[test]
fn a_task_of_an_encrypted_network_goes_where_the_kernel_can_encrypt() {
    let mut world = World::new(3);
    world.encrypted_network("safe");
    world.network("plain", "10.9.0.0/24");
    let unable = |world: &mut World, nodes: &[usize]| {
        world.without_esp = nodes.iter().map(|n| node(*n)).collect();
        for n in 0..3 {
            world.describe(&node(n));
        }
    };
    unable(&mut world, &[0, 2]);
    world.service(spec("web", 3, &["plain", "safe"]));
    world.service(spec("open", 3, &["plain"]));
    world.converge();
    let places = |world: &World, service: &str| -> BTreeSet<NodeId> {
        world.running(service).iter().filter_map(|task| task.node_id.clone()).collect()
    };
    assert_eq!(places(&world, "web"), BTreeSet::from([node(1)]));
    assert_eq!(places(&world, "open").len(), 3);
    assert_eq!(world.running("web").len(), 3);
}

#[test]
fn a_task_that_no_kernel_can_encrypt_for_says_which_ones_cannot() {
    let mut world = World::new(6);
    world.encrypted_network("safe");
    let explain = |world: &mut World, able: &[usize]| {
        world.without_esp = (0..6).filter(|n| !able.contains(n)).map(node).collect();
        (0..6).for_each(|n| world.describe(&node(n)));
        world.settle();
        world.wanted("web")[0].status.err.clone()
    };
    world.without_esp = (0..6).map(node).collect();
    (0..6).for_each(|n| world.describe(&node(n)));
    world.service(spec("web", 1, &["safe"]));
    assert_eq!(
        explain(&mut world, &[]),
        "no suitable node (needs IPsec ESP, which the kernels of node0, node1, node2 and 3 more lack)"
    );
    for n in 0..4 {
        world.change(Change::RemoveNode { id: node(n), force: true });
        world.hosts.remove(&node(n));
    }
    world.settle();
    assert_eq!(
        world.wanted("web")[0].status.err,
        "no suitable node (needs IPsec ESP, which the kernels of node4 and node5 lack)"
    );
    world.kill(&node(5));
    world.advance(3 * Duration::from_secs(1));
    world.settle();
    assert_eq!(
        world.wanted("web")[0].status.err,
        "no suitable node (1 node down; needs IPsec ESP, which node4's kernel lacks)"
    );
    world.without_esp.clear();
    world.describe(&node(4));
    world.settle();
    assert_eq!(world.wanted("web")[0].node_id, Some(node(4)), "it waits for that");
}

/// What each node's kernel holds: the state as of what it acknowledged last.
#[derive(Default)]
struct Kernels(BTreeMap<NodeId, State>);

impl Kernels {
    fn note(&mut self, world: &World) {
        for (id, host) in &world.hosts {
            if host.up && host.in_force == world.state.revision() {
                self.0.insert(id.clone(), world.state.clone());
            }
        }
    }

    fn tunnel(&self, from: &NodeId, to: &NodeId) -> Option<TunnelView> {
        let view = self.0.get(from)?.node_view(from);
        match view.items.get(&ItemKey::Tunnel(to.clone())) {
            Some(Item::Tunnel(tunnel)) => Some(tunnel.clone()),
            _ => None,
        }
    }

    /// How many directions were checked.
    fn check(&self, world: &World) -> usize {
        let live: Vec<&NodeId> =
            world.hosts.keys().filter(|id| world.hosts[*id].up && world.is_alive(id)).collect();
        let mut checked = 0;
        for from in &live {
            for to in live.iter().filter(|to| *to != from) {
                let (Some(out), Some(back)) = (self.tunnel(from, to), self.tunnel(to, from)) else {
                    continue;
                };
                checked += 1;
                assert!(
                    back.receiving.contains(&out.sending),
                    "{from} sends to {to} with {:x}, which takes {:x?}",
                    out.sending.spi,
                    back.receiving.iter().map(|sa| sa.spi).collect::<Vec<_>>()
                );
            }
        }
        checked
    }
}

#[derive(Debug, Clone)]
enum Event {
    Lead,
    Acknowledge(usize),
    Lag(usize),
    Kill(usize),
    Revive(usize),
    Wait(u64),
    Rotate,
}

fn event() -> impl Strategy<Value = Event> {
    let host = 0usize..4;
    prop_oneof![
        12 => Just(Event::Lead),
        8 => host.clone().prop_map(Event::Acknowledge),
        4 => host.clone().prop_map(Event::Lag),
        1 => host.clone().prop_map(Event::Kill),
        1 => host.prop_map(Event::Revive),
        3 => (1u64..40_000).prop_map(Event::Wait),
        2 => Just(Event::Rotate),
    ]
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Lead => {
            world.round();
        }
        Event::Acknowledge(n) if world.hosts[&node(*n)].up => {
            acknowledge(world, *n);
            world.hosts.get_mut(&node(*n)).unwrap().lags = false;
        }
        Event::Lag(n) => world.hosts.get_mut(&node(*n)).unwrap().lags = true,
        Event::Kill(n) if world.hosts[&node(*n)].up => world.kill(&node(*n)),
        Event::Revive(n) if !world.hosts[&node(*n)].up => world.revive(&node(*n)),
        Event::Wait(seconds) => world.advance(Duration::from_secs(*seconds)),
        Event::Rotate => world.change(Change::RotateNetworkKeys),
        Event::Acknowledge(_) | Event::Kill(_) | Event::Revive(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_live_node_is_sent_what_it_cannot_read(
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let mut world = encrypted(4);
        let mut kernels = Kernels::default();
        kernels.note(&world);
        prop_assert_eq!(kernels.check(&world), 12);
        for event in events {
            happen(&mut world, &event);
            kernels.note(&world);
            kernels.check(&world);
            prop_assert!(world.state.key_ring().keys.len() <= 2);
        }
        for n in 0..4 {
            let id = node(n);
            world.hosts.get_mut(&id).unwrap().lags = false;
            if !world.hosts[&id].up || !world.is_alive(&id) {
                world.revive(&id);
            }
            acknowledge(&mut world, n);
        }
        let before = world.state.key_ring().sending;
        world.change(Change::RotateNetworkKeys);
        for _ in 0..4 {
            world.settle();
            kernels.note(&world);
            kernels.check(&world);
            world.advance(MINUTE);
        }
        prop_assert!(world.state.key_ring().sending > before);
        prop_assert_eq!(world.state.key_ring().rotation(), Rotation::Idle);
    }
}
