//! Single rules of the state, each on the smallest example that shows it.

use std::net::IpAddr;

use crate::support::{
    cluster, description, network_id, node_id, service_id, task_id, two_nodes_on_a_network,
};
use swarm_model::{
    EndpointState, Item, ItemKey, NetworkAttachmentConfig, NetworkSpec, NodeRole, NodeState,
    ServiceSpec, TaskState, TaskStatus, Timestamp, UpdateState, UpdateStatus,
};
use swarm_state::{Change, Command, Outcome, Rejected, State, Touched};

pub(crate) type Applied = Result<Outcome, Rejected>;

pub(crate) struct World {
    pub(crate) state: State,
    touched: Vec<Touched>,
}

impl World {
    /// Two nodes, and networks of five addresses each.
    pub(crate) fn new(networks: u8) -> World {
        let mut world = World { state: State::new(), touched: vec![] };
        for n in 0..2 {
            let role = NodeRole::Worker;
            let (hostname, addr) = (format!("host-{n}"), format!("192.0.2.{n}:2377"));
            world.ok(Change::AddNode {
                id: node_id(n),
                role,
                hostname,
                addr: addr.clone(),
                engine: Default::default(),
            });
            let description = Box::new(description(n, 1500, false, vec![]));
            world.ok(Change::DescribeNode { id: node_id(n), description, addr });
        }
        for n in 0..networks {
            let mut spec = NetworkSpec {
                name: format!("n{n}"),
                driver: "overlay".into(),
                ..Default::default()
            };
            let subnet = Some(format!("10.9.{n}.0/29").parse().unwrap());
            spec.ipam.config = vec![swarm_model::IpamConfig { subnet, ..Default::default() }];
            world.ok(Change::CreateNetwork { id: network_id(n), spec });
        }
        world
    }

    pub(crate) fn apply(&mut self, change: Change) -> Applied {
        let revision = self.state.revision() + 1;
        let command = Command { now: Timestamp(revision as i64), changes: vec![change] };
        let (mut results, touched) = self.state.apply(revision, command);
        self.touched = touched;
        results.remove(0)
    }

    #[track_caller]
    pub(crate) fn ok(&mut self, change: Change) {
        self.apply(change).unwrap();
    }

    pub(crate) fn service(&mut self, n: u8, networks: &[u8]) {
        self.ok(Change::CreateService { id: service_id(n), spec: Box::new(spec(n, networks)) });
    }

    pub(crate) fn task(&mut self, n: u8, service: u8) {
        let change = Change::CreateTask {
            id: task_id(n),
            service: service_id(service),
            slot: n.into(),
            node: None,
        };
        self.ok(change);
    }

    pub(crate) fn running(&mut self, n: u8, service: u8, node: u8) {
        self.task(n, service);
        self.ok(Change::AssignTask { id: task_id(n), node: node_id(node) });
        self.report(n, TaskState::Running);
    }

    fn report(&mut self, n: u8, state: TaskState) {
        self.ok(Change::ReportTask { id: task_id(n), status: status(state) });
    }

    fn address(&self, n: u8) -> Option<IpAddr> {
        let task = self.state.task(&task_id(n))?;
        Some(task.networks_attachments.first()?.addresses.first()?.addr())
    }

    fn endpoint(&self, node: u8, task: u8) -> Option<EndpointState> {
        let view = self.state.node_view(&node_id(node));
        match view.items.get(&ItemKey::Endpoint(network_id(0), task_id(task)))? {
            Item::Endpoint(endpoint) => Some(endpoint.state),
            _ => None,
        }
    }
}

fn spec(n: u8, networks: &[u8]) -> ServiceSpec {
    let mut spec = ServiceSpec { name: format!("web{n}"), ..ServiceSpec::default() };
    spec.task_template.container_spec.image = "busybox".into();
    spec.task_template.networks = networks
        .iter()
        .map(|n| NetworkAttachmentConfig { target: network_id(*n), aliases: vec![] })
        .collect();
    spec
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus { state, ..TaskStatus::default() }
}

