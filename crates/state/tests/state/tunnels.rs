//! The keys that nodes are told: each pair the same ones, nobody those of others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::support::{description, esp, network_id, node_id, ops, service_id, task_id};
use proptest::prelude::*;
use swarm_model::{
    ENCRYPTED_OPTION, EspKey, Item, ItemKey, NetworkAttachmentConfig, NetworkId, NetworkSecret,
    NetworkSpec, Node, NodeDescription, NodeId, NodeRole, NodeState, NodeView, Rotation,
    ServiceSpec, Timestamp, TunnelView, codec,
};
use swarm_state::{Change, Command, Outcome, Rejected, State};

fn apply(state: &mut State, change: Change) -> Result<Outcome, Rejected> {
    let revision = state.revision() + 1;
    let now = Timestamp(revision as i64 * 1_000);
    state.apply(revision, Command { now, changes: vec![change] }).0.remove(0)
}

fn tunnels(view: &NodeView) -> BTreeMap<NodeId, &TunnelView> {
    let tunnels = view.items.iter().filter_map(|(key, item)| match (key, item) {
        (ItemKey::Tunnel(peer), Item::Tunnel(tunnel)) => Some((peer.clone(), tunnel)),
        _ => None,
    });
    tunnels.collect()
}

/// The encrypted networks that a node has unfinished tasks in.
fn encrypted(state: &State, node: &NodeId) -> BTreeSet<NetworkId> {
    let tasks = state.tasks().filter(|task| task.is_on(node) && !task.is_finished());
    tasks
        .flat_map(|task| task.networks_attachments.iter().map(|a| a.network.id.clone()))
        .filter(|id| state.network(id).unwrap().is_encrypted())
        .collect()
}

fn address(node: &Node) -> Option<IpAddr> {
    node.description.data_path_addr.filter(|_| node.has_esp())
}

/// Whether two nodes can and must encrypt to each other; none if another node claims either's address.
fn must_share(state: &State, one: &Node, other: &Node) -> Option<bool> {
    let (Some(a), Some(b)) = (address(one), address(other)) else { return Some(false) };
    let disjoint = encrypted(state, &one.id).is_disjoint(&encrypted(state, &other.id));
    if disjoint || a.is_ipv4() != b.is_ipv4() || state.key_ring().keys.is_empty() || a == b {
        return Some(false);
    }
    let claims = |addr| state.nodes().filter(|node| address(node) == Some(addr)).count();
    (claims(a) == 1 && claims(b) == 1).then_some(true)
}

/// The pair, in the direction of the packets, that a key is for.
type Direction = (NodeId, NodeId);

fn check(state: &State) {
    let views: BTreeMap<NodeId, NodeView> =
        state.nodes().map(|node| (node.id.clone(), state.node_view(&node.id))).collect();
    let mut keys: BTreeMap<[u8; 20], (Direction, u32)> = BTreeMap::new();
    for (id, view) in &views {
        let told = tunnels(view);
        check_one(state, id, view, &told);
        for (peer, tunnel) in &told {
            let sends = ((id.clone(), peer.clone()), &tunnel.sending);
            let takes = tunnel.receiving.iter().map(|sa| ((peer.clone(), id.clone()), sa));
            for (direction, sa) in takes.chain([sends]) {
                let EspKey(bytes) = sa.key;
                let known = keys.entry(bytes).or_insert((direction.clone(), sa.spi));
                assert_eq!(*known, (direction, sa.spi), "one key, one use");
            }
            let Some(back) = tunnels(&views[peer]).get(id).copied() else { continue };
            assert!(back.receiving.contains(&tunnel.sending), "{peer} takes what {id} sends");
        }
    }
}

