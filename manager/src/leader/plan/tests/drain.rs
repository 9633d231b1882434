//! Drained nodes give their tasks up, and nobody notices: another task serves before one stops.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use swarm_model::{Availability, NodeId, Task, TaskId, TaskState};

use super::world::{World, node, spec};

/// Three nodes with six tasks in a network.
fn world() -> World {
    let mut world = World::new(3);
    world.network("net", "10.9.0.0/24");
    world.service(spec("web", 6, &["net"]));
    world.converge();
    world
}

/// Tasks that are in DNS and the balancers.
fn serving(world: &World) -> Vec<Arc<Task>> {
    let serves = |t: &&Arc<Task>| t.is_wanted() && t.status.state == TaskState::Running;
    world.state.tasks_of(&"web".into()).filter(serves).cloned().collect()
}

fn on(world: &World, id: &NodeId) -> usize {
    world.state.task_count(id)
}

/// Works in small steps until nothing happens; the least number of tasks that served at any time.
fn least_serving(world: &mut World) -> usize {
    let mut least = serving(world).len();
    for _ in 0..400 {
        let led = world.round();
        let tasks: Vec<Arc<Task>> = world.state.tasks().cloned().collect();
        let worked = tasks.iter().any(|task| world.work(task));
        least = least.min(serving(world).len());
        if !led && !worked {
            return least;
        }
    }
    panic!("no rest: {:?}", world.decide());
}

#[test]
fn a_drained_node_hands_over_before_it_stops() {
    let mut world = world();
    world.availability(&node(0), Availability::Drain);
    assert_eq!(least_serving(&mut world), 6, "a task stopped before another served");
    assert_eq!((on(&world, &node(0)), serving(&world).len()), (0, 6));
    let slots: BTreeSet<u64> = serving(&world).iter().map(|task| task.slot).collect();
    assert_eq!(slots, (1..=6).collect(), "slots moved");
    // Taken back, it gets nothing but what is new.
    world.availability(&node(0), Availability::Active);
    world.converge();
    assert_eq!(on(&world, &node(0)), 0);
    world.scale("web", 8);
    world.converge();
    assert_eq!(on(&world, &node(0)), 2);
}

#[test]
fn a_drained_node_serves_on_while_replacements_are_starting() {
    let mut world = world();
    world.availability(&node(0), Availability::Drain);
    let before: BTreeSet<TaskId> = serving(&world).iter().map(|task| task.id.clone()).collect();
    for _ in 0..100 {
        world.settle();
        let tasks: Vec<Arc<Task>> = world.state.tasks().cloned().collect();
        let starting = |task: &&Arc<Task>| task.status.state == TaskState::Starting;
        for task in tasks.iter().filter(|task| !starting(task)) {
            world.work(task);
        }
        world.advance(Duration::from_secs(1));
    }
    let now: BTreeSet<TaskId> = serving(&world).iter().map(|task| task.id.clone()).collect();
    assert_eq!((now, on(&world, &node(0))), (before, 2), "the old ones went first");
    assert_eq!(least_serving(&mut world), 6);
    assert_eq!((on(&world, &node(0)), serving(&world).len()), (0, 6));
}

#[test]
fn a_paused_node_keeps_its_tasks_and_takes_none() {
    let mut world = world();
    world.availability(&node(0), Availability::Pause);
    world.scale("web", 9);
    world.converge();
    assert_eq!((on(&world, &node(0)), serving(&world).len()), (2, 9));
}

#[test]
fn without_room_for_both_the_old_task_goes_first() {
    // No other node takes tasks.
    let mut world = World::new(2);
    world.network("net", "10.9.0.0/24");
    world.service(spec("web", 2, &["net"]));
    world.availability(&node(1), Availability::Drain);
    world.converge();
    world.availability(&node(0), Availability::Drain);
    world.converge();
    assert_eq!(on(&world, &node(0)), 0, "drained is drained");
    let waiting = world.wanted("web");
    assert!(waiting.iter().all(|task| task.status.err.contains("2 nodes drained")), "{waiting:?}");
    world.availability(&node(1), Availability::Active);
    world.converge();
    assert_eq!(on(&world, &node(1)), 2);

    // No address is free: six usable, less the gateway's and the VIP's.
    let mut world = World::new(2);
    world.network("net", "10.9.0.0/29");
    world.service(spec("web", 4, &["net"]));
    world.converge();
    world.availability(&node(0), Availability::Drain);
    assert!(least_serving(&mut world) >= 2);
    world.converge();
    assert_eq!((on(&world, &node(0)), serving(&world).len()), (0, 4));
}

#[test]
fn scaling_and_failing_while_a_node_is_drained() {
    let mut world = world();
    world.availability(&node(0), Availability::Drain);
    world.settle();
    assert_eq!((serving(&world).len(), world.wanted("web").len()), (6, 6));
    world.scale("web", 1);
    world.converge();
    assert_eq!(serving(&world).len(), 1, "what was superseded goes with its slot");
    assert_eq!(on(&world, &node(0)), 0);

    world.availability(&node(0), Availability::Active);
    world.scale("web", 6);
    world.converge();
    world.availability(&node(0), Availability::Drain);
    world.settle();
    let fresh: Vec<Arc<Task>> = world.wanted("web").into_iter().collect();
    for task in fresh.iter().filter(|task| task.status.state == TaskState::Assigned) {
        world.report(&task.id, TaskState::Rejected);
    }
    world.converge();
    assert_eq!((on(&world, &node(0)), serving(&world).len()), (0, 6));
}
