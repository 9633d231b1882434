//! What was written to a Raft log or a snapshot by an older version can still be read. From the first release on,
//! lines of the files in `golden/` are never changed, only added: `name`, a space, the encoding in hex. With
//! `UPDATE_GOLDEN=1` in the environment, missing lines are added.

use std::path::Path;

use crate::support::{
    cluster, description, network_id, node_id, rotation, service_id, task_id, tls_info, tokens,
    two_nodes_on_a_network,
};
use swarm_model::{
    Availability, ContainerStatus, EndpointMode, EspKey, FeatureLevel, Item, JoinTokens, Labels,
    NetworkAttachmentConfig, NetworkSecret, NetworkSpec, NodeRole, NodeState, PortMap, Ports,
    Protocol, Reachability, Readiness, RestartCondition, SecurityAssociation, ServiceSpec,
    ServiceView, TaskState, TaskStatus, Timestamp, TunnelView, UnlockKeyText, UpdateState,
    UpdateStatus, ViewDelta, codec,
};
use swarm_state::{Change, Command, Outcome, Rejected, State};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The golden encoding of this name; `today` is how it is encoded now.
fn golden(file: &str, name: &str, today: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    if let Some((_, line)) = lines.find(|(found, _)| *found == name) {
        return unhex(line);
    }
    let line = format!("{name} {}", hex(today));
    assert!(std::env::var_os("UPDATE_GOLDEN").is_some(), "{file} has no line for {name}: {line}");
    std::fs::write(&path, text + &line + "\n").unwrap();
    today.to_vec()
}

fn service_spec() -> ServiceSpec {
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.labels = Labels::from([("tier".into(), "front".into())]);
    let template = &mut spec.task_template;
    template.container_spec.image = "registry:5000/web@sha256:00".into();
    template.container_spec.command = vec!["/bin/web".into()];
    template.container_spec.args = vec!["--port".into(), "80".into()];
    template.container_spec.env = vec!["A=1".into()];
    template.container_spec.dir = "/srv".into();
    template.container_spec.user = "www".into();
    template.container_spec.stop_grace_period = Some(3_000_000_000);
    template.resources.limits.memory_bytes = 64 << 20;
    template.restart_policy.condition = RestartCondition::OnFailure;
    template.networks =
        vec![NetworkAttachmentConfig { target: network_id(0), aliases: vec!["www".into()] }];
    spec.mode = swarm_model::ServiceMode::replicated(3);
    spec
}

fn network_spec() -> NetworkSpec {
    let mut spec = NetworkSpec {
        name: "net".into(),
        driver: "overlay".into(),
        internal: true,
        ..NetworkSpec::default()
    };
    spec.options.insert(swarm_model::MTU_OPTION.into(), "1400".into());
    spec.ipam.config = vec![swarm_model::IpamConfig {
        subnet: Some("10.9.0.0/24".parse().unwrap()),
        ip_range: Some("10.9.0.128/25".parse().unwrap()),
        gateway: Some("10.9.0.254".parse().unwrap()),
    }];
    spec
}

fn task_status() -> TaskStatus {
    TaskStatus {
        timestamp: Timestamp(7),
        state: TaskState::Failed,
        message: "ended".into(),
        err: "exit code 137".into(),
        container_status: Some(ContainerStatus {
            container_id: "task00".into(),
            pid: 4321,
            exit_code: 137,
        }),
        readiness: None,
    }
}

fn update_status() -> UpdateStatus {
    UpdateStatus {
        state: UpdateState::Completed,
        started_at: Timestamp(5),
        completed_at: Some(Timestamp(6)),
        message: "update completed".into(),
    }
}

