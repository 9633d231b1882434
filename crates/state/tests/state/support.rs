//! Random changes over a small world: so few ids that they meet often.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use swarm_model::{
    Availability, Cluster, ClusterSpec, ContainerSpec, ENCRYPTED_OPTION, ESP_CIPHER, EndpointMode,
    EndpointSpec, EngineDescription, FeatureLevel, Ipam, IpamConfig, JoinTokens, Labels,
    ManagerLock, Meta, NetworkAttachmentConfig, NetworkId, NetworkSecret, NetworkSpec,
    NodeDescription, NodeEncryption, NodeId, NodeRole, NodeState, Readiness, RootCaDocument,
    ServiceId, ServiceMode, ServiceSpec, TaskId, TaskSpec, TaskState, TaskStatus, Timestamp,
    TlsInfo, UpdateState, UpdateStatus,
};
use swarm_state::{Change, RotateRoot, State};

/// A change still to be fitted to the state: the version it is based on is looked up late.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// As it is.
    Plain(Change),
    /// With its service or task replaced by one that exists, if one does: the pick-th.
    At(Change, usize),
    /// A `TakeOver` by this node, with a Raft id that is new then.
    TakeOver(NodeId),
    /// A step of a rotation, of the generation that it is about now.
    NextKey(Change),
    /// An `UpdateService`, based on the service's version, or on an older one.
    Update { service: ServiceId, spec: Box<ServiceSpec>, stale: bool },
    /// A `RotateRoot` to the authority of this key, based on the cluster as it is.
    RotateRoot(u8),
    /// A `SetNodeTls` of this node, by the authority that issues now.
    Certify(u8),
    /// A `FinishRootRotation` of the rotation there is.
    FinishRootRotation,
}

impl Op {
    /// The change to apply to `state`.
    pub(crate) fn resolve(self, state: &State) -> Change {
        match self {
            Op::Plain(change) => change,
            Op::RotateRoot(key) => {
                let version = state.cluster().map_or(0, |cluster| cluster.meta.version.index);
                Change::RotateRoot(Box::new(rotation(version, &key.to_string())))
            }
            Op::Certify(n) => {
                let rotation = state.cluster().and_then(|cluster| cluster.root_rotation.as_ref());
                let key = rotation.map_or("first", |rotation| &rotation.issuer_public_key);
                Change::SetNodeTls { id: node_id(n), tls_info: tls_info(key) }
            }
            Op::FinishRootRotation => {
                let rotation = state.cluster().and_then(|cluster| cluster.root_rotation.as_ref());
                let revision = rotation.map_or(0, |rotation| rotation.revision);
                Change::FinishRootRotation { revision }
            }
            Op::At(mut change, pick) => {
                retarget(&mut change, state, pick);
                change
            }
            Op::TakeOver(id) => Change::TakeOver {
                hostname: format!("host-of-{id}"),
                addr: format!("{id}:2377"),
                id,
                raft_id: state.next_raft_id() + 2,
                engine: Default::default(),
            },
            Op::NextKey(mut change) => {
                let ring = state.key_ring();
                match &mut change {
                    Change::AddNetworkKey { generation, .. } => {
                        *generation = ring.newest().map_or(0, |key| key.generation) + 1;
                    }
                    Change::SendWithNetworkKey { generation } => {
                        *generation = ring.newest().map_or(0, |key| key.generation);
                    }
                    Change::RemoveNetworkKey { generation } => {
                        *generation = ring.keys.first().map_or(0, |key| key.generation);
                    }
                    _ => {}
                }
                change
            }
            Op::Update { service, spec, stale } => {
                let current = state.service(&service).map_or(0, |s| s.meta.version.index);
                let version = current.wrapping_sub(u64::from(stale));
                let mut spec = spec;
                if let Some(service) = state.service(&service) {
                    spec.name.clone_from(&service.spec.name);
                }
                Change::UpdateService { id: service, version, spec }
            }
        }
    }
}

