//! What a task that listened nowhere means for the next ones of its service.

use swarm_model::{READY_TIMEOUT_LABEL, Readiness, ServiceSpec, TaskState, TaskStatus};
use swarm_state::{Change, State};

use crate::rules::World;
use crate::support::{node_id, service_id, task_id};

const SECOND: u64 = 1_000_000_000;

fn world() -> World {
    let mut world = World::new(1);
    world.service(0, &[0]);
    world
}

fn assigned(world: &mut World, n: u8) {
    world.task(n, 0);
    world.ok(Change::AssignTask { id: task_id(n), node: node_id(0) });
}

fn says(world: &mut World, n: u8, state: TaskState, readiness: Readiness) {
    let status = TaskStatus { state, readiness: Some(readiness), ..TaskStatus::default() };
    world.ok(Change::ReportTask { id: task_id(n), status });
}

fn update(world: &mut World, change: impl FnOnce(&mut ServiceSpec)) {
    let service = world.state.service(&service_id(0)).unwrap();
    let (version, mut spec) = (service.meta.version.index, service.spec.clone());
    change(&mut spec);
    world.ok(Change::UpdateService { id: service_id(0), version, spec: Box::new(spec) });
}

fn is_silent(state: &State) -> bool {
    state.service(&service_id(0)).unwrap().silent
}

/// How long the task may take until it listens, in seconds.
fn timeout(world: &World, n: u8) -> u64 {
    world.state.task(&task_id(n)).unwrap().ready_timeout / SECOND
}

#[test]
fn after_one_task_waited_in_vain_the_next_ones_do_not_wait() {
    let mut world = world();
    for n in 1..=2 {
        assigned(&mut world, n);
        assert_eq!(timeout(&world, n), 10);
    }
    says(&mut world, 1, TaskState::Starting, Readiness::Waiting);
    says(&mut world, 2, TaskState::Running, Readiness::Listening);
    assert!(!is_silent(&world.state));
    says(&mut world, 1, TaskState::Running, Readiness::Silent);
    assert!(is_silent(&world.state));
    assigned(&mut world, 3);
    assert_eq!(timeout(&world, 3), 0);
    assert_eq!(timeout(&world, 2), 10, "what was told to a node stays");
    // Another leader has it from the log, or from a snapshot.
    let restored = State::from_snapshot(&world.state.to_snapshot()).unwrap();
    assert!(is_silent(&restored));
}

#[test]
fn another_template_is_waited_for_and_scaling_makes_none() {
    let mut world = world();
    assigned(&mut world, 1);
    says(&mut world, 1, TaskState::Running, Readiness::Silent);
    world.ok(Change::ScaleService { id: service_id(0), replicas: 5 });
    update(&mut world, |spec| drop(spec.labels.insert("tier".into(), "front".into())));
    assert!(is_silent(&world.state));
    update(&mut world, |spec| spec.task_template.container_spec.env = vec!["A=1".into()]);
    assert!(!is_silent(&world.state));
    assigned(&mut world, 2);
    assert_eq!(timeout(&world, 2), 10);
}

#[test]
fn another_timeout_is_waited_for() {
    let mut world = world();
    assigned(&mut world, 1);
    let label = |value: &str| {
        let value = value.to_owned();
        move |spec: &mut ServiceSpec| drop(spec.labels.insert(READY_TIMEOUT_LABEL.into(), value))
    };
    update(&mut world, label("1m"));
    // It was given ten seconds: that says nothing of a minute.
    says(&mut world, 1, TaskState::Running, Readiness::Silent);
    assert!(!is_silent(&world.state));
    assigned(&mut world, 2);
    assert_eq!(timeout(&world, 2), 60);
    says(&mut world, 2, TaskState::Running, Readiness::Silent);
    assert!(is_silent(&world.state));
    update(&mut world, label("2m"));
    assert!(!is_silent(&world.state));
    update(&mut world, label("0"));
    assigned(&mut world, 3);
    assert_eq!(timeout(&world, 3), 0);
}

#[test]
fn a_task_of_a_former_template_says_nothing_of_the_present_one() {
    let mut world = world();
    assigned(&mut world, 1);
    update(&mut world, |spec| spec.task_template.force_update += 1);
    says(&mut world, 1, TaskState::Running, Readiness::Silent);
    assert!(!is_silent(&world.state));
}

#[test]
fn only_a_task_that_begins_to_run_counts() {
    let mut world = world();
    assigned(&mut world, 1);
    says(&mut world, 1, TaskState::Running, Readiness::Listening);
    // As of a node that restarted and found its server deaf at that moment.
    says(&mut world, 1, TaskState::Running, Readiness::Silent);
    assert!(!is_silent(&world.state));
}