fn check_one(state: &State, id: &NodeId, view: &NodeView, told: &BTreeMap<NodeId, &TunnelView>) {
    let node = state.node(id).unwrap();
    for other in state.nodes().filter(|other| other.id != *id) {
        let has = told.contains_key(&other.id);
        match must_share(state, node, other) {
            Some(must) => assert_eq!(has, must, "{id} to {}", other.id),
            None => assert!(!has || !encrypted(state, id).is_empty()),
        }
    }
    assert!(!told.contains_key(id));
    let spis: Vec<u32> =
        told.values().flat_map(|tunnel| tunnel.receiving.iter().map(|sa| sa.spi)).collect();
    assert_eq!(spis.iter().collect::<BTreeSet<_>>().len(), spis.len(), "an index twice at {id}");
    assert!(spis.iter().all(|spi| *spi >= 1 << 31));
    let reqids: BTreeSet<u32> = told.values().map(|tunnel| tunnel.reqid).collect();
    assert!(reqids.len() == told.len() && !reqids.contains(&0));
    let addresses: BTreeSet<IpAddr> = told.values().map(|tunnel| tunnel.vtep).collect();
    assert_eq!(addresses.len(), told.len(), "two tunnels to one address");
    let ring = state.key_ring();
    for tunnel in told.values() {
        assert_eq!(tunnel.incarnation, node.description.encryption.incarnation);
        assert_eq!(tunnel.receiving.len(), ring.keys.len());
    }
    let text = codec::encode(view);
    for key in &ring.keys {
        let secret = codec::encode(&key.secret);
        assert!(!text.windows(secret.len()).any(|part| part == secret), "{id} is told a secret");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn each_pair_has_the_same_keys_and_nobody_others(ops in ops(1..150)) {
        let mut state = State::new();
        for op in ops {
            let change = op.resolve(&state);
            if apply(&mut state, change).is_ok() {
                check(&state);
            }
        }
    }

    #[test]
    fn ordinals_are_never_reused(ops in ops(1..150)) {
        let mut state = State::new();
        let mut owners: BTreeMap<u32, (NodeId, Timestamp)> = BTreeMap::new();
        for op in ops {
            let change = op.resolve(&state);
            let _ = apply(&mut state, change);
            for node in state.nodes().filter(|node| node.ordinal != 0) {
                let owner = (node.id.clone(), node.meta.created_at);
                let known = owners.entry(node.ordinal).or_insert_with(|| owner.clone());
                prop_assert_eq!(&*known, &owner, "ordinal {} twice", node.ordinal);
            }
            let numbered = state.nodes().all(|node| node.ordinal != 0);
            prop_assert!(numbered || state.key_ring().keys.is_empty());
        }
    }

    #[test]
    fn generations_only_go_forward_and_never_pile_up(ops in ops(1..150)) {
        let mut state = State::new();
        for op in ops {
            let before = state.key_ring().clone();
            let change = op.resolve(&state);
            let _ = apply(&mut state, change);
            let ring = state.key_ring();
            prop_assert!(ring.keys.len() <= 2);
            prop_assert!(ring.keys.is_empty() || ring.key(ring.sending).is_some());
            prop_assert!(ring.sending >= before.sending);
            let newest = |ring: &swarm_model::KeyRing| ring.newest().map(|key| key.generation);
            prop_assert!(newest(ring) >= newest(&before));
            prop_assert!(ring.keys.is_sorted_by_key(|key| key.generation));
        }
    }
}

/// Three nodes with a task each in an encrypted network, and the first key.
fn three() -> State {
    let mut state = State::new();
    let mut ok = |change| apply(&mut state, change).map(|_| ()).unwrap();
    let mut spec =
        NetworkSpec { name: "safe".into(), driver: "overlay".into(), ..NetworkSpec::default() };
    spec.options.insert(ENCRYPTED_OPTION.into(), String::new());
    ok(Change::CreateNetwork { id: network_id(0), spec });
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.task_template.container_spec.image = "busybox".into();
    spec.task_template.networks =
        vec![NetworkAttachmentConfig { target: network_id(0), aliases: vec![] }];
    ok(Change::CreateService { id: service_id(0), spec: Box::new(spec) });
    for n in 0..3 {
        let (role, hostname, addr) = (NodeRole::Worker, format!("host-{n}"), String::new());
        ok(Change::AddNode { id: node_id(n), role, hostname, addr, engine: Default::default() });
        let slot = u64::from(n) + 1;
        ok(Change::CreateTask { id: task_id(n), service: service_id(0), slot, node: None });
        ok(Change::AssignTask { id: task_id(n), node: node_id(n) });
    }
    ok(Change::AddNetworkKey { generation: 1, secret: NetworkSecret([1; 32]) });
    for n in 0..3 {
        describe(&mut state, n, 1);
    }
    state
}

fn describe(state: &mut State, n: u8, incarnation: u64) {
    let encryption = esp(incarnation);
    let description = NodeDescription { encryption, ..description(n, 1500, false, vec![]) };
    let description = Box::new(description);
    let change = Change::DescribeNode { id: node_id(n), description, addr: String::new() };
    apply(state, change).unwrap();
}

fn tunnel(state: &State, from: u8, to: u8) -> TunnelView {
    let view = state.node_view(&node_id(from));
    tunnels(&view)[&node_id(to)].clone()
}

#[test]
fn three_nodes_have_six_keys() {
    let mut state = three();
    check(&state);
    let keys = |state: &State| {
        let told = (0..3u8)
            .flat_map(|from| (0..3).filter(move |to| *to != from).map(move |to| (from, to)));
        told.map(|(from, to)| tunnel(state, from, to).sending.key.0).collect::<BTreeSet<_>>()
    };
    let former = keys(&state);
    assert_eq!(former.len(), 6);
    apply(&mut state, Change::AddNetworkKey { generation: 2, secret: NetworkSecret([2; 32]) })
        .unwrap();
    assert_eq!(keys(&state), former);
    apply(&mut state, Change::SendWithNetworkKey { generation: 2 }).unwrap();
    check(&state);
    assert!(keys(&state).is_disjoint(&former));
}

#[test]
fn a_host_that_left_and_joined_again_has_one_tunnel() {
    let mut state = three();
    // Node 2 is what node 1 was before: it has its address.
    let encryption = esp(1);
    let taken = NodeDescription { encryption, ..description(1, 1500, false, vec![]) };
    let taken = Box::new(taken);
    let change = Change::DescribeNode { id: node_id(2), description: taken, addr: String::new() };
    apply(&mut state, change).unwrap();
    for gone in [1, 2] {
        for n in [1, 2] {
            let to = if n == gone { NodeState::Down } else { NodeState::Ready };
            let change = Change::SetNodeState { id: node_id(n), state: to, message: String::new() };
            apply(&mut state, change).unwrap();
        }
        let view = state.node_view(&node_id(0));
        let peers: Vec<NodeId> = tunnels(&view).into_keys().collect();
        assert_eq!(peers, [node_id(3 - gone)]);
        check(&state);
    }
}

#[test]
fn a_kernel_that_lost_its_keys_gets_others_for_both_directions() {
    let mut state = three();
    let before = [tunnel(&state, 0, 1), tunnel(&state, 1, 0)];
    let bystander = tunnel(&state, 1, 2);
    describe(&mut state, 0, 2);
    let after = [tunnel(&state, 0, 1), tunnel(&state, 1, 0)];
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.sending.spi >> 7, after.sending.spi >> 7);
        assert_ne!(before.sending.spi, after.sending.spi);
        assert_ne!(before.sending.key, after.sending.key);
        assert_ne!(before.receiving, after.receiving);
    }
    assert_eq!((before[0].incarnation, after[0].incarnation), (1, 2));
    assert_eq!(tunnel(&state, 1, 2), bystander);
}

