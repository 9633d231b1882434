//! Single cases: spreading, scaling, restarts, dead nodes, full subnets, removal, history.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_model::{Availability, NodeState, RestartCondition, TaskState};
use swarm_state::Change;

use crate::leader::plan::Plan;

use super::world::{World, node, spec};

const SECOND: Duration = Duration::from_secs(1);

fn per_node(world: &World, id: &str) -> Vec<usize> {
    let mut count: BTreeMap<_, usize> = world.hosts.keys().map(|id| (id.clone(), 0)).collect();
    for task in world.running(id) {
        *count.entry(task.node_id.clone().unwrap()).or_default() += 1;
    }
    count.into_values().collect()
}

#[test]
fn a_fresh_service_is_spread_evenly() {
    for (nodes, replicas) in [(3, 3), (3, 7), (4, 2), (5, 50)] {
        let mut world = World::new(nodes);
        world.service(spec("other", 1, &[]));
        world.converge();
        world.service(spec("web", replicas, &[]));
        world.converge();
        let counts = per_node(&world, "web");
        assert_eq!(counts.iter().sum::<usize>() as u64, replicas);
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
    }
}

#[test]
fn a_task_is_on_a_node_from_the_plan_that_makes_it() {
    let mut world = World::new(3);
    world.encrypted_network("secret");
    world.service(spec("web", 6, &[]));
    world.service(spec("db", 3, &["secret"]));
    let plan = world.decide();
    world.apply(plan.changes);
    for (service, each) in [("web", 2), ("db", 1)] {
        let wanted = world.wanted(service);
        assert!(wanted.iter().all(|task| task.status.state == TaskState::Assigned));
        let on = |n| wanted.iter().filter(|task| task.node_id == Some(node(n))).count();
        assert_eq!([on(0), on(1), on(2)], [each; 3]);
    }
}

#[test]
fn scaling_down_keeps_the_spread_and_withdraws_first() {
    let mut world = World::new(3);
    world.network("net", "10.9.0.0/24");
    world.service(spec("web", 9, &["net"]));
    world.converge();
    world.hosts.get_mut(&node(2)).unwrap().lags = true;
    world.scale("web", 3);
    world.settle();
    assert_eq!((world.wanted("web").len(), world.leaving("web").len()), (3, 6));
    let told = |world: &World| {
        world.leaving("web").iter().filter(|t| t.desired_state == TaskState::Shutdown).count()
    };
    assert_eq!(told(&world), 0, "one node still sends to them");
    world.hosts.get_mut(&node(2)).unwrap().in_force = world.state.revision();
    world.settle();
    assert_eq!(told(&world), 6);
    world.hosts.get_mut(&node(2)).unwrap().lags = false;
    world.converge();
    assert_eq!(per_node(&world, "web"), [1, 1, 1]);
}

#[test]
fn a_node_that_comes_back_into_a_network_holds_a_withdrawal_up() {
    let mut world = World::new(3);
    world.network("net", "10.9.0.0/24");
    for name in ["web", "other", "third"] {
        world.service(spec(name, 1, &["net"]));
        world.converge();
    }
    let place = |world: &World, name: &str| world.running(name)[0].node_id.clone().unwrap();
    let (from, returning, late) =
        (place(&world, "web"), place(&world, "other"), place(&world, "third"));
    for node in [&returning, &late] {
        world.hosts.get_mut(node).unwrap().lags = true;
    }
    world.scale("web", 0);
    world.settle();
    // The last task of a node on the network ends; the next one will be there again.
    for node in [&from, &late] {
        world.availability(node, Availability::Pause);
    }
    let task = world.running("other")[0].id.clone();
    world.report(&task, TaskState::Failed);
    world.advance(10 * SECOND);
    let assigns = |plan: &Plan| {
        plan.changes
            .iter()
            .any(|c| matches!(c, Change::CreateTask { node: Some(node), .. } if *node == returning))
    };
    while !assigns(&world.peek()) {
        assert!(world.round(), "a replacement is made");
    }
    world.hosts.get_mut(&late).unwrap().in_force = world.state.revision();
    assert!(assigns(&world.peek()));
    world.round();
    let told = |world: &World| world.leaving("web")[0].desired_state == TaskState::Shutdown;
    assert!(!told(&world), "the node still sends to it what it knew");
    world.hosts.get_mut(&returning).unwrap().in_force = world.state.revision();
    world.settle();
    assert!(told(&world));
}