#[test]
fn a_task_is_stopped_only_if_no_live_node_sends_to_it() {
    let mut world = World::new(1);
    world.service(0, &[0]);
    world.running(1, 0, 0);
    world.running(2, 0, 1);
    let stop = |world: &mut World, as_of| world.apply(Change::StopTask { id: task_id(1), as_of });
    let refused = Err(Rejected::OutOfDate("task task01".into()));
    let now = world.state.revision();
    assert_eq!(stop(&mut world, now), refused, "it is not withdrawn");

    world.ok(Change::WithdrawTask { id: task_id(1) });
    assert_eq!(stop(&mut world, now), refused, "it was not withdrawn then");

    // A node that counted as dead when that was decided is back, with the kernel it left with.
    let down = |n, state| Change::SetNodeState { id: node_id(n), state, message: String::new() };
    world.ok(down(1, NodeState::Down));
    let decided = world.state.revision();
    world.ok(down(1, NodeState::Ready));
    assert_eq!(stop(&mut world, decided), refused, "a node came back");
    assert_eq!(world.state.task(&"task01".into()).unwrap().desired_state, TaskState::Running);

    let decided = world.state.revision();
    assert!(stop(&mut world, decided).is_ok());
    assert_eq!(world.state.task(&"task01".into()).unwrap().desired_state, TaskState::Shutdown);
}

#[test]
fn a_task_is_given_up_only_while_its_node_is_dead() {
    let mut world = World::new(1);
    world.service(0, &[0]);
    world.running(1, 0, 0);
    let node = |state| Change::SetNodeState { id: node_id(0), state, message: String::new() };
    world.ok(node(NodeState::Down));
    let stop = Change::StopTask { id: task_id(1), as_of: world.state.revision() };
    world.ok(node(NodeState::Ready));
    assert_eq!(world.apply(stop.clone()), Err(Rejected::OutOfDate("task task01".into())));
    world.ok(node(NodeState::Down));
    world.ok(stop);
    assert_eq!(world.state.task(&"task01".into()).unwrap().desired_state, TaskState::Shutdown);
}

#[test]
fn what_is_said_of_an_update_is_not_said_of_the_next() {
    let mut world = World::new(1);
    world.service(0, &[0]);
    let update = |world: &mut World, image: &str| {
        let mut spec = spec(0, &[0]);
        spec.task_template.container_spec.image = image.into();
        let service = world.state.service(&service_id(0)).unwrap();
        let version = service.meta.version.index;
        world.ok(Change::UpdateService { id: service_id(0), version, spec: Box::new(spec) });
        let service = world.state.service(&service_id(0)).unwrap();
        service.update_status.clone().unwrap()
    };
    let first = update(&mut world, "first");
    let second = update(&mut world, "second");
    let completed = |status: &UpdateStatus| Change::SetUpdateStatus {
        id: service_id(0),
        status: UpdateStatus { state: UpdateState::Completed, ..status.clone() },
    };
    assert_eq!(
        world.apply(completed(&first)),
        Err(Rejected::OutOfDate("service web0".into())),
        "the user has begun another update meanwhile"
    );
    let state = |world: &World| {
        let service = world.state.service(&service_id(0)).unwrap();
        service.update_status.as_ref().unwrap().state
    };
    assert_eq!(state(&world), UpdateState::Updating);
    world.ok(completed(&second));
    assert_eq!(state(&world), UpdateState::Completed);
}

#[test]
fn a_freed_address_is_reused_last() {
    let mut world = World::new(1);
    world.service(0, &[0]);
    world.running(1, 0, 0);
    assert_eq!(world.address(1), Some(IpAddr::from([10, 9, 0, 3])));
    world.report(1, TaskState::Failed);
    for n in 2..6 {
        world.task(n, 0);
    }
    let given: Vec<_> = (2..6).filter_map(|n| world.address(n)).collect();
    assert_eq!(given, [4, 5, 6, 3].map(|last| IpAddr::from([10, 9, 0, last])));
    assert_eq!(world.address(1), Some(IpAddr::from([10, 9, 0, 3])), "history still shows it");
}