/// Has a change name something that exists, if it is to and anything does: the pick-th.
fn retarget(change: &mut Change, state: &State, pick: usize) {
    let service = || {
        let at = pick.checked_rem(state.services().count())?;
        state.services().nth(at).map(|service| service.id.clone())
    };
    let task = || {
        let at = pick.checked_rem(state.tasks().count())?;
        state.tasks().nth(at).map(|task| task.id.clone())
    };
    match change {
        Change::ScaleService { id, .. }
        | Change::RemoveService { id }
        | Change::PurgeService { id }
        | Change::SetUpdateStatus { id, .. }
        | Change::CreateTask { service: id, .. } => *id = service().unwrap_or_else(|| id.clone()),
        Change::AllocateTask { id }
        | Change::AssignTask { id, .. }
        | Change::ExplainTask { id, .. }
        | Change::ReportTask { id, .. }
        | Change::WithdrawTask { id }
        | Change::SupersedeTask { id }
        | Change::SetDesiredState { id, .. }
        | Change::StopTask { id, .. }
        | Change::RemoveTask { id } => *id = task().unwrap_or_else(|| id.clone()),
        _ => {}
    }
}

pub(crate) fn node_id(n: u8) -> NodeId {
    format!("node{n}").into()
}

pub(crate) fn network_id(n: u8) -> NetworkId {
    format!("net{n}").into()
}

pub(crate) fn service_id(n: u8) -> ServiceId {
    format!("service{n}").into()
}

pub(crate) fn task_id(n: u8) -> TaskId {
    format!("task{n:02}").into()
}

pub(crate) fn tokens(suffix: &str) -> JoinTokens {
    JoinTokens { worker: format!("worker-{suffix}"), manager: format!("manager-{suffix}") }
}

pub(crate) fn cluster() -> Cluster {
    let pool = "10.0.0.0/23".parse().unwrap();
    Cluster {
        id: "cluster".into(),
        meta: Meta::default(),
        feature_level: FeatureLevel::FIRST,
        spec: ClusterSpec {
            default_addr_pool: vec![pool],
            subnet_size: 29,
            data_path_port: 4790,
            task_history_retention_limit: 2,
            ..ClusterSpec::default()
        },
        root_ca: RootCaDocument { cert_pem: "cert".into(), key_pem: "key".into() },
        join_tokens: tokens("first"),
        manager_lock: ManagerLock::default(),
        root_rotation: None,
    }
}

/// The next authority, known by a key.
pub(crate) fn rotation(version: u64, key: &str) -> RotateRoot {
    RotateRoot {
        version,
        root_ca: RootCaDocument { cert_pem: format!("cert {key}"), key_pem: format!("key {key}") },
        cross_signed_pem: format!("cross {key}"),
        issuer_public_key: key.into(),
        join_tokens: tokens(key),
    }
}

/// What a node with a certificate of that key tells.
pub(crate) fn tls_info(key: &str) -> TlsInfo {
    TlsInfo {
        trust_root: format!("cert {key}"),
        cert_issuer_subject: "swarm-ca".into(),
        cert_issuer_public_key: key.into(),
    }
}

/// A service with a task on each of two nodes, in one network.
pub(crate) fn two_nodes_on_a_network() -> Vec<Change> {
    let network =
        NetworkSpec { name: "blue".into(), driver: "overlay".into(), ..NetworkSpec::default() };
    let mut service = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    let attachment = NetworkAttachmentConfig { target: network_id(0), aliases: vec![] };
    service.task_template.networks = vec![attachment];
    service.task_template.container_spec.image = "busybox".into();
    let id = service_id(0);
    let mut changes = vec![Change::CreateCluster(Box::new(cluster()))];
    changes.push(Change::CreateNetwork { id: network_id(0), spec: network });
    changes.push(Change::CreateService { id: id.clone(), spec: Box::new(service) });
    for n in 0..2 {
        let (node, task) = (node_id(n), task_id(n));
        let (hostname, addr) = (format!("host{n}"), format!("192.0.2.{n}:2377"));
        let engine = Default::default();
        changes.push(Change::AddNode {
            id: node.clone(),
            role: NodeRole::Worker,
            hostname,
            addr,
            engine,
        });
        let description = Box::new(description(n, 1500, false, vec![]));
        let addr = format!("192.0.2.{n}");
        changes.push(Change::DescribeNode { id: node.clone(), description, addr });
        changes.push(Change::CreateTask {
            id: task.clone(),
            service: id.clone(),
            slot: n.into(),
            node: None,
        });
        changes.push(Change::AssignTask { id: task, node });
    }
    changes
}

fn options(encrypted: bool) -> Labels {
    encrypted.then(|| (ENCRYPTED_OPTION.to_owned(), String::new())).into_iter().collect()
}

