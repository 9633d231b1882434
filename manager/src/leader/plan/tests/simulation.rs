//! Anything may happen in any order; the promises hold all along. Then nothing happens any more, and
//! all is as wanted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use swarm_model::{Availability, ServiceId, Task, TaskState, UpdateState};
use swarm_state::Change;

use super::world::{World, node, spec};

const SERVICES: [&str; 3] = ["api", "db", "web"];

#[derive(Debug, Clone)]
enum Event {
    /// The leader decides and its decision is applied.
    Lead,
    /// A task gets a step further.
    Work(usize),
    /// A task ends by itself.
    End(usize, TaskState),
    /// A node acknowledges, or lags from now on.
    Acknowledge(usize),
    Lag(usize),
    Kill(usize),
    Revive(usize),
    Offer(usize, Availability),
    Wait(u64),
    Scale(usize, u64),
    Update(usize),
    Remove(usize),
    Create(usize, u64, bool),
}

fn event() -> impl Strategy<Value = Event> {
    let ended =
        prop::sample::select(vec![TaskState::Failed, TaskState::Complete, TaskState::Rejected]);
    let (service, host) = (0usize..3, 0usize..4);
    use Availability::{Active, Drain, Pause};
    let availability = prop::sample::select(vec![Active, Active, Drain, Pause]);
    prop_oneof![
        12 => Just(Event::Lead),
        16 => any::<usize>().prop_map(Event::Work),
        2 => (any::<usize>(), ended).prop_map(|(task, state)| Event::End(task, state)),
        3 => host.clone().prop_map(Event::Acknowledge),
        2 => host.clone().prop_map(Event::Lag),
        1 => host.clone().prop_map(Event::Kill),
        1 => host.clone().prop_map(Event::Revive),
        2 => (host, availability).prop_map(|(n, availability)| Event::Offer(n, availability)),
        3 => (1u64..3000).prop_map(Event::Wait),
        2 => (service.clone(), 0u64..6).prop_map(|(s, n)| Event::Scale(s, n)),
        1 => service.clone().prop_map(Event::Update),
        1 => service.clone().prop_map(Event::Remove),
        3 => (service, 0u64..6, any::<bool>()).prop_map(|(s, n, net)| Event::Create(s, n, net)),
    ]
}

fn nth(world: &World, pick: usize) -> Option<Arc<Task>> {
    let placed = || world.state.tasks().filter(|t| !t.is_finished() && t.node_id.is_some());
    let at = pick.checked_rem(placed().count())?;
    placed().nth(at).cloned()
}

fn happen(world: &mut World, event: Event) {
    let exists = |world: &World, at: usize| world.state.service_named(SERVICES[at]).cloned();
    match event {
        Event::Lead => {
            world.round();
        }
        Event::Work(pick) => {
            if let Some(task) = nth(world, pick) {
                world.work(&task);
            }
        }
        Event::End(pick, state) => {
            if let Some(task) = nth(world, pick)
                .filter(|task| task.node_id.as_ref().is_some_and(|node| world.hosts[node].up))
            {
                world.report(&task.id, state);
            }
        }
        Event::Acknowledge(n) => {
            let revision = world.state.revision();
            let host = world.hosts.get_mut(&node(n)).unwrap();
            if host.up {
                (host.in_force, host.lags) = (revision, false);
            }
        }
        Event::Lag(n) => world.hosts.get_mut(&node(n)).unwrap().lags = true,
        Event::Kill(n) if world.hosts[&node(n)].up => world.kill(&node(n)),
        Event::Revive(n) if !world.hosts[&node(n)].up => world.revive(&node(n)),
        Event::Kill(_) | Event::Revive(_) => {}
        Event::Offer(n, availability) => world.availability(&node(n), availability),
        Event::Wait(millis) => world.advance(Duration::from_millis(millis)),
        Event::Scale(at, replicas) => {
            if let Some(service) = exists(world, at) {
                world.scale(service.id.as_str(), replicas);
            }
        }
        Event::Update(at) => {
            if let Some(service) = exists(world, at) {
                world.update(service.id.as_str(), |spec| spec.task_template.force_update += 1);
            }
        }
        Event::Remove(at) => {
            if let Some(service) = exists(world, at) {
                world.change(Change::RemoveService { id: service.id.clone() });
            }
        }
        Event::Create(at, replicas, net) => {
            if exists(world, at).is_none() {
                let networks: &[&str] = if net { &["net"] } else { &["net", "small"] };
                let id: ServiceId = format!("{}-{}", SERVICES[at], world.state.revision()).into();
                let spec = Box::new(spec(SERVICES[at], replicas, networks));
                // The small network may be full.
                world.apply(vec![Change::CreateService { id, spec }]);
            }
        }
    }
}

