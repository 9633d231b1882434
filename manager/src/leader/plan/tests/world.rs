//! A cluster without a network: plans are applied to a state at once, workers do what they are told when
//! they are told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_model::{
    Availability, ContainerStatus, ENCRYPTED_OPTION, ESP_CIPHER, FeatureLevel, Id as _, IpamConfig,
    Labels, NetworkAttachmentConfig, NetworkSecret, NetworkSpec, NodeDescription, NodeEncryption,
    NodeId, NodeRole, NodeState, RestartCondition, Service, ServiceSpec, Task, TaskId, TaskState,
    TaskStatus, Timestamp,
};
use swarm_state::{Change, Command, State};

use crate::leader::agenda::Agenda;
use crate::leader::lead::note_applied;
use crate::leader::plan::{Facts, NodeFacts, Plan, plan};
use crate::replica::store::Applied;

const SECOND: Duration = Duration::from_secs(1);
const BEGINNING: Timestamp = Timestamp(1_000_000_000_000);
/// Rounds in which any cluster here must come to rest.
const PATIENCE: usize = 400;

/// A node as it is, whatever the managers think of it.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) up: bool,
    /// Since when it is silent.
    pub(super) silent_since: Timestamp,
    /// What its data plane is at.
    pub(super) in_force: u64,
    /// How it acknowledges: at once, or only when asked to.
    pub(super) lags: bool,
    /// How far its tasks are, as it knows: it may not have reported all.
    pub(super) tasks: BTreeMap<TaskId, TaskState>,
}

pub(super) struct World {
    pub(super) state: State,
    pub(super) now: Timestamp,
    pub(super) hosts: BTreeMap<NodeId, Host>,
    /// As the leader's loop has it.
    pub(super) agenda: Agenda,
    /// Nodes whose kernel cannot encrypt.
    pub(super) without_esp: BTreeSet<NodeId>,
    next_id: u128,
}

pub(super) fn node(n: usize) -> NodeId {
    format!("node{n}").into()
}

pub(super) fn spec(name: &str, replicas: u64, networks: &[&str]) -> ServiceSpec {
    let mut spec = ServiceSpec { name: name.into(), ..ServiceSpec::default() };
    spec.mode = swarm_model::ServiceMode::replicated(replicas);
    spec.task_template.container_spec.image = "busybox".into();
    spec.task_template.restart_policy.condition = RestartCondition::Any;
    spec.task_template.restart_policy.delay = SECOND.as_nanos() as u64;
    spec.task_template.networks = networks
        .iter()
        .map(|net| NetworkAttachmentConfig { target: (*net).into(), aliases: vec![] })
        .collect();
    spec
}

impl World {
    pub(super) fn new(nodes: usize) -> World {
        let mut world = World {
            state: State::new(),
            now: BEGINNING,
            hosts: BTreeMap::new(),
            agenda: Agenda::default(),
            without_esp: BTreeSet::new(),
            next_id: 0,
        };
        for n in 0..nodes {
            let id = node(n);
            let (role, hostname, addr) = (NodeRole::Worker, format!("host-{n}"), String::new());
            world.change(Change::AddNode {
                id: id.clone(),
                role,
                hostname,
                addr,
                engine: Default::default(),
            });
            world.hosts.insert(id.clone(), Host { up: true, ..Host::default() });
            world.describe(&id);
        }
        world
    }

    pub(super) fn describe(&mut self, id: &NodeId) {
        let last = id.as_str().bytes().last().unwrap();
        let encryption = NodeEncryption {
            cipher: if self.without_esp.contains(id) { "" } else { ESP_CIPHER }.into(),
            reason: String::new(),
            incarnation: 1,
        };
        let description = NodeDescription {
            hostname: id.to_string(),
            data_path_addr: Some([192, 0, 2, last].into()),
            underlay_mtu: Some(1500),
            routes: Some(Vec::new()),
            encryption,
            ..Default::default()
        };
        let (id, description) = (id.clone(), Box::new(description));
        self.change(Change::DescribeNode { id, description, addr: String::new() });
    }

    pub(super) fn network(&mut self, name: &str, subnet: &str) {
        let mut spec =
            NetworkSpec { name: name.into(), driver: "overlay".into(), ..NetworkSpec::default() };
        let subnet = Some(subnet.parse().unwrap());
        spec.ipam.config = vec![IpamConfig { subnet, ..IpamConfig::default() }];
        self.change(Change::CreateNetwork { id: name.into(), spec });
    }

    pub(super) fn encrypted_network(&mut self, name: &str) {
        let mut spec =
            NetworkSpec { name: name.into(), driver: "overlay".into(), ..NetworkSpec::default() };
        spec.options.insert(ENCRYPTED_OPTION.into(), String::new());
        self.change(Change::CreateNetwork { id: name.into(), spec });
    }

    pub(super) fn service(&mut self, spec: ServiceSpec) {
        self.change(Change::CreateService { id: spec.name.as_str().into(), spec: Box::new(spec) });
    }

