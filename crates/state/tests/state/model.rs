//! Whatever is asked of the state in whatever order, its promises hold after every change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::carry::check_carriers;
use crate::support::{Op, op, ops};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use swarm_model::{
    ItemKey, NetworkId, NodeId, NodeView, Service, ServiceId, Task, TaskId, TaskState, Timestamp,
    ipv4_net,
};
use swarm_state::{Change, Command, State};

/// A moment that differs from revision to revision.
fn command(revision: u64, changes: Vec<Change>) -> Command {
    Command { now: Timestamp(revision as i64 * 1_000_000_000), changes }
}

/// Applies one change at the next revision; true if it took effect.
fn apply(state: &mut State, change: Change) -> bool {
    let revision = state.revision() + 1;
    let before = state.clone();
    let (results, touched) = state.apply(revision, command(revision, vec![change]));
    assert_eq!(results.len(), 1);
    check_carriers(&before, state, &touched);
    assert!(results[0].is_ok() || touched.is_empty(), "a rejected change touched {touched:?}");
    results[0].is_ok()
}

fn run(ops: &[Op]) -> State {
    let mut state = State::new();
    for op in ops {
        let change = op.clone().resolve(&state);
        apply(&mut state, change);
    }
    state
}

/// The addresses in use in each network, by whom.
fn addresses(state: &State) -> BTreeMap<NetworkId, Vec<(IpAddr, String)>> {
    let mut used: BTreeMap<NetworkId, Vec<(IpAddr, String)>> = BTreeMap::new();
    for service in state.services() {
        for vip in &service.endpoint.virtual_ips {
            let user = format!("service {}", service.id);
            used.entry(vip.network_id.clone()).or_default().push((vip.addr.addr(), user));
        }
    }
    for task in state.tasks().filter(|task| !task.is_finished()) {
        for attachment in &task.networks_attachments {
            for addr in &attachment.addresses {
                let user = format!("task {}", task.id);
                used.entry(attachment.network.id.clone()).or_default().push((addr.addr(), user));
            }
        }
    }
    used
}

fn check_addresses(state: &State) {
    let used = addresses(state);
    for id in used.keys() {
        assert!(state.network(id).is_some(), "addresses of a network {id} that is gone");
    }
    for network in state.networks() {
        let used = used.get(&network.id).map(Vec::as_slice).unwrap_or_default();
        let distinct: BTreeSet<IpAddr> = used.iter().map(|(addr, _)| *addr).collect();
        assert_eq!(distinct.len(), used.len(), "an address twice in {}: {used:?}", network.id);
        let reserved = [network.gateway, network.subnet.network(), network.subnet.broadcast()];
        for (addr, user) in used {
            assert!(!reserved.contains(addr), "{user} has the reserved {addr}");
            assert!(network.ip_range.contains(addr), "{user} has {addr} out of range");
        }
        let range = ipv4_net("ip range", network.ip_range).unwrap();
        let usable = (u32::from(range.network())..=u32::from(range.broadcast()))
            .filter(|addr| !reserved.contains(&Ipv4Addr::from(*addr).into()))
            .count();
        assert_eq!(
            state.free_addresses(&network.id),
            (usable - used.len()) as u64,
            "an address of {} leaked",
            network.id
        );
    }
}

fn check_networks(state: &State) {
    let networks: Vec<_> = state.networks().collect();
    for (at, one) in networks.iter().enumerate() {
        for other in &networks[..at] {
            assert_ne!(one.vni, other.vni);
            assert_ne!(one.spec.name, other.spec.name);
            let overlap = one.subnet.contains(&other.subnet) || other.subnet.contains(&one.subnet);
            assert!(!overlap, "{} overlaps {}", one.subnet, other.subnet);
        }
        assert!((4097..1 << 24).contains(&one.vni));
        assert!(one.subnet.contains(&one.gateway));
    }
}