#[test]
fn a_task_without_an_address_says_so_and_gets_the_next_free_one() {
    let mut world = World::new(1);
    world.service(0, &[0]);
    for n in 1..6 {
        world.task(n, 0);
    }
    let task = world.state.task(&"task05".into()).unwrap();
    assert_eq!(task.status.state, TaskState::New);
    assert_eq!(task.status.err, "no free address in network n0 (10.9.0.0/29)");
    world.ok(Change::AllocateTask { id: task_id(5) });
    assert!(world.touched.is_empty(), "nothing changed: nobody is to look again");
    world.ok(Change::SetDesiredState { id: task_id(1), state: TaskState::Shutdown });
    assert_eq!(world.state.task(&"task01".into()).unwrap().status.state, TaskState::Shutdown);
    world.ok(Change::AllocateTask { id: task_id(5) });
    let task = world.state.task(&"task05".into()).unwrap();
    assert_eq!((task.status.state, task.status.err.as_str()), (TaskState::Pending, ""));
    assert_eq!(world.address(5), Some(IpAddr::from([10, 9, 0, 3])));
}

#[test]
fn a_task_id_is_used_once() {
    let mut world = World::new(1);
    world.service(0, &[0]);
    world.task(1, 0);
    let again = Change::CreateTask { id: task_id(1), service: service_id(0), slot: 2, node: None };
    assert_eq!(world.apply(again), Err(Rejected::Exists("task task01".into())));
}

#[test]
fn a_service_that_gets_one_of_two_addresses_gets_none() {
    let mut world = World::new(2);
    world.service(0, &[1]);
    for n in 1..5 {
        world.task(n, 0);
    }
    assert_eq!(world.state.free_addresses(&network_id(1)), 0);
    let change = Change::CreateService { id: service_id(1), spec: Box::new(spec(1, &[0, 1])) };
    let reason = "no free address in network n1 (10.9.1.0/29)";
    assert_eq!(world.apply(change), Err(Rejected::Exhausted(reason.into())));
    // Neither an address nor its turn is lost.
    assert_eq!(world.state.free_addresses(&network_id(0)), 5);
    world.service(2, &[0]);
    let vip = world.state.service(&"service2".into()).unwrap().endpoint.virtual_ips[0].addr;
    assert_eq!(vip.to_string(), "10.9.0.2/29");
}

#[test]
fn traffic_follows_readiness() {
    let mut world = World::new(1);
    world.service(0, &[0]);
    world.running(1, 0, 0);
    world.task(2, 0);
    assert_eq!(world.endpoint(0, 2), None);
    world.ok(Change::AssignTask { id: task_id(2), node: node_id(1) });
    assert_eq!(world.endpoint(0, 2), Some(EndpointState::Starting));
    world.report(2, TaskState::Running);
    assert_eq!(world.endpoint(0, 2), Some(EndpointState::Ready));
    let down = |state| Change::SetNodeState { id: node_id(1), state, message: String::new() };
    world.ok(down(NodeState::Down));
    assert_eq!(world.endpoint(0, 2), Some(EndpointState::Lost));
    world.ok(down(NodeState::Ready));
    world.ok(Change::WithdrawTask { id: task_id(2) });
    assert_eq!(world.endpoint(0, 2), Some(EndpointState::Draining));
    assert_eq!(world.state.task(&"task02".into()).unwrap().withdrawn, Some(world.state.revision()));
    world.report(2, TaskState::Shutdown);
    assert_eq!(world.endpoint(0, 2), None);
    assert_eq!(world.state.free_addresses(&network_id(0)), 3, "one VIP and one task");
}

#[test]
fn a_removed_service_gives_up_its_name_at_once_and_its_address_with_its_last_task() {
    let mut world = World::new(1);
    world.service(0, &[0]);
    world.running(1, 0, 0);
    world.ok(Change::RemoveService { id: service_id(0) });
    let same_name = Change::CreateService { id: service_id(1), spec: Box::new(spec(0, &[0])) };
    world.ok(same_name);
    let purge = Change::PurgeService { id: service_id(0) };
    assert!(matches!(world.apply(purge.clone()), Err(Rejected::InUse(_))));
    let remove = Change::RemoveNetwork { id: network_id(0) };
    let reason = Err(Rejected::InUse("network n0 is in use by web0".into()));
    assert_eq!(world.apply(remove.clone()), reason);
    world.report(1, TaskState::Shutdown);
    world.ok(purge);
    assert_eq!(world.state.service_named("web0").unwrap().id, service_id(1));
    assert_eq!(world.state.free_addresses(&network_id(0)), 4);
    world.ok(Change::RemoveService { id: service_id(1) });
    world.ok(Change::PurgeService { id: service_id(1) });
    assert_eq!(world.state.free_addresses(&network_id(0)), 5);
    world.ok(remove);
}