/// What a node says that has IPsec ESP.
pub(crate) fn esp(incarnation: u64) -> NodeEncryption {
    NodeEncryption { cipher: ESP_CIPHER.into(), reason: String::new(), incarnation }
}

/// A network: from the pool, or one of a few subnets of which some overlap or are bad.
fn network_spec() -> impl Strategy<Value = NetworkSpec> {
    let config = prop_oneof![
        4 => Just(None),
        1 => Just(Some(("10.9.0.0/29", None, None))),
        1 => Just(Some(("10.9.0.0/28", None, Some("10.9.0.4")))),
        1 => Just(Some(("10.8.0.0/24", Some("10.8.0.16/30"), Some("10.8.0.17")))),
        1 => Just(Some(("10.7.0.0/24", Some("10.7.0.248/29"), None))),
        1 => Just(Some(("10.9.0.0/31", None, None))),
        1 => Just(Some(("fd00::/64", None, None))),
    ];
    (0u8..5, config, any::<bool>(), any::<bool>()).prop_map(
        |(name, config, internal, encrypted)| NetworkSpec {
            name: format!("network-{name}"),
            driver: "overlay".into(),
            internal,
            options: options(encrypted),
            ipam: Ipam {
                driver: "default".into(),
                config: config
                    .into_iter()
                    .map(|(subnet, range, gateway): (&str, Option<&str>, Option<&str>)| {
                        IpamConfig {
                            subnet: Some(subnet.parse().unwrap()),
                            ip_range: range.map(|range| range.parse().unwrap()),
                            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
                        }
                    })
                    .collect(),
            },
            ..NetworkSpec::default()
        },
    )
}

pub(crate) fn service_spec() -> impl Strategy<Value = ServiceSpec> {
    let networks = proptest::collection::vec(0u8..5, 0..3);
    (0u8..4, networks, prop::bool::weighted(0.25), 0u64..4, 0u64..3).prop_map(
        |(name, networks, dnsrr, replicas, force_update)| ServiceSpec {
            name: format!("web-{name}"),
            task_template: TaskSpec {
                container_spec: ContainerSpec {
                    image: "busybox".into(),
                    ..ContainerSpec::default()
                },
                networks: networks
                    .into_iter()
                    .map(|n| NetworkAttachmentConfig {
                        target: network_id(n),
                        aliases: vec![format!("alias-{n}")],
                    })
                    .collect(),
                force_update,
                ..TaskSpec::default()
            },
            mode: ServiceMode::replicated(replicas),
            endpoint_spec: EndpointSpec {
                mode: if dnsrr { EndpointMode::Dnsrr } else { EndpointMode::Vip },
            },
            ..ServiceSpec::default()
        },
    )
}

/// A daemon that speaks this level.
pub(crate) fn engine(level: u32) -> EngineDescription {
    let feature_level = FeatureLevel::new(level).unwrap();
    EngineDescription { engine_version: format!("0.{level}"), feature_level }
}

pub(crate) fn description(host: u8, mtu: u32, v6: bool, routes: Vec<u8>) -> NodeDescription {
    let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, host));
    let v6_addr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()));
    NodeDescription {
        hostname: format!("host-{host}"),
        underlay_mtu: (mtu != 0).then_some(mtu),
        data_path_addr: Some(if v6 { v6_addr } else { v4 }),
        routes: Some(
            routes
                .into_iter()
                .map(|n| format!("10.0.0.{}/29", n & 0xf8).parse().unwrap())
                .collect(),
        ),
        ..NodeDescription::default()
    }
}

fn readiness() -> impl Strategy<Value = Option<Readiness>> {
    prop::sample::select(vec![None, Some(Readiness::Listening), Some(Readiness::Silent)])
}

pub(crate) fn task_state() -> impl Strategy<Value = TaskState> {
    prop::sample::select(vec![
        TaskState::New,
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Accepted,
        TaskState::Preparing,
        TaskState::Ready,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Running,
        TaskState::Complete,
        TaskState::Shutdown,
        TaskState::Failed,
        TaskState::Rejected,
        TaskState::Orphaned,
        TaskState::Remove,
    ])
}

fn node() -> impl Strategy<Value = NodeId> {
    (0u8..4).prop_map(node_id)
}

fn network() -> impl Strategy<Value = NetworkId> {
    (0u8..5).prop_map(network_id)
}

fn service() -> impl Strategy<Value = ServiceId> {
    (0u8..4).prop_map(service_id)
}