/// One of each kind.
fn changes() -> Vec<(&'static str, Change)> {
    let (node, network, service, task) = (node_id(0), network_id(0), service_id(0), task_id(0));
    vec![
        ("CreateCluster", Change::CreateCluster(Box::new(cluster()))),
        ("SetJoinTokens", Change::SetJoinTokens(tokens("new"))),
        (
            "AddNode",
            Change::AddNode {
                id: node.clone(),
                role: NodeRole::Manager,
                hostname: "host".into(),
                addr: "192.0.2.1:2377".into(),
                engine: Default::default(),
            },
        ),
        (
            "DescribeNode",
            Change::DescribeNode {
                id: node.clone(),
                description: Box::new(description(1, 1500, true, vec![8])),
                addr: "192.0.2.1:2377".into(),
            },
        ),
        (
            "SetNodeState",
            Change::SetNodeState {
                id: node.clone(),
                state: NodeState::Down,
                message: "not heard of".into(),
            },
        ),
        ("RemoveNode", Change::RemoveNode { id: node.clone(), force: true }),
        ("CreateNetwork", Change::CreateNetwork { id: network.clone(), spec: network_spec() }),
        ("RemoveNetwork", Change::RemoveNetwork { id: network }),
        (
            "CreateService",
            Change::CreateService { id: service.clone(), spec: Box::new(service_spec()) },
        ),
        (
            "UpdateService",
            Change::UpdateService {
                id: service.clone(),
                version: 9,
                spec: Box::new(service_spec()),
            },
        ),
        ("ScaleService", Change::ScaleService { id: service.clone(), replicas: 7 }),
        ("RemoveService", Change::RemoveService { id: service.clone() }),
        ("PurgeService", Change::PurgeService { id: service.clone() }),
        (
            "SetUpdateStatus",
            Change::SetUpdateStatus { id: service.clone(), status: update_status() },
        ),
        (
            "CreateTask",
            Change::CreateTask { id: task.clone(), service, slot: 2, node: Some(node.clone()) },
        ),
        ("AllocateTask", Change::AllocateTask { id: task.clone() }),
        ("AssignTask", Change::AssignTask { id: task.clone(), node: node.clone() }),
        ("ExplainTask", Change::ExplainTask { id: task.clone(), err: "no suitable node".into() }),
        ("ReportTask", Change::ReportTask { id: task.clone(), status: task_status() }),
        ("WithdrawTask", Change::WithdrawTask { id: task.clone() }),
        (
            "SetDesiredState",
            Change::SetDesiredState { id: task.clone(), state: TaskState::Shutdown },
        ),
        ("RemoveTask", Change::RemoveTask { id: task.clone() }),
        (
            "AddNetworkKey",
            Change::AddNetworkKey { generation: 1, secret: NetworkSecret([0xa5; 32]) },
        ),
        ("SendWithNetworkKey", Change::SendWithNetworkKey { generation: 2 }),
        ("RemoveNetworkKey", Change::RemoveNetworkKey { generation: 1 }),
        ("RotateNetworkKeys", Change::RotateNetworkKeys),
        (
            "UpdateNode",
            Change::UpdateNode {
                id: node.clone(),
                availability: Some(Availability::Drain),
                label_add: Labels::from([("zone".into(), "a".into())]),
                label_rm: vec!["rack".into()],
            },
        ),
        ("SupersedeTask", Change::SupersedeTask { id: task.clone() }),
        ("SetNodeRole", Change::SetNodeRole { id: node.clone(), role: NodeRole::Manager }),
        ("DropManager", Change::DropManager { id: node.clone() }),
        (
            "TakeOver",
            Change::TakeOver {
                id: node.clone(),
                hostname: "host".into(),
                addr: "192.0.2.9:2377".into(),
                raft_id: 7,
                engine: Default::default(),
            },
        ),
        ("StopTask", Change::StopTask { id: task, as_of: 12 }),
        ("RotateRoot", Change::RotateRoot(Box::new(rotation(1, "next")))),
        ("FinishRootRotation", Change::FinishRootRotation { revision: 8 }),
        ("SetNodeTls", Change::SetNodeTls { id: node.clone(), tls_info: tls_info("next") }),
        ("NoteNodeTrouble", Change::NoteNodeTrouble { id: node, reason: "nft is stuck".into() }),
        ("RaiseFeatureLevel", Change::RaiseFeatureLevel { level: FeatureLevel::new(2).unwrap() }),
        (
            "SetAutoLock",
            Change::SetAutoLock { unlock_key: Some(UnlockKeyText("SWMKEY-1-a".into())) },
        ),
        (
            "RotateUnlockKey",
            Change::RotateUnlockKey { unlock_key: UnlockKeyText("SWMKEY-1-b".into()) },
        ),
    ]
}

/// Does not compile once there is a new kind of change: then add it to [`changes`].
fn is_among_changes(change: &Change) -> bool {
    match change {
        Change::CreateCluster(_) | Change::SetJoinTokens(_) | Change::AddNode { .. } => true,
        Change::DescribeNode { .. } | Change::SetNodeState { .. } => true,
        Change::RemoveNode { .. } | Change::CreateNetwork { .. } => true,
        Change::RemoveNetwork { .. } | Change::CreateService { .. } => true,
        Change::UpdateService { .. } | Change::ScaleService { .. } => true,
        Change::RemoveService { .. } | Change::PurgeService { .. } => true,
        Change::SetUpdateStatus { .. } | Change::CreateTask { .. } => true,
        Change::AllocateTask { .. } | Change::AssignTask { .. } => true,
        Change::ExplainTask { .. } | Change::ReportTask { .. } => true,
        Change::WithdrawTask { .. } | Change::SetDesiredState { .. } => true,
        Change::RemoveTask { .. } | Change::AddNetworkKey { .. } => true,
        Change::SendWithNetworkKey { .. } | Change::RemoveNetworkKey { .. } => true,
        Change::RotateNetworkKeys | Change::UpdateNode { .. } => true,
        Change::SupersedeTask { .. } | Change::SetNodeRole { .. } => true,
        Change::DropManager { .. } | Change::TakeOver { .. } => true,
        Change::StopTask { .. } => true,
        Change::RotateRoot(_) | Change::FinishRootRotation { .. } => true,
        Change::SetNodeTls { .. } | Change::NoteNodeTrouble { .. } => true,
        Change::RaiseFeatureLevel { .. } => true,
        Change::SetAutoLock { .. } | Change::RotateUnlockKey { .. } => true,
    }
}