#[test]
fn a_dead_node_does_not_hold_a_withdrawal_up() {
    let mut world = World::new(2);
    world.network("net", "10.9.0.0/24");
    world.service(spec("web", 4, &["net"]));
    world.converge();
    world.kill(&node(1));
    world.scale("web", 1);
    world.settle();
    assert!(world.agenda.waiting().contains("web"));
    world.advance(3 * SECOND);
    world.converge();
    assert_eq!(world.running("web").len(), 1);
    assert!(world.leaving("web").is_empty());
}

#[test]
fn a_lost_nodes_tasks_are_replaced_in_the_next_plan() {
    let mut world = World::new(3);
    world.network("net", "10.9.0.0/24");
    world.service(spec("web", 6, &["net"]));
    world.converge();
    world.kill(&node(0));
    world.advance(2 * SECOND);
    world.settle();
    assert_eq!(world.wanted("web").len(), 6, "it was silent for no more than allowed");
    world.advance(SECOND);
    assert!(world.round());
    assert!(!world.is_alive(&node(0)));
    let lost = world.state.task_count(&node(0));
    let plan = world.decide();
    let created = plan.changes.iter().filter(|c| matches!(c, Change::CreateTask { .. })).count();
    assert_eq!((lost, created), (2, 2));
    world.apply(plan.changes);
    world.converge();
    assert_eq!(world.running("web").len(), 6);
    // It comes back: its old tasks are stopped, nothing else moves.
    let before: Vec<_> = world.running("web").iter().map(|task| task.id.clone()).collect();
    world.revive(&node(0));
    world.converge();
    assert!(world.leaving("web").is_empty());
    assert_eq!(world.running("web").iter().map(|t| t.id.clone()).collect::<Vec<_>>(), before);
}

#[test]
fn no_task_is_placed_on_a_node_that_the_same_plan_declares_dead() {
    let mut world = World::new(2);
    world.service(spec("web", 2, &[]));
    world.kill(&node(0));
    world.advance(3 * SECOND);
    let plan = world.decide();
    let on: Vec<_> = plan
        .changes
        .iter()
        .filter_map(|c| match c {
            Change::CreateTask { node, .. } => node.clone(),
            _ => None,
        })
        .collect();
    assert_eq!(on, [node(1), node(1)]);
}

#[test]
fn a_node_heard_of_long_after_its_death_is_ready_again_without_a_new_session() {
    let mut world = World::new(2);
    world.service(spec("web", 2, &[]));
    world.converge();
    world.kill(&node(0));
    world.advance(3 * SECOND);
    world.converge();
    assert!(!world.is_alive(&node(0)));
    // Heard again through its manager: its session went on.
    world.hosts.get_mut(&node(0)).unwrap().up = true;
    world.settle();
    assert!(!world.is_alive(&node(0)), "not yet: it has programmed nothing since");
    world.hosts.get_mut(&node(0)).unwrap().in_force = world.state.revision();
    world.advance(3 * SECOND);
    world.settle();
    assert!(world.is_alive(&node(0)));
}

#[test]
fn a_node_that_left_stays_down() {
    let mut world = World::new(2);
    world.set_node(&node(0), NodeState::Down);
    let revision = world.state.revision();
    world.kill(&node(0)); // heard of for the last time now, with all in force
    assert_eq!(world.hosts[&node(0)].in_force, revision);
    for _ in 0..20 {
        world.change(Change::AddNode {
            id: format!("other{}", world.state.revision()).as_str().into(),
            role: swarm_model::NodeRole::Worker,
            hostname: "other".into(),
            addr: String::new(),
            engine: Default::default(),
        });
        world.hosts.get_mut(&node(0)).unwrap().in_force = world.state.revision();
        world.settle();
        assert!(!world.is_alive(&node(0)));
        world.advance(SECOND / 4);
    }
}

#[test]
fn a_failed_task_is_replaced_after_its_delay_and_no_sooner() {
    let mut world = World::new(1);
    world.service(spec("web", 2, &[]));
    world.converge();
    let failed = world.running("web")[0].clone();
    world.report(&failed.id, TaskState::Failed);
    world.settle();
    assert_eq!(world.wanted("web").len(), 1);
    let wake = world.decide().wake_at.expect("time alone decides");
    assert!(wake <= world.now.plus(SECOND));
    world.advance(SECOND / 2);
    world.settle();
    assert_eq!(world.wanted("web").len(), 1);
    world.advance(SECOND / 2);
    world.settle();
    let slots: Vec<u64> = world.wanted("web").iter().map(|task| task.slot).collect();
    assert_eq!(slots.len(), 2);
    assert!(slots.contains(&failed.slot));
}

