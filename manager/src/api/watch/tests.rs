//! When a command may return: not before all is as wanted, and in force everywhere.

use swarm_model::{
    NetworkAttachmentConfig, NetworkSpec, NodeDescription, NodeId, NodeRole, NodeState, Readiness,
    ServiceSpec, TaskStatus, Timestamp, UpdateStatus,
};
use swarm_state::{Change, Command};

use super::*;

/// Two nodes, a network, a service of two tasks in it.
struct World {
    state: State,
    heard: Heard,
}

impl World {
    fn new(condition: RestartCondition) -> World {
        let mut world = World { state: State::new(), heard: Heard::new() };
        for name in ["n1", "n2"] {
            let (id, role, addr) = (NodeId::from(name), NodeRole::Worker, String::new());
            let hostname = name.to_owned();
            world.change(Change::AddNode {
                id: id.clone(),
                role,
                hostname,
                addr,
                engine: Default::default(),
            });
            let description = Box::new(NodeDescription::default());
            world.change(Change::DescribeNode { id, description, addr: String::new() });
        }
        for name in ["net", "other"] {
            let spec = NetworkSpec {
                name: name.into(),
                driver: "overlay".into(),
                ..NetworkSpec::default()
            };
            world.change(Change::CreateNetwork { id: name.into(), spec });
        }
        let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
        spec.task_template.container_spec.image = "busybox".into();
        spec.task_template.restart_policy.condition = condition;
        spec.task_template.networks =
            vec![NetworkAttachmentConfig { target: "net".into(), aliases: vec![] }];
        spec.mode = swarm_model::ServiceMode::replicated(2);
        world.change(Change::CreateService { id: "web".into(), spec: Box::new(spec) });
        world
    }

    fn change(&mut self, change: Change) {
        let revision = self.state.revision() + 1;
        let now = Timestamp(revision as i64);
        let (results, _) = self.state.apply(revision, Command { now, changes: vec![change] });
        assert!(results[0].is_ok(), "{results:?}");
    }

    fn task(&mut self, id: &str, slot: u64, node: &str) {
        self.change(Change::CreateTask { id: id.into(), service: "web".into(), slot, node: None });
        self.change(Change::AssignTask { id: id.into(), node: node.into() });
    }

    fn report(&mut self, id: &str, state: TaskState, err: &str) {
        let status = TaskStatus { state, err: err.into(), ..TaskStatus::default() };
        self.change(Change::ReportTask { id: id.into(), status });
    }

    fn both_run(&mut self) {
        for (id, slot, node) in [("t1", 1, "n1"), ("t2", 2, "n2")] {
            self.task(id, slot, node);
            self.report(id, TaskState::Running, "");
        }
    }

    fn acknowledge(&mut self, node: &str) {
        let in_force = self.state.revision();
        self.heard.insert(node.into(), NodeFacts { in_force, ..NodeFacts::default() });
    }

    fn all_acknowledge(&mut self) {
        self.acknowledge("n1");
        self.acknowledge("n2");
    }

    fn progress(&self) -> Progress {
        progress(&self.state, &self.heard, &"web".into(), 0)
    }

    fn update(&mut self, change: impl FnOnce(&mut ServiceSpec)) {
        let service = self.state.service(&"web".into()).unwrap();
        let (mut spec, version) = (service.spec.clone(), service.meta.version.index);
        change(&mut spec);
        self.change(Change::UpdateService { id: "web".into(), version, spec: Box::new(spec) });
    }

    /// The update in progress is so far.
    fn update_is(&mut self, state: UpdateState, message: &str) {
        let service = self.state.service(&"web".into()).unwrap();
        let started_at = service.update_status.as_ref().unwrap().started_at;
        let status =
            UpdateStatus { state, started_at, completed_at: None, message: message.into() };
        self.change(Change::SetUpdateStatus { id: "web".into(), status });
    }
}

#[test]
fn converged_is_running_and_in_force_on_every_live_node() {
    let mut world = World::new(RestartCondition::Any);
    assert!(!world.progress().converged);
    world.both_run();
    assert_eq!((world.progress().desired, world.progress().running), (2, 2));
    assert!(!world.progress().converged, "no node was heard of");
    world.acknowledge("n1");
    let progress = world.progress();
    assert_eq!((progress.nodes, progress.nodes_in_force), (2, 1));
    assert!(!progress.converged);
    world.acknowledge("n2");
    assert!(world.progress().converged);
    let later = world.state.revision() + 1;
    assert!(!progress_at(&world, later).converged, "the command itself is not applied yet");
}

fn progress_at(world: &World, revision: u64) -> Progress {
    progress(&world.state, &world.heard, &"web".into(), revision)
}

#[test]
fn a_task_on_a_dead_node_does_not_run_and_its_node_is_not_waited_for() {
    let mut world = World::new(RestartCondition::Any);
    world.both_run();
    world.acknowledge("n1");
    let down = |state| Change::SetNodeState { id: "n2".into(), state, message: String::new() };
    world.change(down(NodeState::Down));
    let progress = world.progress();
    assert_eq!((progress.running, progress.nodes, progress.nodes_in_force), (1, 1, 1));
    assert!(!progress.converged);
    world.change(Change::SetDesiredState { id: "t2".into(), state: TaskState::Shutdown });
    world.task("t3", 2, "n1");
    world.report("t3", TaskState::Running, "");
    world.acknowledge("n1");
    let progress = world.progress();
    assert_eq!((progress.stopping, progress.converged), (0, true), "{progress:?}");
    world.change(down(NodeState::Ready));
    world.all_acknowledge();
    assert!(!world.progress().converged, "the lost task is back and has to stop");
}