#[test]
fn every_change_ever_written_is_still_read() {
    let changes = changes();
    let kinds: std::collections::BTreeSet<_> = changes.iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.len(), 39);
    for (kind, change) in changes {
        assert!(is_among_changes(&change));
        let command = Command { now: Timestamp(1_700_000_000_000_000_000), changes: vec![change] };
        let bytes = golden("changes.hex", kind, &codec::encode(&command));
        let decoded: Command = codec::decode_whole(&bytes).unwrap();
        assert_eq!(format!("{decoded:?}"), format!("{command:?}"), "{kind}");
        // Debug hides secrets.
        assert_eq!(codec::encode(&decoded), codec::encode(&command), "{kind}");
    }
}

fn value<T>(name: &str, value: &T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let bytes = golden("values.hex", name, &codec::encode(value));
    let decoded: T = codec::decode(&bytes).unwrap();
    assert_eq!(format!("{decoded:?}"), format!("{value:?}"), "{name}");
}

#[test]
fn every_persisted_value_ever_written_is_still_read() {
    use TaskState as S;
    let states = [
        S::New,
        S::Pending,
        S::Assigned,
        S::Accepted,
        S::Preparing,
        S::Ready,
        S::Starting,
        S::Running,
        S::Complete,
        S::Shutdown,
        S::Failed,
        S::Rejected,
        S::Orphaned,
        S::Remove,
    ];
    for state in states {
        value(&format!("TaskState::{state:?}"), &state);
    }
    for role in [NodeRole::Worker, NodeRole::Manager] {
        value(&format!("NodeRole::{role:?}"), &role);
    }
    for state in [NodeState::Unknown, NodeState::Down, NodeState::Ready] {
        value(&format!("NodeState::{state:?}"), &state);
    }
    for wanted in [Availability::Active, Availability::Pause, Availability::Drain] {
        value(&format!("Availability::{wanted:?}"), &wanted);
    }
    for condition in [RestartCondition::None, RestartCondition::OnFailure, RestartCondition::Any] {
        value(&format!("RestartCondition::{condition:?}"), &condition);
    }
    for mode in [EndpointMode::Vip, EndpointMode::Dnsrr] {
        value(&format!("EndpointMode::{mode:?}"), &mode);
    }
    for state in [UpdateState::Updating, UpdateState::Paused, UpdateState::Completed] {
        value(&format!("UpdateState::{state:?}"), &state);
    }
    for readiness in
        [Readiness::Waiting, Readiness::Listening, Readiness::Silent, Readiness::Unchecked]
    {
        value(&format!("Readiness::{readiness:?}"), &readiness);
    }
    for known in [Reachability::Unknown, Reachability::Unreachable, Reachability::Reachable] {
        value(&format!("Reachability::{known:?}"), &known);
    }
    let rejected = [
        Rejected::NotFound("a".into()),
        Rejected::Exists("b".into()),
        Rejected::InUse("c".into()),
        Rejected::OutOfDate("d".into()),
        Rejected::Invalid("e".into()),
        Rejected::Exhausted("f".into()),
    ];
    let outcome = Outcome { revision: 4, raft_id: Some(2) };
    let results: Vec<Result<Outcome, Rejected>> =
        rejected.into_iter().map(Err).chain([Ok(outcome)]).collect();
    value("Results", &results);

    // What nodes are told.
    let mut told = State::new();
    for (revision, change) in (1..).zip(two_nodes_on_a_network()) {
        let command = Command { now: Timestamp(1), changes: vec![change] };
        let (results, _) = told.apply(revision, command);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
    let delta = told.node_view(&node_id(0)).as_full_delta(7);
    for (key, item) in &delta.upsert {
        value(&format!("Item::{}", format!("{key:?}").replace(' ', "")), item);
    }
    let association = |spi| SecurityAssociation { spi, key: EspKey([3; 20]) };
    let tunnel = TunnelView {
        vtep: [192, 0, 2, 1].into(),
        reqid: 5,
        incarnation: 6,
        sending: association(7),
        receiving: vec![association(8)],
    };
    value("Item::Tunnel", &Item::Tunnel(tunnel));
    let map = PortMap { protocol: Protocol::Tcp, port: 80, target: 8080 };
    let service = ServiceView {
        name: "web".into(),
        aliases: vec![],
        vip: Some([10, 0, 0, 10].into()),
        ports: Ports::Only(vec![map]),
    };
    value("Item::Service,Ports::Only", &Item::Service(service));
    value("ViewDelta", &ViewDelta { upsert: vec![], ..delta });
}

/// A state in which every table has something.
fn state() -> State {
    let changes = changes().into_iter().filter(|(kind, _)| !kind.starts_with("Remove"));
    let order = |kind: &str| match kind {
        "UpdateService" | "PurgeService" => None,
        // The task has its node since it was created.
        "AssignTask" => None,
        // These have snapshots and tests of their own, or would undo what the others make.
        "UpdateNode" | "SupersedeTask" | "SetNodeRole" | "DropManager" | "TakeOver"
        | "StopTask" => None,
        "RotateRoot" | "FinishRootRotation" | "SetNodeTls" | "NoteNodeTrouble"
        | "RaiseFeatureLevel" => None,
        "SetAutoLock" | "RotateUnlockKey" => None,
        // What came later has a snapshot of its own.
        _ if kind.contains("NetworkKey") => None,
        "ReportTask" => Some(2),
        _ => Some(1),
    };
    let mut changes: Vec<_> =
        changes.filter_map(|(kind, change)| Some((order(kind)?, change))).collect();
    changes.sort_by_key(|(order, _)| *order);
    let mut state = State::new();
    for (at, (_, change)) in changes.into_iter().enumerate() {
        let now = Timestamp(1_700_000_000_000_000_000 + at as i64);
        let changes = match change {
            // One token is replaced at a time.
            Change::SetJoinTokens(new) => {
                let worker = JoinTokens { worker: new.worker.clone(), ..tokens("first") };
                vec![Change::SetJoinTokens(worker), Change::SetJoinTokens(new)]
            }
            change => vec![change],
        };
        let (results, _) = state.apply(at as u64 + 1, Command { now, changes });
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
    let spec = ServiceSpec { name: "other".into(), ..service_spec() };
    let other = Change::CreateService { id: service_id(1), spec: Box::new(spec) };
    let task = Change::CreateTask { id: task_id(1), service: service_id(1), slot: 1, node: None };
    state.apply(90, Command { now: Timestamp(8), changes: vec![other, task] });
    state
}

#[test]
fn a_snapshot_ever_written_is_still_read() {
    let state = state();
    assert_eq!((state.nodes().count(), state.networks().count()), (1, 1));
    assert_eq!((state.services().count(), state.tasks().count()), (2, 2));
    let bytes = golden("snapshot.hex", "snapshot", &state.to_snapshot());
    let restored = State::from_snapshot(&bytes).unwrap();
    assert_eq!(format!("{restored:?}"), format!("{state:?}"));
    assert_eq!(restored.to_snapshot(), state.to_snapshot());
}

#[test]
fn a_snapshot_with_keys_ever_written_is_still_read() {
    let mut state = state();
    let change = |change| Command { now: Timestamp(9), changes: vec![change] };
    let add = |generation| Change::AddNetworkKey { generation, secret: NetworkSecret([0xa5; 32]) };
    state.apply(100, change(add(1)));
    state.apply(101, change(add(2)));
    state.apply(102, change(Change::RotateNetworkKeys));
    assert_eq!((state.key_ring().keys.len(), state.node(&"node0".into()).unwrap().ordinal), (2, 1));
    let bytes = golden("snapshot.hex", "keys", &state.to_snapshot());
    let restored = State::from_snapshot(&bytes).unwrap();
    assert_eq!(format!("{restored:?}"), format!("{state:?}"));
    assert_eq!(restored.to_snapshot(), state.to_snapshot());
}

#[test]
fn a_snapshot_of_a_rotation_of_the_root_ever_written_is_still_read() {
    let mut state = state();
    let version = state.cluster().unwrap().meta.version.index;
    let change = |change| Command { now: Timestamp(9), changes: vec![change] };
    state.apply(100, change(Change::RotateRoot(Box::new(rotation(version, "next")))));
    state.apply(101, change(Change::SetNodeTls { id: node_id(0), tls_info: tls_info("next") }));
    assert_eq!(state.cluster().unwrap().issuing_ca().key_pem, "key next");
    let bytes = golden("snapshot.hex", "root", &state.to_snapshot());
    let restored = State::from_snapshot(&bytes).unwrap();
    assert_eq!(format!("{restored:?}"), format!("{state:?}"));
    assert_eq!(restored.to_snapshot(), state.to_snapshot());
}
