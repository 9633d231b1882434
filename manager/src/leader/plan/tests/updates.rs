//! Rolling updates: one task at a time, stop first, paused by a failure.

use std::sync::Arc;
use std::time::Duration;

use swarm_model::{RestartCondition, Task, TaskState, UpdateState};

use super::world::{World, node, spec};

fn state_of(world: &World) -> UpdateState {
    world.get("web").update_status.clone().unwrap().state
}

fn fresh(world: &World) -> usize {
    let template = world.get("web").spec.task_template.clone();
    world.running("web").iter().filter(|task| *task.spec == template).count()
}

fn force(world: &mut World) {
    world.update("web", |spec| spec.task_template.force_update += 1);
}

#[test]
fn tasks_are_replaced_one_at_a_time_and_the_old_one_stops_first() {
    let mut world = World::new(3);
    world.network("net", "10.9.0.0/24");
    world.service(spec("web", 4, &["net"]));
    world.converge();
    force(&mut world);
    for _ in 0..200 {
        world.settle();
        assert!(world.running("web").len() >= 3, "more than one is out of service");
        let unfinished = world.state.tasks().filter(|task| !task.is_finished());
        assert!(unfinished.count() <= 4, "the new one came before the old one went");
        let tasks: Vec<Arc<Task>> = world.state.tasks().cloned().collect();
        if !tasks.iter().any(|task| world.work(task)) {
            break;
        }
    }
    assert_eq!(state_of(&world), UpdateState::Completed);
    assert_eq!(fresh(&world), 4);
}

#[test]
fn a_task_that_is_long_in_starting_holds_the_update_up_and_does_not_fail_it() {
    let mut world = World::new(3);
    world.network("net", "10.9.0.0/24");
    world.service(spec("web", 3, &["net"]));
    world.converge();
    force(&mut world);
    let template = world.get("web").spec.task_template.clone();
    let stays = |task: &Task| *task.spec == template && task.status.state == TaskState::Starting;
    for _ in 0..100 {
        world.settle();
        assert!(world.running("web").len() >= 2, "more than one is out of service");
        let tasks: Vec<Arc<Task>> = world.state.tasks().cloned().collect();
        for task in tasks.iter().filter(|task| !stays(task)) {
            world.work(task);
        }
        world.advance(Duration::from_secs(1));
    }
    let waiting: Vec<Arc<Task>> =
        world.wanted("web").into_iter().filter(|task| *task.spec == template).collect();
    assert_eq!((waiting.len(), fresh(&world)), (1, 0), "it is waited for");
    assert_eq!(
        (waiting[0].status.state, state_of(&world)),
        (TaskState::Starting, UpdateState::Updating)
    );
    world.converge();
    assert_eq!((state_of(&world), fresh(&world)), (UpdateState::Completed, 3));
}

#[test]
fn a_failure_pauses_the_update_and_the_next_one_goes_on() {
    let mut world = World::new(3);
    world.service(spec("web", 3, &[]));
    world.converge();
    force(&mut world);
    while fresh(&world) == 0 {
        world.settle();
        for task in world.state.tasks().cloned().collect::<Vec<_>>() {
            world.work(&task);
        }
    }
    let template = world.get("web").spec.task_template.clone();
    let new = world.running("web").into_iter().find(|task| *task.spec == template).unwrap();
    world.report(&new.id, TaskState::Failed);
    world.converge();
    assert_eq!(state_of(&world), UpdateState::Paused);
    let message = world.get("web").update_status.clone().unwrap().message;
    assert_eq!(message, format!("update paused due to failure of task {}", new.name()));
    // The others were left alone, but for one that was on its way out already.
    assert_eq!(world.running("web").len(), 3);
    assert!(fresh(&world) <= 2);
    force(&mut world);
    world.converge();
    assert_eq!((state_of(&world), fresh(&world)), (UpdateState::Completed, 3));
}

#[test]
fn a_node_that_dies_during_an_update_delays_it_only() {
    let mut world = World::new(3);
    world.network("net", "10.9.0.0/24");
    world.service(spec("web", 6, &["net"]));
    world.converge();
    force(&mut world);
    world.settle();
    world.kill(&node(1));
    world.advance(Duration::from_secs(3));
    world.settle();
    let out = 6 - world.running("web").len();
    assert!(out <= 3, "two were lost and one is being replaced, but {out} are gone");
    world.converge();
    assert_eq!((state_of(&world), fresh(&world)), (UpdateState::Completed, 6));
}

#[test]
fn scaling_during_an_update_is_obeyed() {
    for replicas in [0, 1, 8] {
        let mut world = World::new(3);
        world.service(spec("web", 4, &[]));
        world.converge();
        force(&mut world);
        world.settle();
        world.scale("web", replicas);
        world.converge();
        assert_eq!(state_of(&world), UpdateState::Completed);
        assert_eq!(fresh(&world) as u64, replicas);
    }
}

#[test]
fn an_update_of_a_full_network_completes() {
    let mut world = World::new(2);
    world.network("net", "10.9.0.0/29");
    world.service(spec("web", 4, &["net"]));
    world.converge();
    assert_eq!(world.state.free_addresses(&"net".into()), 0);
    force(&mut world);
    world.converge();
    assert_eq!((state_of(&world), fresh(&world)), (UpdateState::Completed, 4));
}

#[test]
fn an_update_that_changes_the_network_completes() {
    let mut world = World::new(2);
    world.network("old", "10.9.0.0/24");
    world.network("new", "10.9.1.0/24");
    world.service(spec("web", 3, &["old"]));
    world.converge();
    let networks = spec("web", 3, &["new"]).task_template.networks;
    world.update("web", |spec| spec.task_template.networks = networks);
    world.converge();
    assert_eq!((state_of(&world), fresh(&world)), (UpdateState::Completed, 3));
    assert_eq!(world.state.free_addresses(&"old".into()), 253);
}

#[test]
fn a_one_shot_service_is_updated_by_running_it_again() {
    let mut world = World::new(2);
    let mut job = spec("web", 2, &[]);
    job.task_template.restart_policy.condition = RestartCondition::OnFailure;
    world.service(job);
    for round in 0..2 {
        world.converge();
        assert_eq!(world.running("web").len(), 2, "round {round}");
        for task in world.running("web") {
            world.report(&task.id, TaskState::Complete);
        }
        world.converge();
        assert!(world.running("web").is_empty());
        if round == 0 {
            force(&mut world);
        }
    }
    assert_eq!(state_of(&world), UpdateState::Completed);
}

#[test]
fn a_task_that_is_done_before_the_update_is_counts_as_replaced() {
    let mut world = World::new(2);
    let mut job = spec("web", 3, &[]);
    job.task_template.restart_policy.condition = RestartCondition::OnFailure;
    world.service(job);
    world.converge();
    force(&mut world);
    for _ in 0..100 {
        world.settle();
        let template = world.get("web").spec.task_template.clone();
        for task in world.running("web").iter().filter(|task| *task.spec == template) {
            world.report(&task.id, TaskState::Complete);
        }
        for task in world.state.tasks().cloned().collect::<Vec<_>>() {
            world.work(&task);
        }
    }
    world.converge();
    assert_eq!(state_of(&world), UpdateState::Completed);
    assert!(world.wanted("web").is_empty());
}