#[test]
fn an_update_is_based_on_the_version_it_saw() {
    let mut world = World::new(1);
    world.service(0, &[]);
    let version = world.state.revision();
    let update = |replicas| {
        let mut spec = spec(0, &[0]);
        spec.mode = swarm_model::ServiceMode::replicated(replicas);
        Change::UpdateService { id: service_id(0), version, spec: Box::new(spec) }
    };
    world.ok(update(2));
    let reason = "service web0".to_owned();
    assert_eq!(world.apply(update(3)), Err(Rejected::OutOfDate(reason)));
    assert_eq!(world.state.service(&"service0".into()).unwrap().replicas(), 2);
}

#[test]
fn a_service_that_leaves_a_network_says_which() {
    let mut world = World::new(2);
    world.service(0, &[0]);
    let version = world.state.revision();
    let spec = Box::new(spec(0, &[1]));
    world.ok(Change::UpdateService { id: service_id(0), version, spec });
    assert!(world.touched.contains(&Touched::Network(network_id(0))), "{:?}", world.touched);
    assert_eq!(world.state.free_addresses(&network_id(0)), 5);
    world.ok(Change::ScaleService { id: service_id(0), replicas: 0 });
    world.ok(Change::RemoveService { id: service_id(0) });
    world.ok(Change::PurgeService { id: service_id(0) });
    assert!(world.touched.contains(&Touched::Network(network_id(1))), "{:?}", world.touched);
}

#[test]
fn a_report_touches_nothing_but_its_task_until_others_are_to_know() {
    let mut world = World { state: State::new(), touched: vec![] };
    two_nodes_on_a_network().into_iter().for_each(|change| world.ok(change));
    let task = Touched::Task(task_id(0), service_id(0));
    for state in [TaskState::Accepted, TaskState::Starting] {
        world.report(0, state);
        assert_eq!(world.touched, std::slice::from_ref(&task));
    }
    let endpoint = Touched::Endpoint(network_id(0));
    world.report(0, TaskState::Running);
    assert_eq!(world.touched, [task.clone(), endpoint.clone()]);
    // Its node is to keep what is left of it.
    world.report(0, TaskState::Failed);
    let (assignment, carriers) =
        (Touched::Assignment(node_id(0)), Touched::Carriers(network_id(0)));
    assert_eq!(world.touched, [task, endpoint, assignment, carriers]);
}

#[test]
fn a_task_is_placed_when_it_is_created_if_it_can_be() {
    let mut world = World::new(1);
    world.service(0, &[0]);
    let create = |n: u8, node| {
        let (id, service, slot) = (task_id(n), service_id(0), n.into());
        Change::CreateTask { id, service, slot, node: Some(node_id(node)) }
    };
    let state = |world: &World, n| world.state.task(&task_id(n)).unwrap().status.state;
    world.ok(create(1, 1));
    assert_eq!(state(&world, 1), TaskState::Assigned);
    assert_eq!(world.state.task(&task_id(1)).unwrap().node_id, Some(node_id(1)));
    assert!(world.touched.contains(&Touched::Carriers(network_id(0))), "{:?}", world.touched);
    // There is no such node: it waits for another.
    world.ok(create(2, 9));
    assert_eq!(state(&world, 2), TaskState::Pending);
    // There is no address either, at last.
    (3..=5).for_each(|n| world.ok(create(n, 0)));
    assert_eq!(
        [3, 4, 5].map(|n| state(&world, n)),
        [TaskState::Assigned, TaskState::Assigned, TaskState::New]
    );
    assert!(
        world
            .state
            .tasks()
            .all(|task| task.node_id.is_some() == (task.status.state == TaskState::Assigned))
    );
}