#[test]
fn a_node_without_esp_is_told_no_key_and_nobody_one_for_it() {
    let mut state = three();
    let description = Box::new(description(0, 1500, false, vec![]));
    let change = Change::DescribeNode { id: node_id(0), description, addr: String::new() };
    apply(&mut state, change).unwrap();
    assert!(tunnels(&state.node_view(&node_id(0))).is_empty());
    assert_eq!(
        tunnels(&state.node_view(&node_id(1))).into_keys().collect::<Vec<_>>(),
        [node_id(2)]
    );
}

#[test]
fn a_rotation_adds_sends_and_removes() {
    let mut state = three();
    let spis = |state: &State| {
        let tunnel = tunnel(state, 0, 1);
        let generation = |spi: u32| spi >> 7 & 0xf;
        let accepted = tunnel.receiving.iter().map(|sa| generation(sa.spi));
        (generation(tunnel.sending.spi), accepted.collect::<Vec<u32>>())
    };
    let first = tunnel(&state, 0, 1).receiving[0].clone();
    let refused = |state: &mut State, change| apply(state, change).unwrap_err().to_string();
    let add = |generation| Change::AddNetworkKey { generation, secret: NetworkSecret([2; 32]) };
    assert_eq!(spis(&state), (1, vec![1]));
    assert!(refused(&mut state, add(3)).contains("out of date"), "none is left out");
    apply(&mut state, Change::RotateNetworkKeys).unwrap();
    assert!(state.key_ring().rotation_requested);
    apply(&mut state, add(2)).unwrap();
    assert!(!state.key_ring().rotation_requested);
    assert_eq!(spis(&state), (1, vec![1, 2]));
    assert_eq!(tunnel(&state, 0, 1).receiving[0], first);
    assert_eq!(state.key_ring().rotation(), Rotation::Announced(2, state.revision()));
    assert!(refused(&mut state, add(3)).contains("out of date"), "one rotation at a time");
    let remove = |generation| Change::RemoveNetworkKey { generation };
    assert!(refused(&mut state, remove(1)).contains("out of date"), "nodes send with it");
    apply(&mut state, Change::SendWithNetworkKey { generation: 2 }).unwrap();
    assert_eq!(spis(&state), (2, vec![1, 2]));
    assert_eq!(state.key_ring().rotation(), Rotation::Retiring(1, state.revision()));
    assert!(refused(&mut state, remove(2)).contains("out of date"), "nodes send with it");
    apply(&mut state, remove(1)).unwrap();
    assert_eq!(spis(&state), (2, vec![2]));
    assert_eq!(state.key_ring().rotation(), Rotation::Idle);
}

#[test]
fn what_is_not_encrypted_has_no_key_to_rotate() {
    let mut state = State::new();
    let refused = apply(&mut state, Change::RotateNetworkKeys).unwrap_err();
    assert!(refused.to_string().contains("no network was encrypted"), "{refused}");
}

#[test]
fn encrypted_networks_have_a_port_and_an_mtu_of_their_own() {
    let state = three();
    let view = state.node_view(&node_id(0));
    let Some(Item::Network(network)) = view.items.get(&ItemKey::Network(network_id(0))) else {
        panic!("no network");
    };
    assert_eq!((network.port, network.mtu, network.encrypted), (4790, 1416, true));
}