/// What the indexes say is what a walk over the tables says.
fn check_indexes(state: &State) {
    for node in state.nodes() {
        assert!(node.description.engine.feature_level >= state.feature_level(), "{node:?}");
    }
    for network in state.networks() {
        let id = &network.id;
        let holds = |s: &&Arc<Service>| {
            s.spec.task_template.networks.iter().any(|n| n.target == *id)
                || s.endpoint.virtual_ips.iter().any(|vip| vip.network_id == *id)
        };
        assert!(state.services_in(id).eq(state.services().filter(holds)));
        let here = |t: &&Arc<Task>| {
            !t.is_finished() && t.networks_attachments.iter().any(|a| a.network.id == *id)
        };
        assert!(state.tasks_in(id).eq(state.tasks().filter(here)));
        assert_eq!(state.network_named(&network.spec.name), Some(network));
    }
    for service in state.services() {
        let of = state.tasks().filter(|task| task.service_id == service.id);
        let mut of: Vec<_> = of.collect();
        of.sort_by_key(|task| (task.slot, &task.id));
        assert_eq!(state.count_of(&service.id), of.len());
        for slot in 0..5 {
            let in_slot = of.iter().copied().filter(|task| task.slot == slot);
            assert!(state.tasks_in_slot(&service.id, slot).eq(in_slot));
        }
        assert!(state.tasks_of(&service.id).eq(of));
        if !service.pending_delete {
            assert_eq!(state.service_named(&service.spec.name), Some(service));
        }
    }
    let nodes: BTreeSet<NodeId> = state.nodes().map(|n| n.id.clone()).collect();
    let placed = state.tasks().filter_map(|t| t.node_id.clone());
    for node in nodes.iter().cloned().chain(placed) {
        let here = |t: &&Arc<Task>| t.is_on(&node);
        let unfinished: Vec<_> = state.tasks().filter(here).filter(|t| !t.is_finished()).collect();
        assert_eq!(state.task_count(&node), unfinished.len());
        assert!(state.tasks_on(&node).eq(unfinished));
        assert!(state.ended_on(&node).eq(state.tasks().filter(here).filter(|t| t.is_finished())));
    }
    for task in state.tasks().filter(|task| !task.is_finished()) {
        let there = task.node_id.as_ref().is_none_or(|node| nodes.contains(node));
        assert!(there, "task {} is on a removed node", task.id);
    }
}

fn check_tasks(before: &State, after: &State) {
    for task in after.tasks() {
        assert!(after.service(&task.service_id).is_some(), "task {} is orphaned", task.id);
        let attached = task.networks_attachments.len() == task.spec.networks.len();
        assert!(attached || task.status.state == TaskState::New || task.is_finished());
        assert_eq!(
            task.node_id.is_none() && !task.is_finished(),
            task.status.state <= TaskState::Pending
        );
        let Some(former) = before.task(&task.id) else { continue };
        assert!(task.status.state >= former.status.state, "task {} went back", task.id);
        assert!(task.desired_state >= former.desired_state);
        assert!(former.node_id.is_none() || former.node_id == task.node_id);
        assert!(former.withdrawn.is_none() || former.withdrawn == task.withdrawn);
        assert!(former.superseded.is_none() || former.superseded == task.superseded);
        assert_eq!(former.spec, task.spec);
    }
    for service in after.services() {
        let wanted = after.tasks_of(&service.id).filter(|t| t.holds_slot());
        let slots: Vec<u64> = wanted.map(|task| task.slot).collect();
        assert_eq!(slots.iter().collect::<BTreeSet<_>>().len(), slots.len(), "a slot twice");
    }
}

/// A node is told of its own tasks and of the networks it carries: nothing else.
fn check_isolation(state: &State) {
    for node in state.nodes() {
        let view = state.node_view(&node.id);
        let told: BTreeSet<NetworkId> =
            view.items.keys().filter_map(ItemKey::network).cloned().collect();
        assert_eq!(told, state.carries(&node.id));
        assert!(view.tasks().all(|told| state.task(&told.id).is_some_and(|t| t.is_on(&node.id))));
        check_endpoints(state, &view);
    }
}