    pub(super) fn scale(&mut self, id: &str, replicas: u64) {
        self.change(Change::ScaleService { id: id.into(), replicas });
    }

    pub(super) fn update(&mut self, id: &str, change: impl FnOnce(&mut ServiceSpec)) {
        let service = self.state.service(&id.into()).unwrap();
        let mut spec = service.spec.clone();
        change(&mut spec);
        let version = service.meta.version.index;
        self.change(Change::UpdateService { id: id.into(), version, spec: Box::new(spec) });
    }

    /// Applies a change that must take effect, as somebody else than the leader.
    #[track_caller]
    pub(super) fn change(&mut self, change: Change) {
        let results = self.apply(vec![change.clone()]);
        assert!(results[0].is_none(), "{change:?}: {results:?}");
    }

    /// Applies a command, and tells the leader what it touched. Returns why changes were rejected.
    pub(super) fn apply(&mut self, changes: Vec<Change>) -> Vec<Option<String>> {
        let revision = self.state.revision() + 1;
        let (results, touched) = self.state.apply(revision, Command { now: self.now, changes });
        let applied = Applied { revision, touched };
        note_applied(&self.state, &applied, &mut self.agenda);
        for host in self.hosts.values_mut().filter(|host| host.up && !host.lags) {
            host.in_force = revision;
        }
        results.into_iter().map(|result| result.err().map(|e| e.to_string())).collect()
    }

    pub(super) fn facts(&self) -> Facts {
        let nodes = self.hosts.iter().map(|(id, host)| {
            let silence = if host.up { Duration::ZERO } else { self.now.since(host.silent_since) };
            (id.clone(), NodeFacts { silence, in_force: host.in_force })
        });
        let speaks = FeatureLevel::NEWEST;
        Facts { now: self.now, nodes: nodes.collect(), dead_after: 2 * SECOND, speaks }
    }

    fn moment(&self) -> Duration {
        self.now.since(BEGINNING)
    }

    /// After how long the leader looks again though nothing happens; none if it does not.
    pub(super) fn wakes_after(&self) -> Option<Duration> {
        let now = self.moment();
        self.agenda.wake_at(now).map(|at| at.saturating_sub(now))
    }

    /// What the leader decides now; as its loop does, for the services that changed or wait.
    pub(super) fn decide(&mut self) -> Plan {
        let (facts, moment) = (self.facts(), self.moment());
        let due = self.agenda.due(moment);
        let mut next_id = self.next_id;
        let mut new_id = || {
            next_id += 1;
            TaskId::from_random(next_id)
        };
        let mut plan = plan(&self.state, &facts, &due, &mut new_id);
        if let Some(generation) = plan.new_key {
            let secret = NetworkSecret([generation as u8; 32]);
            plan.changes.insert(0, Change::AddNetworkKey { generation, secret });
        }
        self.next_id = next_id;
        self.agenda.looked_at(&due, &plan, &self.state, moment);
        self.check_stops(&plan);
        plan
    }

    /// What [`World::decide`] would.
    pub(super) fn peek(&mut self) -> Plan {
        let before = (self.agenda.clone(), self.next_id);
        let plan = self.decide();
        (self.agenda, self.next_id) = before;
        plan
    }

    /// A task on a live node is told to stop only after every live carrier of its networks has
    /// programmed its withdrawal.
    fn check_stops(&self, plan: &Plan) {
        for change in &plan.changes {
            let Change::StopTask { id, as_of } = change else { continue };
            assert_eq!(*as_of, self.state.revision());
            let task = self.state.task(id).unwrap();
            if !self.is_on_live_node(task) {
                continue;
            }
            let withdrawn =
                task.withdrawn.expect("a running task is withdrawn before it is stopped");
            for attachment in &task.networks_attachments {
                for node in self.state.carriers(&attachment.network.id) {
                    let at = self.hosts[node].in_force;
                    assert!(
                        !self.is_alive(node) || at >= withdrawn,
                        "{id} is stopped while {node} at {at} still sends to it ({withdrawn})"
                    );
                }
            }
        }
    }

    fn is_on_live_node(&self, task: &Task) -> bool {
        task.node_id.as_ref().is_some_and(|node| self.is_alive(node))
    }

    pub(super) fn is_alive(&self, node: &NodeId) -> bool {
        self.state.node(node).is_some_and(|node| node.is_alive())
    }

    /// Decides and applies once; false if there was nothing to do. No decision may be refused: nothing
    /// came between.
    pub(super) fn round(&mut self) -> bool {
        let plan = self.decide();
        if plan.changes.is_empty() {
            // Others may not have had their turn.
            let moment = self.moment();
            return self.agenda.wake_at(moment).is_some_and(|at| at <= moment);
        }
        let allowed = |change: &Change| matches!(change, Change::AssignTask { .. });
        let results = self.apply(plan.changes.clone());
        for (change, result) in plan.changes.iter().zip(results) {
            // A task that the same plan gives up is not placed any more.
            assert!(result.is_none() || allowed(change), "{change:?}: {result:?}");
        }
        true
    }