#[test]
fn a_task_on_no_node_is_reported_by_none() {
    let mut world = World::new(1);
    world.service(0, &[0]);
    world.task(1, 0);
    let report = Change::ReportTask { id: task_id(1), status: status(TaskState::Running) };
    assert_eq!(world.apply(report), Err(Rejected::Invalid("task task01 is on no node".into())));
}

#[test]
fn a_forgotten_task_says_which_node_remembers_it() {
    let mut world = World::new(1);
    world.service(0, &[0]);
    world.running(1, 0, 1);
    world.report(1, TaskState::Complete);
    world.ok(Change::RemoveTask { id: task_id(1) });
    assert!(world.touched.contains(&Touched::NodeHistory(node_id(1))), "{:?}", world.touched);
}

#[test]
fn managers_get_raft_ids_that_are_never_reused() {
    let mut world = World::new(0);
    let mut ids = Vec::new();
    for n in 4..7 {
        let id = node_id(n);
        let (hostname, addr) = (format!("m{n}"), format!("192.0.2.{n}:2377"));
        let add = Change::AddNode {
            id: id.clone(),
            role: NodeRole::Manager,
            hostname,
            addr,
            engine: Default::default(),
        };
        ids.extend(world.apply(add).unwrap().raft_id);
        world.ok(Change::RemoveNode { id, force: false });
    }
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn subnets_from_the_pool_keep_clear_of_networks_and_routes() {
    let mut world = World::new(0);
    let mut network = |name: &str| {
        let spec =
            NetworkSpec { name: name.into(), driver: "overlay".into(), ..Default::default() };
        world.ok(Change::CreateNetwork { id: name.into(), spec });
        let subnet = world.state.network(&name.into()).unwrap().subnet.to_string();
        let mut description = description(0, 1500, false, vec![]);
        description.routes =
            Some(["10.0.2.128/25", "0.0.0.0/0", "::/1"].map(|net| net.parse().unwrap()).into());
        let description = Box::new(description);
        world.ok(Change::DescribeNode { id: node_id(0), description, addr: String::new() });
        subnet
    };
    let subnets = [network("a"), network("b"), network("c")];
    assert_eq!(subnets, ["10.0.1.0/24", "10.0.3.0/24", "10.0.4.0/24"]);
}

#[test]
fn a_network_of_ipv6_is_refused_whoever_chose_its_subnet() {
    let mut world = World::new(0);
    let mut cluster = cluster();
    cluster.spec.default_addr_pool = vec!["fd00::/8".parse().unwrap()];
    world.ok(Change::CreateCluster(Box::new(cluster)));
    for (subnet, named) in [(None, "fd00:8::/29"), (Some("fd00::/64"), "fd00::/64")] {
        let mut spec =
            NetworkSpec { name: "n".into(), driver: "overlay".into(), ..Default::default() };
        let subnet = subnet.map(|subnet| subnet.parse().unwrap());
        spec.ipam.config = vec![swarm_model::IpamConfig { subnet, ..Default::default() }];
        let refused = world.apply(Change::CreateNetwork { id: network_id(0), spec });
        let reason = format!("subnet {named} is IPv6, which is not served yet");
        assert_eq!(refused, Err(Rejected::Invalid(reason)));
        assert!(world.touched.is_empty() && world.state.networks().next().is_none());
    }
}

#[test]
fn the_mtu_is_the_smallest_underlay_less_the_encapsulation() {
    let mut world = World::new(0);
    let mtus = |world: &World| (world.state.overlay_mtu(false), world.state.overlay_mtu(true));
    assert_eq!(mtus(&world), (1450, 1416));
    for (mtu, v6, overlay) in
        [(9000, false, (1450, 1416)), (1400, false, (1350, 1316)), (1400, true, (1330, 1296))]
    {
        let description = Box::new(description(1, mtu, v6, vec![]));
        world.ok(Change::DescribeNode { id: node_id(1), description, addr: String::new() });
        assert_eq!(mtus(&world), overlay);
    }
    world.ok(Change::RemoveNode { id: node_id(1), force: true });
    assert_eq!(mtus(&world), (1450, 1416));
}