#[test]
fn a_task_on_its_way_out_is_waited_for() {
    let mut world = World::new(RestartCondition::Any);
    world.both_run();
    world.change(Change::ScaleService { id: "web".into(), replicas: 1 });
    world.all_acknowledge();
    assert!(!world.progress().converged, "one too many");
    world.change(Change::WithdrawTask { id: "t2".into() });
    world.all_acknowledge();
    let progress = world.progress();
    assert_eq!((progress.running, progress.stopping, progress.converged), (1, 1, false));
    world.report("t2", TaskState::Shutdown, "");
    assert!(!world.progress().converged, "its end is not in force yet");
    world.all_acknowledge();
    assert!(world.progress().converged);
}

#[test]
fn a_rolling_update_is_waited_for_and_a_paused_one_has_failed() {
    let mut world = World::new(RestartCondition::Any);
    world.both_run();
    world.update(|spec| spec.task_template.force_update = 1);
    world.all_acknowledge();
    let progress = world.progress();
    assert_eq!((progress.running, progress.converged), (0, false), "none runs the new spec");
    for (old, new, slot) in [("t1", "t3", 1), ("t2", "t4", 2)] {
        world.change(Change::WithdrawTask { id: old.into() });
        world.report(old, TaskState::Shutdown, "");
        world.task(new, slot, "n1");
        world.report(new, TaskState::Running, "");
    }
    world.all_acknowledge();
    assert!(!world.progress().converged, "it is not said to be completed");
    world.update_is(UpdateState::Completed, "update completed");
    world.all_acknowledge();
    assert!(world.progress().converged);
    world.update_is(UpdateState::Paused, "update paused due to failure of task web.1.t3");
    let progress = world.progress();
    assert_eq!(progress.failure, "update paused due to failure of task web.1.t3");
    assert!(!progress.converged);
}

#[test]
fn a_network_that_was_left_is_waited_for() {
    let mut world = World::new(RestartCondition::Any);
    world.both_run();
    // Another service keeps n2 in the network.
    let mut other = world.state.service(&"web".into()).unwrap().spec.clone();
    other.name = "other".into();
    world.change(Change::CreateService { id: "other".into(), spec: Box::new(other) });
    let task = Change::CreateTask { id: "o1".into(), service: "other".into(), slot: 1, node: None };
    world.change(task);
    world.change(Change::AssignTask { id: "o1".into(), node: "n2".into() });
    world.update(|spec| {
        spec.task_template.networks[0].target = "other".into();
        spec.mode = swarm_model::ServiceMode::replicated(1);
    });
    for old in ["t1", "t2"] {
        world.change(Change::WithdrawTask { id: old.into() });
        world.report(old, TaskState::Shutdown, "");
    }
    world.task("t3", 1, "n1");
    world.report("t3", TaskState::Running, "");
    world.update_is(UpdateState::Completed, "");
    world.acknowledge("n1");
    assert!(!world.progress().converged, "n2 may still resolve its name");
    world.acknowledge("n2");
    assert!(world.progress().converged);
}

#[test]
fn a_failure_that_nothing_will_mend_is_said() {
    let mut world = World::new(RestartCondition::None);
    world.both_run();
    world.report("t1", TaskState::Failed, "exit code 3");
    let progress = world.progress();
    assert_eq!(progress.failure, "task web.1.t1 failed: exit code 3");
    assert!(!progress.converged);

    let mut world = World::new(RestartCondition::Any);
    world.both_run();
    world.report("t1", TaskState::Failed, "exit code 3");
    let progress = world.progress();
    assert_eq!((progress.failure.as_str(), progress.running), ("", 1));
    assert_eq!(progress.slots[0].err, "exit code 3", "but it is shown");
}

#[test]
fn what_a_task_is_waited_for_is_said() {
    let mut world = World::new(RestartCondition::Any);
    world.both_run();
    world.task("t3", 3, "n1");
    let status = TaskStatus {
        state: TaskState::Starting,
        message: "waiting for port 80".into(),
        readiness: Some(Readiness::Waiting),
        ..TaskStatus::default()
    };
    world.change(Change::ReportTask { id: "t3".into(), status });
    let progress = world.progress();
    let said: Vec<&str> = progress.slots.iter().map(|slot| slot.message.as_str()).collect();
    assert_eq!((said, progress.running), (vec!["", "", "waiting for port 80"], 2));
}

#[test]
fn a_removed_service_is_said_to_be_removed() {
    let mut world = World::new(RestartCondition::Any);
    world.change(Change::RemoveService { id: "web".into() });
    assert_eq!(world.progress().failure, "the service was removed");
}

#[test]
fn a_job_that_is_done_counts_as_running() {
    let mut world = World::new(RestartCondition::OnFailure);
    world.both_run();
    world.report("t1", TaskState::Complete, "");
    world.all_acknowledge();
    let progress = world.progress();
    assert_eq!((progress.running, progress.converged), (2, true));
}