fn task() -> impl Strategy<Value = TaskId> {
    (0u8..10).prop_map(task_id)
}

fn node_op() -> impl Strategy<Value = Change> {
    let role = prop::sample::select(vec![NodeRole::Worker, NodeRole::Manager]);
    let routes = proptest::collection::vec(any::<u8>(), 0..2);
    let availability = prop::option::of(prop::sample::select(vec![
        Availability::Active,
        Availability::Pause,
        Availability::Drain,
    ]));
    let labels = proptest::collection::btree_map("[a-c ]", "[xy]?", 0..2);
    let encryption = prop_oneof![
        1 => Just(NodeEncryption::default()),
        4 => (1u64..3).prop_map(esp),
    ];
    prop_oneof![
        2 => (node(), role.clone()).prop_map(|(id, role)| Change::SetNodeRole { id, role }),
        2 => node().prop_map(|id| Change::DropManager { id }),
        2 => (node(), role).prop_map(|(id, role)| Change::AddNode {
            hostname: format!("host-of-{id}"),
            addr: format!("{id}:2377"),
            id,
            role,
            engine: Default::default(),
        }),
        4 => (node(), 0u8..4, prop::sample::select(vec![0, 40, 1400, 1500, 9000]), prop::bool::weighted(0.2), routes, encryption)
            .prop_map(|(id, host, mtu, v6, routes, encryption)| Change::DescribeNode {
                addr: format!("{id}:2377"),
                id,
                description: Box::new(NodeDescription {
                    listen_addr: if mtu == 40 { String::new() } else { format!("192.0.2.{host}:2377") },
                    encryption,
                    tls_info: tls_info("0"),
                    engine: engine(if host == 0 { 2 } else { 3 }),
                    ..description(host, mtu, v6, routes)
                }),
            }),
        1 => (node(), any::<bool>()).prop_map(|(id, down)| Change::SetNodeState {
            id,
            state: if down { NodeState::Down } else { NodeState::Ready },
            message: "not heard of".into(),
        }),
        1 => (node(), prop::sample::select(vec!["", "nft is stuck"])).prop_map(|(id, reason)| {
            Change::NoteNodeTrouble { id, reason: reason.into() }
        }),
        1 => (node(), availability, labels, proptest::collection::vec("[a ]", 0..2)).prop_map(
            |(id, availability, label_add, label_rm)| Change::UpdateNode {
                id,
                availability,
                label_add,
                label_rm,
            }
        ),
        1 => (node(), prop::bool::weighted(0.2))
            .prop_map(|(id, force)| Change::RemoveNode { id, force }),
    ]
}

fn service_op() -> impl Strategy<Value = Op> {
    let status = Change::SetUpdateStatus {
        id: service_id(0),
        status: UpdateStatus {
            state: UpdateState::Paused,
            started_at: Timestamp(1),
            completed_at: None,
            message: "paused".into(),
        },
    };
    prop_oneof![
        4 => (service(), service_spec())
            .prop_map(|(id, spec)| Op::Plain(Change::CreateService { id, spec: Box::new(spec) })),
        3 => (service(), service_spec(), prop::bool::weighted(0.1))
            .prop_map(|(service, spec, stale)| Op::Update { service, spec: Box::new(spec), stale }),
        1 => (service(), prop_oneof![4 => 0u64..5, 1 => Just(200_000)])
            .prop_map(|(id, replicas)| Op::Plain(Change::ScaleService { id, replicas })),
        1 => service().prop_map(|id| Op::Plain(Change::RemoveService { id })),
        3 => (service(), any::<usize>())
            .prop_map(|(id, pick)| Op::At(Change::PurgeService { id }, pick)),
        1 => any::<usize>().prop_map(move |pick| Op::At(status.clone(), pick)),
    ]
}

fn task_op() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (task(), service(), 1u64..4, prop::option::of(node()))
            .prop_map(|(id, service, slot, node)| Change::CreateTask { id, service, slot, node }),
        1 => task().prop_map(|id| Change::AllocateTask { id }),
        5 => (task(), node()).prop_map(|(id, node)| Change::AssignTask { id, node }),
        1 => task().prop_map(|id| Change::ExplainTask { id, err: "no suitable node".into() }),
        5 => (task(), task_state(), readiness()).prop_map(|(id, state, readiness)| Change::ReportTask {
            id,
            status: TaskStatus { state, message: "reported".into(), readiness, ..TaskStatus::default() },
        }),
        1 => task().prop_map(|id| Change::WithdrawTask { id }),
        1 => task().prop_map(|id| Change::SupersedeTask { id }),
        2 => (task(), task_state()).prop_map(|(id, state)| Change::SetDesiredState { id, state }),
        2 => (task(), any::<u8>()).prop_map(|(id, as_of)| Change::StopTask { id, as_of: as_of.into() }),
        2 => task().prop_map(|id| Change::RemoveTask { id }),
    ]
}