fn check(world: &World) {
    for service in world.state.services() {
        let wanted: Vec<Arc<Task>> =
            world.state.tasks_of(&service.id).filter(|task| task.holds_slot()).cloned().collect();
        let slots: BTreeSet<u64> = wanted.iter().map(|task| task.slot).collect();
        assert_eq!(slots.len(), wanted.len(), "two wanted tasks in one slot");
    }
}

/// Right after the leader's decision no more tasks are wanted than asked for.
fn check_count(world: &World) {
    for service in world.state.services() {
        let wanted = world.wanted(service.id.as_str()).len() as u64;
        assert!(wanted <= service.replicas(), "{wanted} of {} tasks", service.replicas());
    }
}

fn check_converged(world: &World) {
    for service in world.state.services() {
        assert!(!service.pending_delete, "{} was not purged", service.id);
        let id = service.id.as_str();
        let waits = world.wanted(id).iter().any(|task| task.status.state == TaskState::New);
        assert!(world.leaving(id).is_empty());
        assert_eq!(world.wanted(id).len() as u64, service.replicas());
        if waits {
            // The small network is full, and the task says so.
            assert_eq!(world.state.free_addresses(&"small".into()), 0);
            continue;
        }
        assert_eq!(world.running(id).len() as u64, service.replicas());
        let update = service.update_status.as_ref().map(|update| update.state);
        assert!(update != Some(UpdateState::Updating));
        let current = |task: &Arc<Task>| *task.spec == service.spec.task_template;
        assert!(update == Some(UpdateState::Paused) || world.running(id).iter().all(current));
        for slot in 1..=10 {
            let ended = world.state.tasks_of(&service.id).filter(|t| t.is_finished());
            assert!(ended.filter(|task| task.slot == slot).count() <= 5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_and_the_cluster_comes_to_rest(
        events in proptest::collection::vec(event(), 1..250),
    ) {
        let mut world = World::new(4);
        world.network("net", "10.9.0.0/24");
        world.network("small", "10.9.1.0/29");
        for event in events {
            let leads = matches!(event, Event::Lead);
            happen(&mut world, event);
            check(&world);
            if leads {
                check_count(&world);
            }
        }
        for n in 0..4 {
            let id = node(n);
            world.availability(&id, Availability::Active);
            world.hosts.get_mut(&id).unwrap().lags = false;
            if !world.hosts[&id].up || !world.is_alive(&id) {
                world.revive(&id);
            }
            world.hosts.get_mut(&id).unwrap().in_force = world.state.revision();
        }
        world.converge();
        check_converged(&world);
        // Then all is taken away, and nothing is left.
        let services: Vec<ServiceId> = world.state.services().map(|s| s.id.clone()).collect();
        for id in services {
            world.change(Change::RemoveService { id });
        }
        world.converge();
        prop_assert_eq!(world.state.services().count() + world.state.tasks().count(), 0);
        prop_assert_eq!(world.state.free_addresses(&"net".into()), 253);
        prop_assert_eq!(world.state.free_addresses(&"small".into()), 5);
    }
}