#[test]
fn the_restart_policy_is_kept() {
    use RestartCondition::{Any, None, OnFailure};
    let cases = [
        (None, TaskState::Failed, false),
        (None, TaskState::Complete, false),
        (OnFailure, TaskState::Complete, false),
        (OnFailure, TaskState::Failed, true),
        (OnFailure, TaskState::Rejected, true),
        (Any, TaskState::Complete, true),
        (Any, TaskState::Failed, true),
    ];
    for (condition, ended, restarted) in cases {
        let mut world = World::new(2);
        let mut service = spec("job", 2, &[]);
        service.task_template.restart_policy.condition = condition;
        world.service(service);
        world.converge();
        let task = world.running("job")[0].clone();
        world.report(&task.id, ended);
        world.converge();
        world.advance(60 * SECOND);
        world.converge();
        let expected = if restarted { 2 } else { 1 };
        assert_eq!(world.running("job").len(), expected, "{condition:?} {ended:?}");
        // The one that ended stands for one of those wanted.
        world.scale("job", 3);
        world.converge();
        assert_eq!(world.running("job").len(), expected + 1, "{condition:?} {ended:?}");
        world.scale("job", 1);
        world.converge();
        assert_eq!(world.state.tasks_of(&"job".into()).filter(|t| t.is_wanted()).count(), 1);
    }
}

#[test]
fn a_lost_task_is_replaced_though_a_surplus_slot_had_failed() {
    let mut world = World::new(2);
    let mut service = spec("web", 4, &[]);
    service.task_template.restart_policy.condition = RestartCondition::None;
    world.service(service);
    world.converge();
    let failed = world.running("web")[0].clone();
    world.report(&failed.id, TaskState::Failed);
    world.scale("web", 3);
    world.converge();
    assert_eq!(world.running("web").len(), 3);
    world.kill(&node(0));
    world.advance(3 * SECOND);
    world.converge();
    assert_eq!(world.running("web").len(), 3);
}

#[test]
fn a_task_without_an_address_waits_for_one() {
    let mut world = World::new(2);
    world.network("small", "10.9.0.0/29");
    world.service(spec("web", 7, &["small"]));
    world.converge();
    // Five addresses, one of which is the virtual one.
    assert_eq!(world.running("web").len(), 4);
    let new: Vec<_> = world.wanted("web");
    let new: Vec<_> = new.iter().filter(|t| t.status.state == TaskState::New).collect();
    assert_eq!(new.len(), 3);
    let reason = "no free address in network small (10.9.0.0/29)";
    assert!(new.iter().all(|task| task.status.err == reason));
    world.service(spec("other", 0, &[]));
    let gone = world.running("web")[0].clone();
    world.report(&gone.id, TaskState::Failed);
    world.settle();
    let pending = world.wanted("web");
    assert_eq!(pending.iter().filter(|t| t.status.state == TaskState::Assigned).count(), 1);
}

#[test]
fn without_a_node_a_task_says_why_and_waits() {
    let mut world = World::new(2);
    for n in 0..2 {
        world.set_node(&node(n), NodeState::Down);
        world.kill(&node(n));
    }
    world.service(spec("web", 1, &[]));
    world.settle();
    assert_eq!(world.wanted("web")[0].status.err, "no suitable node (2 nodes down)");
    world.revive(&node(1));
    world.converge();
    assert_eq!(world.running("web").len(), 1);
}

#[test]
fn a_removed_service_is_purged_with_its_last_task() {
    let mut world = World::new(2);
    world.network("net", "10.9.0.0/29");
    world.service(spec("web", 6, &["net"])); // two have no address
    world.converge();
    world.update("web", |spec| spec.task_template.force_update += 1);
    world.settle();
    world.change(Change::RemoveService { id: "web".into() });
    world.converge();
    assert!(world.state.service(&"web".into()).is_none());
    assert_eq!(world.state.tasks().count(), 0);
    assert_eq!(world.state.free_addresses(&"net".into()), 5);
    world.change(Change::RemoveNetwork { id: "net".into() });
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut world = World::new(1);
    world.service(spec("web", 1, &[]));
    for _ in 0..9 {
        world.converge();
        let task = world.running("web")[0].clone();
        world.report(&task.id, TaskState::Failed);
    }
    world.converge();
    assert_eq!(world.state.tasks_of(&"web".into()).count(), 1 + 5);
    world.scale("web", 0);
    world.converge();
    assert_eq!(world.state.tasks_of(&"web".into()).count(), 0);
}