fn key_op() -> impl Strategy<Value = Op> {
    let secret = any::<[u8; 32]>().prop_map(NetworkSecret);
    prop_oneof![
        3 => secret.prop_map(|secret| Op::NextKey(Change::AddNetworkKey { generation: 0, secret })),
        2 => Just(Op::NextKey(Change::SendWithNetworkKey { generation: 0 })),
        2 => Just(Op::NextKey(Change::RemoveNetworkKey { generation: 0 })),
        1 => (0u32..4).prop_map(|generation| {
            Op::Plain(Change::SendWithNetworkKey { generation })
        }),
        1 => (0u32..4).prop_map(|generation| Op::Plain(Change::RemoveNetworkKey { generation })),
        1 => Just(Op::Plain(Change::RotateNetworkKeys)),
    ]
}

/// One change.
pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::Plain(Change::CreateCluster(Box::new(cluster())))),
        1 => Just(Op::Plain(Change::SetJoinTokens(JoinTokens { worker: tokens("second").worker, ..tokens("first") }))),
        1 => prop_oneof![4 => Just(0u8), 1 => Just(1u8)].prop_map(Op::RotateRoot),
        1 => (1u32..4).prop_map(|level| {
            let level = FeatureLevel::new(level).unwrap();
            Op::Plain(Change::RaiseFeatureLevel { level })
        }),
        4 => Just(Op::FinishRootRotation),
        1 => (0u8..4, 0u8..3).prop_map(|(n, key)| {
            let tls_info = tls_info(&key.to_string());
            Op::Plain(Change::SetNodeTls { id: node_id(n), tls_info })
        }),
        6 => (0u8..4).prop_map(Op::Certify),
        8 => node_op().prop_map(Op::Plain),
        1 => node().prop_map(Op::TakeOver),
        6 => (network(), network_spec())
            .prop_map(|(id, spec)| Op::Plain(Change::CreateNetwork { id, spec })),
        1 => network().prop_map(|id| Op::Plain(Change::RemoveNetwork { id })),
        12 => service_op(),
        5 => key_op(),
        3 => task_op().prop_map(Op::Plain),
        30 => (task_op(), any::<usize>()).prop_map(|(change, pick)| Op::At(change, pick)),
    ]
}

/// The world that a log begins with, so that the rest of it meets something.
fn beginning() -> Vec<Op> {
    let mut ops = vec![];
    for n in 0..3 {
        let (id, addr) = (node_id(n), format!("node{n}:2377"));
        let encryption = esp(1);
        let description = NodeDescription { encryption, ..description(n, 1500, false, vec![]) };
        let description = Box::new(description);
        let (role, hostname) = (NodeRole::Manager, format!("host-{n}"));
        ops.push(Change::AddNode {
            id: id.clone(),
            role,
            hostname,
            addr: addr.clone(),
            engine: Default::default(),
        });
        ops.push(Change::DescribeNode { id, description, addr });
    }
    for n in 0..4 {
        let mut spec = NetworkSpec {
            name: format!("network-{n}"),
            driver: "overlay".into(),
            options: options(n < 2),
            ..NetworkSpec::default()
        };
        let subnet = Some(format!("10.5.{n}.0/29").parse().unwrap());
        spec.ipam.config = vec![IpamConfig { subnet, ..IpamConfig::default() }];
        ops.push(Change::CreateNetwork { id: network_id(n), spec });
    }
    ops.push(Change::AddNetworkKey { generation: 1, secret: NetworkSecret([7; 32]) });
    ops.into_iter().map(Op::Plain).collect()
}

/// A log, from nothing or from a small world.
pub(crate) fn ops(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Op>> {
    let rest = proptest::collection::vec(op(), length);
    (prop::bool::weighted(0.9), rest).prop_map(|(begun, rest)| {
        let first = if begun { beginning() } else { vec![] };
        first.into_iter().chain(rest).collect()
    })
}
