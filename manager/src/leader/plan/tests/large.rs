//! However large a service is, each plan is small, others have their turn, and nodes are looked at: what is counted here
//! are rounds of the leader, not time.

use std::time::Duration;

use swarm_model::{Availability, ServiceId, TaskState, codec};
use swarm_state::Change;

use super::world::{World, node, spec};
use crate::leader::agenda::rest;
use crate::leader::plan::{MOST_CHANGES, SHARE};
use crate::replica::pieces::pieces;

const SECOND: Duration = Duration::from_secs(1);
/// What a follower applies in one step, in bytes: the size that commands are cut to, and what is around the changes.
const LARGEST_STEP: usize = 257 << 10;
/// More rounds than any of these swarms needs.
const PATIENCE: usize = 600;

/// Decides and applies once, and checks how much that was. Gives how many changes were of this service.
fn round(world: &mut World, large: &str) -> usize {
    let plan = world.decide();
    assert!(plan.changes.len() <= MOST_CHANGES + world.hosts.len());
    let of_large =
        plan.changes.iter().filter(|change| service_of(world, change) == Some(large.into()));
    let count = of_large.count();
    assert!(count <= SHARE, "{count} changes of one service");
    for piece in pieces(plan.changes) {
        assert!(codec::encode(&piece).len() <= LARGEST_STEP);
        for result in world.apply(piece) {
            assert_eq!(result, None);
        }
    }
    // What a large service needs of the leader's time is not all of it.
    world.advance(SECOND / 100);
    count
}

/// The service that a change is of; none if it is of a node.
fn service_of(world: &World, change: &Change) -> Option<ServiceId> {
    match change {
        Change::CreateTask { service, .. } => Some(service.clone()),
        Change::AssignTask { id, .. }
        | Change::StopTask { id, .. }
        | Change::ExplainTask { id, .. }
        | Change::WithdrawTask { id }
        | Change::RemoveTask { id } => Some(world.state.task(id).unwrap().service_id.clone()),
        Change::SetNodeState { .. } => None,
        other => panic!("{other:?}"),
    }
}

/// Rounds until `done`.
#[track_caller]
fn rounds(world: &mut World, large: &str, done: impl Fn(&World) -> bool) -> usize {
    for rounds in 0..PATIENCE {
        if done(world) {
            return rounds;
        }
        round(world, large);
    }
    panic!("not done in {PATIENCE} rounds");
}

/// A small service, and a large one that is to have as many tasks; nothing has been decided yet.
fn swarm(nodes: usize, replicas: u64) -> World {
    let mut world = World::new(nodes);
    world.network("net", "10.0.0.0/8");
    world.service(spec("small", 1, &["net"]));
    world.settle();
    world.service(spec("large", replicas, &["net"]));
    world
}

/// All tasks of the large service run.
fn run_all(world: &mut World) {
    let wanted = world.get("large").replicas() as usize;
    rounds(world, "large", |world| placed(world, "large") == wanted);
    for task in world.wanted("large") {
        world.report(&task.id, TaskState::Running);
    }
}

fn placed(world: &World, id: &str) -> usize {
    world.wanted(id).iter().filter(|task| task.node_id.is_some()).count()
}

/// In the middle of whatever the large service needs: another one is scaled and a dead node declared, within few rounds.
fn others_have_their_turn(world: &mut World, dies: usize) {
    let replicas = world.get("small").replicas() + 3;
    world.scale("small", replicas);
    let scaled = rounds(world, "large", |world| placed(world, "small") == replicas as usize);
    assert!(scaled <= 3, "the small service was scaled after {scaled} rounds");
    world.kill(&node(dies));
    world.advance(3 * SECOND);
    let dead = rounds(world, "large", |world| !world.is_alive(&node(dies)));
    assert_eq!(dead, 1, "a dead node was declared late");
}

#[test]
fn a_service_of_twenty_thousand_tasks_comes_in_small_plans() {
    let mut world = swarm(20, 20_000);
    for _ in 0..5 {
        assert_eq!(round(&mut world, "large"), SHARE, "it is not slower than it may be");
    }
    others_have_their_turn(&mut world, 0);
    run_all(&mut world);
    let most = (1..20).map(|n| world.state.task_count(&node(n))).max().unwrap();
    let least = (1..20).map(|n| world.state.task_count(&node(n))).min().unwrap();
    assert!(most - least <= 1, "{least} to {most} tasks on a node");
}

#[test]
fn a_service_of_a_hundred_thousand_tasks_holds_up_nobody() {
    let mut world = swarm(5, 100_000);
    for _ in 0..20 {
        round(&mut world, "large");
    }
    others_have_their_turn(&mut world, 0);
    for _ in 0..5 {
        assert!(round(&mut world, "large") > 0, "it goes on");
    }
}

#[test]
fn ten_thousand_tasks_that_are_lost_at_once_are_replaced_in_small_plans() {
    let mut world = swarm(3, 15_000);
    run_all(&mut world);
    for n in [0, 1] {
        world.kill(&node(n));
    }
    world.advance(3 * SECOND);
    round(&mut world, "large");
    assert!(!world.is_alive(&node(0)) && !world.is_alive(&node(1)));
    world.revive(&node(1)); // it stops what it has, and takes new tasks
    others_have_their_turn(&mut world, 1);
    rounds(&mut world, "large", |world| placed(world, "large") == 15_000);
}

#[test]
fn fifteen_thousand_tasks_go_away_in_small_plans() {
    let mut world = swarm(5, 15_000);
    run_all(&mut world);
    world.hosts.values_mut().for_each(|host| host.lags = true);
    world.scale("large", 1);
    world.advance(SECOND); // it was looked at a moment ago
    for _ in 0..5 {
        assert_eq!(round(&mut world, "large"), SHARE);
    }
    others_have_their_turn(&mut world, 4);
    rounds(&mut world, "large", |world| world.wanted("large").len() == 1);
    assert!(world.leaving("large").iter().all(|task| task.desired_state == TaskState::Running));
    let revision = world.state.revision();
    world.hosts.values_mut().for_each(|host| (host.in_force, host.lags) = (revision, false));
    let told = |world: &World| {
        world.leaving("large").iter().all(|task| task.desired_state == TaskState::Shutdown)
    };
    rounds(&mut world, "large", told);
}

#[test]
fn a_large_service_that_waits_does_not_wake_the_leader() {
    let mut world = swarm(2, 2000);
    for n in [0, 1] {
        world.availability(&node(n), Availability::Pause);
    }
    rounds(&mut world, "large", |world| world.wanted("large").len() == 2000);
    let said = |world: &World| {
        world.wanted("large").iter().all(|task| task.status.err.contains("no suitable node"))
    };
    rounds(&mut world, "large", said);
    world.advance(SECOND);
    assert!(world.decide().changes.is_empty());
    assert!(world.agenda.waiting().contains("large"));
    assert_eq!(world.wakes_after(), None, "nothing has happened");
    // Something that it may wait for: it is looked at once it has rested.
    world.decide();
    let wakes = world.wakes_after().expect("it is to be looked at");
    assert!(!wakes.is_zero() && wakes <= rest(2000), "{wakes:?}");
}