fn check_endpoints(state: &State, view: &NodeView) {
    for (key, item) in &view.items {
        let (ItemKey::Endpoint(network, task), swarm_model::Item::Endpoint(endpoint)) = (key, item)
        else {
            continue;
        };
        let task = state.task(task).unwrap();
        let ready = endpoint.state == swarm_model::EndpointState::Ready;
        let alive = state.node_of(task).is_some_and(|node| node.is_alive());
        let serves = alive && task.is_wanted() && task.status.state == TaskState::Running;
        assert_eq!(ready, serves, "traffic follows readiness: task {}", task.id);
        assert!(state.network(network).unwrap().ip_range.contains(&endpoint.addr));
    }
}

/// Each manager has a Raft id that no other had before.
fn check_managers(before: &State, after: &State) {
    let ids = |state: &State| -> BTreeMap<u64, NodeId> {
        let managers = state.nodes().filter_map(|node| {
            let manager = node.manager_status.as_ref()?;
            Some((manager.raft_id, node.id.clone()))
        });
        managers.collect()
    };
    let (former, now) = (ids(before), ids(after));
    assert_eq!(now.len(), after.nodes().filter(|n| n.manager_status.is_some()).count());
    let newest = former.keys().max().copied().unwrap_or(0);
    for (raft_id, node) in now {
        assert!(former.get(&raft_id) == Some(&node) || raft_id > newest, "{raft_id} is used again");
        assert!(raft_id < after.next_raft_id(), "{raft_id} would be used again");
    }
    for node in after.nodes().filter(|node| node.is_manager()) {
        assert!(node.manager_status.is_some(), "manager {} has no Raft id", node.id);
    }
}

fn check(before: &State, after: &State) {
    check_managers(before, after);
    check_addresses(after);
    check_networks(after);
    check_indexes(after);
    check_tasks(before, after);
    check_isolation(after);
}

/// Removes all there is.
fn remove_everything(state: &mut State) {
    let services: Vec<ServiceId> = state.services().map(|service| service.id.clone()).collect();
    let tasks: Vec<TaskId> = state.tasks().map(|task| task.id.clone()).collect();
    let nodes: Vec<NodeId> = state.nodes().map(|node| node.id.clone()).collect();
    for id in tasks {
        apply(state, Change::SetDesiredState { id, state: TaskState::Shutdown });
    }
    for id in nodes {
        assert!(apply(state, Change::RemoveNode { id, force: true }));
    }
    for id in services {
        apply(state, Change::RemoveService { id: id.clone() });
        assert!(apply(state, Change::PurgeService { id }));
    }
    check_addresses(state);
    assert!(addresses(state).is_empty());
    let networks: Vec<NetworkId> = state.networks().map(|network| network.id.clone()).collect();
    for id in networks {
        assert!(apply(state, Change::RemoveNetwork { id }));
    }
    assert_eq!(state.tasks().count(), 0);
}

/// The tests below prove little if most changes were rejected: each kind takes effect, often.
#[test]
fn random_logs_reach_every_kind_of_change() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut took_effect: BTreeMap<String, usize> = BTreeMap::new();
    let (mut ready, mut exhausted, mut tunnels) = (0, 0, 0);
    for _ in 0..300 {
        let mut state = State::new();
        for op in ops(120..200).new_tree(&mut runner).unwrap().current() {
            let change = op.resolve(&state);
            let text = format!("{change:?}");
            let kind = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            *took_effect.entry(kind.to_owned()).or_default() +=
                usize::from(apply(&mut state, change));
            ready += state.tasks().filter(|task| is_ready(&state, task)).count();
            let err = |task: &Arc<Task>| task.status.err.starts_with("no free address");
            exhausted += state.tasks().filter(|task| err(task)).count();
            let views = state.nodes().map(|node| state.node_view(&node.id));
            let tunnel = |key: &&ItemKey| matches!(key, ItemKey::Tunnel(_));
            tunnels += views.map(|view| view.items.keys().filter(tunnel).count()).sum::<usize>();
        }
    }
    assert_eq!(took_effect.len(), 37, "{took_effect:?}");
    assert!(took_effect.values().all(|count| *count >= 5), "{took_effect:?}");
    assert!(ready >= 100 && exhausted >= 100, "{ready} ready, {exhausted} without an address");
    assert!(tunnels >= 100, "{tunnels} tunnels");
}