    /// Decides until there is nothing to do; no worker does anything meanwhile and no time passes.
    #[track_caller]
    pub(super) fn settle(&mut self) {
        for _ in 0..PATIENCE {
            if !self.round() {
                // Not even if asked about everything.
                let all = self.state.services().map(|service| service.id.clone());
                self.agenda.note(all);
                let again = self.decide().changes;
                assert!(again.is_empty(), "an event was missed: {again:?}");
                return;
            }
        }
        panic!("the leader does not come to rest: {:?}", self.decide().changes);
    }

    /// One step of one task on a live host: towards what is wanted of it. False if there is none.
    pub(super) fn work(&mut self, task: &Task) -> bool {
        let host = task.node_id.as_ref().and_then(|node| self.hosts.get_mut(node));
        let Some(host) = host.filter(|host| host.up) else { return false };
        let state = host.tasks.entry(task.id.clone()).or_insert(TaskState::Assigned);
        let next = match (task.desired_state > TaskState::Running, *state) {
            (_, state) if state > TaskState::Running => state,
            (true, _) => TaskState::Shutdown,
            (false, TaskState::Assigned) => TaskState::Accepted,
            (false, TaskState::Accepted) => TaskState::Preparing,
            (false, TaskState::Preparing) => TaskState::Starting,
            (false, _) => TaskState::Running,
        };
        *state = next;
        if next == task.status.state {
            return false;
        }
        self.report(&task.id, next);
        true
    }

    /// A node reports; its clock is wrong.
    pub(super) fn report(&mut self, task: &TaskId, state: TaskState) {
        let Some(known) = self.state.task(task).cloned() else { return };
        if known.is_finished() {
            return;
        }
        if let Some(host) = known.node_id.as_ref().and_then(|node| self.hosts.get_mut(node)) {
            host.tasks.insert(task.clone(), state);
        }
        let failed = matches!(state, TaskState::Failed | TaskState::Rejected);
        let status = TaskStatus {
            timestamp: Timestamp(i64::from(u16::from_ne_bytes([task.as_str().as_bytes()[24], 7]))),
            state,
            message: "reported".into(),
            err: if failed { "exit code 1".into() } else { String::new() },
            container_status: Some(ContainerStatus::default()),
            readiness: None,
        };
        self.change(Change::ReportTask { id: task.clone(), status });
    }

    /// Everything runs as it should, for as long as it takes; time passes as well.
    #[track_caller]
    pub(super) fn converge(&mut self) {
        for _ in 0..PATIENCE {
            self.settle();
            let tasks: Vec<Arc<Task>> = self.state.tasks().cloned().collect();
            let mut worked = false;
            for task in &tasks {
                worked |= self.work(task);
            }
            if !worked {
                if self.agenda.waiting().is_empty() {
                    return;
                }
                let before = self.state.revision();
                self.advance(SECOND / 4);
                for _ in 0..20 {
                    self.settle();
                    self.advance(SECOND / 4);
                }
                if before == self.state.revision() {
                    return;
                }
            }
        }
        panic!("no rest: {:?}", self.decide());
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    pub(super) fn kill(&mut self, id: &NodeId) {
        let host = self.hosts.get_mut(id).unwrap();
        host.up = false;
        host.silent_since = self.now;
    }

    /// The node opens a session again, its tasks still there.
    pub(super) fn revive(&mut self, id: &NodeId) {
        let revision = self.state.revision() + 1;
        let host = self.hosts.get_mut(id).unwrap();
        host.up = true;
        host.in_force = revision;
        self.describe(id);
    }

    /// Tasks that hold a slot, on live nodes or none.
    pub(super) fn wanted(&self, id: &str) -> Vec<Arc<Task>> {
        let id = id.into();
        let tasks = self.state.tasks_of(&id).filter(|t| t.holds_slot());
        tasks.filter(|t| t.node_id.is_none() || self.is_on_live_node(t)).cloned().collect()
    }

    /// The tasks that serve.
    pub(super) fn running(&self, id: &str) -> Vec<Arc<Task>> {
        let wanted = self.wanted(id).into_iter();
        wanted.filter(|task| task.status.state == TaskState::Running).collect()
    }

    /// Unfinished tasks on their way out, on live nodes.
    pub(super) fn leaving(&self, id: &str) -> Vec<Arc<Task>> {
        let id = id.into();
        let tasks = self.state.tasks_of(&id).filter(|t| !t.holds_slot() && !t.is_finished());
        tasks.filter(|task| self.is_on_live_node(task)).cloned().collect()
    }

    pub(super) fn get(&self, id: &str) -> Arc<Service> {
        Arc::clone(self.state.service(&id.into()).unwrap())
    }

    pub(super) fn availability(&mut self, id: &NodeId, availability: Availability) {
        self.change(Change::UpdateNode {
            id: id.clone(),
            availability: Some(availability),
            label_add: Labels::new(),
            label_rm: vec![],
        });
    }

    pub(super) fn set_node(&mut self, id: &NodeId, state: NodeState) {
        self.change(Change::SetNodeState { id: id.clone(), state, message: "test".into() });
    }
}