fn is_ready(state: &State, task: &Task) -> bool {
    let attached = !task.networks_attachments.is_empty() && !task.is_finished();
    attached && state.endpoint_state(task) == swarm_model::EndpointState::Ready
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_after_every_change(ops in ops(1..120)) {
        let mut state = State::new();
        for op in ops {
            let before = state.clone();
            let change = op.resolve(&state);
            apply(&mut state, change);
            check(&before, &state);
        }
        remove_everything(&mut state);
    }

    #[test]
    fn a_rejected_change_leaves_no_trace(ops in ops(1..120)) {
        let mut state = State::new();
        for op in ops {
            let mut untouched = state.clone();
            let revision = state.revision() + 1;
            untouched.apply(revision, command(revision, vec![]));
            let change = op.resolve(&state);
            if !apply(&mut state, change) {
                prop_assert_eq!(state.to_snapshot(), untouched.to_snapshot());
                prop_assert_eq!(format!("{state:?}"), format!("{untouched:?}"));
            }
        }
    }

    #[test]
    fn a_batch_is_its_changes_one_after_the_other(ops in ops(1..60), size in 1usize..6) {
        let mut batched = State::new();
        let mut single = State::new();
        for (at, batch) in ops.chunks(size).enumerate() {
            let revision = at as u64 + 1;
            let mut changes = Vec::new();
            for op in batch {
                let change = op.clone().resolve(&single);
                changes.push(change.clone());
                single.apply(revision, command(revision, vec![change]));
            }
            batched.apply(revision, command(revision, changes));
        }
        prop_assert_eq!(batched.to_snapshot(), single.to_snapshot());
    }

    #[test]
    fn a_replayed_log_gives_the_same_snapshot(ops in ops(1..100)) {
        prop_assert_eq!(run(&ops).to_snapshot(), run(&ops).to_snapshot());
    }

    /// Restored replicas must allocate as the others do: cursors count. And a restore computes the
    /// indexes from the tables alone.
    #[test]
    fn a_restored_state_goes_on_as_the_original(
        ops in ops(1..100),
        more in proptest::collection::vec(op(), 0..40),
    ) {
        let mut original = run(&ops);
        let mut restored = State::from_snapshot(&original.to_snapshot()).unwrap();
        prop_assert_eq!(format!("{restored:?}"), format!("{original:?}"));
        prop_assert_eq!(restored.to_snapshot(), original.to_snapshot());
        for op in more {
            let (one, other) = (op.clone().resolve(&original), op.resolve(&restored));
            prop_assert_eq!(apply(&mut original, one), apply(&mut restored, other));
        }
        prop_assert_eq!(format!("{restored:?}"), format!("{original:?}"));
        prop_assert_eq!(restored.to_snapshot(), original.to_snapshot());
    }

    #[test]
    fn deltas_lead_from_view_to_view(ops in ops(1..120), node in 0u8..4) {
        let node = crate::support::node_id(node);
        let mut state = State::new();
        let mut held = NodeView::default();
        for op in ops {
            let change = op.resolve(&state);
            apply(&mut state, change);
            let view = state.node_view(&node);
            let delta = held.delta_to(&view, state.revision());
            prop_assert_eq!(delta.is_empty(), held == view);
            let bytes = swarm_model::codec::encode(&delta);
            held.apply(swarm_model::codec::decode(&bytes).unwrap());
            prop_assert_eq!(&held, &view);
        }
    }

    #[test]
    fn damaged_snapshots_are_refused_not_panicked_on(
        ops in ops(1..40),
        cut in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut bytes = run(&ops).to_snapshot();
        let at = cut.index(bytes.len());
        prop_assert!(State::from_snapshot(&bytes[..at]).is_err());
        let flip = flip.index(bytes.len());
        bytes[flip] ^= 1 << bit;
        // Raft's checksum refuses this before; here it only must not panic.
        let _ = State::from_snapshot(&bytes);
    }
}
