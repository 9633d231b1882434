//! What managers ask of the replicated state, and what it answers. These are persisted in the Raft log:
//! only additions are allowed, each at a feature level of its own (`level.rs`).

use serde::{Deserialize, Serialize};
use swarm_model::{
    Availability, Cluster, EngineDescription, FeatureLevel, JoinTokens, Labels, NetworkId,
    NetworkSecret, NetworkSpec, NodeDescription, NodeId, NodeRole, NodeState, RootCaDocument,
    ServiceId, ServiceSpec, TaskId, TaskState, TaskStatus, Timestamp, TlsInfo, UnlockKeyText,
    UpdateStatus,
};

/// A list of changes proposed at one moment. Each change takes effect or is rejected by itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// The proposer's clock: the time of creation or update of what is changed.
    pub now: Timestamp,
    /// The changes, applied in order.
    pub changes: Vec<Change>,
}

/// One change. Only additions are allowed, also within a change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Change {
    /// Makes the cluster: the first change of all.
    CreateCluster(Box<Cluster>),
    /// Replaces one of the join tokens.
    SetJoinTokens(JoinTokens),
    /// A node joined. A manager is given a Raft id.
    AddNode {
        /// The new node's id.
        id: NodeId,
        /// Its role.
        role: NodeRole,
        /// Its host name, as it says.
        hostname: String,
        /// Where a manager's gRPC listens, `host:port`; its advertised address for a worker.
        addr: String,
        /// Its daemon.
        engine: EngineDescription,
    },
    /// A node opened a session: what it says of itself. It is ready now.
    DescribeNode {
        /// The node.
        id: NodeId,
        /// What it says.
        description: Box<NodeDescription>,
        /// The address it is known by.
        addr: String,
    },
    /// A node was not heard of for too long, or left; or it is heard of again.
    SetNodeState {
        /// The node.
        id: NodeId,
        /// The new state.
        state: NodeState,
        /// Why.
        message: String,
    },
    /// Forgets a node. It must be down unless forced; its tasks become orphans.
    RemoveNode {
        /// The node.
        id: NodeId,
        /// Even if it is not down.
        force: bool,
    },
    /// Creates a network: allocates its VNI and, unless asked for, its subnet.
    CreateNetwork {
        /// The new network's id.
        id: NetworkId,
        /// What is asked.
        spec: NetworkSpec,
    },
    /// Removes a network that nothing uses.
    RemoveNetwork {
        /// The network.
        id: NetworkId,
    },
    /// Creates a service: allocates its virtual addresses.
    CreateService {
        /// The new service's id.
        id: ServiceId,
        /// What is wanted.
        spec: Box<ServiceSpec>,
    },
    /// Replaces a service's spec.
    UpdateService {
        /// The service.
        id: ServiceId,
        /// The version the new spec was based on; rejected if the service changed since.
        version: u64,
        /// What is wanted now.
        spec: Box<ServiceSpec>,
    },
    /// Changes how many tasks are wanted, whatever else changed meanwhile.
    ScaleService {
        /// The service.
        id: ServiceId,
        /// How many tasks.
        replicas: u64,
    },
    /// Marks a service for deletion; it goes with its last task.
    RemoveService {
        /// The service.
        id: ServiceId,
    },
    /// Forgets a service marked for deletion that has no unfinished task.
    PurgeService {
        /// The service.
        id: ServiceId,
    },
    /// Notes how far a rolling update is.
    SetUpdateStatus {
        /// The service.
        id: ServiceId,
        /// How far.
        status: UpdateStatus,
    },
    /// Creates a task in a slot that has none, with the service's current template, allocates its addresses and places it
    /// on a node. Without a free address the task stays `new` and says why; without a node it stays `pending`.
    CreateTask {
        /// The new task's id.
        id: TaskId,
        /// The service.
        service: ServiceId,
        /// The slot.
        slot: u64,
        /// The node, if one takes it.
        node: Option<NodeId>,
    },
    /// Tries again to allocate the addresses of a `new` task.
    AllocateTask {
        /// The task.
        id: TaskId,
    },
    /// Places a pending task on a node.
    AssignTask {
        /// The task.
        id: TaskId,
        /// The node.
        node: NodeId,
    },
    /// Notes why a task is not placed.
    ExplainTask {
        /// The task.
        id: TaskId,
        /// Why.
        err: String,
    },
    /// A node reports on a task; or a manager, for a node that is gone. States only go forward.
    ReportTask {
        /// The task.
        id: TaskId,
        /// The new status.
        status: TaskStatus,
    },
    /// Takes a task out of DNS and the balancers. It runs on until every node acknowledged that.
    WithdrawTask {
        /// The task.
        id: TaskId,
    },
    /// Sets what a task should be brought to; only forward. Older logs have it for [`Change::StopTask`].
    SetDesiredState {
        /// The task.
        id: TaskId,
        /// The state.
        state: TaskState,
    },
    /// Forgets a finished task.
    RemoveTask {
        /// The task.
        id: TaskId,
    },
    /// Adds a generation of keys of encrypted networks, for nodes to accept. The first one is sent with
    /// at once.
    AddNetworkKey {
        /// One more than the newest.
        generation: u32,
        /// What its keys are derived from.
        secret: NetworkSecret,
    },
    /// Has nodes send with a generation, newer than the one they send with.
    SendWithNetworkKey {
        /// The generation.
        generation: u32,
    },
    /// Removes a generation older than the one that nodes send with.
    RemoveNetworkKey {
        /// The generation.
        generation: u32,
    },
    /// Asks the leader for a new generation.
    RotateNetworkKeys,
    /// Changes what the user wants of a node, but for its role.
    UpdateNode {
        /// The node.
        id: NodeId,
        /// Whether it takes tasks, if that changes.
        availability: Option<Availability>,
        /// Labels to set.
        label_add: Labels,
        /// Labels to take away: it must have them.
        label_rm: Vec<String>,
    },
    /// Leaves a task's slot to another one, which is to be created. The task serves until that one does.
    SupersedeTask {
        /// The task.
        id: TaskId,
    },
    /// Changes what the user wants a node to be. A new manager is given a Raft id. One that is to be a manager no
    /// more goes on voting until [`Change::DropManager`].
    SetNodeRole {
        /// The node.
        id: NodeId,
        /// Its role from now on.
        role: NodeRole,
    },
    /// Notes that a node which is to be a worker votes no more.
    DropManager {
        /// The node.
        id: NodeId,
    },
    /// A manager goes on alone: all others are workers from now on. It joins by this if it is no node yet.
    TakeOver {
        /// The node.
        id: NodeId,
        /// Its host name.
        hostname: String,
        /// Where its gRPC listens now.
        addr: String,
        /// Its id in Raft now.
        raft_id: u64,
        /// Its daemon.
        engine: EngineDescription,
    },
    /// Has a task stopped that is on no live node, or that every live node in its networks has withdrawn.
    /// Rejected if a node is there that was not at `as_of`: it has the kernel it left with.
    StopTask {
        /// The task.
        id: TaskId,
        /// The revision at which that was so.
        as_of: u64,
    },
    /// Has managers lock themselves, with this unlock key unless there is one already; or no more.
    SetAutoLock {
        /// None to end it.
        unlock_key: Option<UnlockKeyText>,
    },
    /// Replaces the unlock key of managers that lock themselves.
    RotateUnlockKey {
        /// The new one.
        unlock_key: UnlockKeyText,
    },
    /// Has another authority issue all certificates from now on; one that was to follow before is given up.
    RotateRoot(Box<RotateRoot>),
    /// Drops the former authority: every node has a certificate of the next one.
    FinishRootRotation {
        /// The revision that began the rotation.
        revision: u64,
    },
    /// A node told of another certificate, or of other roots.
    SetNodeTls {
        /// The node.
        id: NodeId,
        /// What it has now.
        tls_info: TlsInfo,
    },
    /// A node that is ready told why its data plane lags behind. It is no sign of life: a node that went down or left
    /// stays so.
    NoteNodeTrouble {
        /// The node.
        id: NodeId,
        /// Why, in words; empty once it no longer does.
        reason: String,
    },
    /// Raises the swarm's feature level: all nodes are there, and speak it.
    RaiseFeatureLevel {
        /// The level, above the present one.
        level: FeatureLevel,
    },
}

/// See [`Change::RotateRoot`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RotateRoot {
    /// The version of the cluster that this was based on; rejected if it changed since.
    pub version: u64,
    /// The next authority.
    pub root_ca: RootCaDocument,
    /// Its certificate as signed by the present one.
    pub cross_signed_pem: String,
    /// Its key, as nodes tell it.
    pub issuer_public_key: String,
    /// Tokens with the digest of its certificate.
    pub join_tokens: JoinTokens,
}

/// What a change that took effect gives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The revision of the change.
    pub revision: u64,
    /// The Raft id of a manager just added.
    #[serde(default)]
    pub raft_id: Option<u64>,
}

/// Why a change did not take effect; nothing of it did. Only additions are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejected {
    /// There is no such object.
    #[error("{0} not found")]
    NotFound(String),
    /// There is one of that name or id.
    #[error("{0} already exists")]
    Exists(String),
    /// Something still needs it.
    #[error("{0}")]
    InUse(String),
    /// It changed since the version the change was based on.
    #[error("{0} is out of date: it was changed meanwhile, try again")]
    OutOfDate(String),
    /// It is not as it must be.
    #[error("{0}")]
    Invalid(String),
    /// There are no more addresses, subnets or VNIs.
    #[error("{0}")]
    Exhausted(String),
    /// It is above what a node, or the swarm, speaks.
    #[error("{0}")]
    Level(String),
}

/// An object that a command changed, created or removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Touched {
    /// The cluster's settings.
    Cluster,
    /// A node.
    Node(NodeId),
    /// A network.
    Network(NetworkId),
    /// A service.
    Service(ServiceId),
    /// A task, of a service.
    Task(TaskId, ServiceId),
    /// The finished tasks that a node remembers: one was forgotten.
    NodeHistory(NodeId),
    /// The keys of encrypted networks.
    NetworkKeys,
    /// Which nodes carry a network.
    Carriers(NetworkId),
    /// What the nodes in a network are told of a task.
    Endpoint(NetworkId),
    /// What a node is told of one of its tasks.
    Assignment(NodeId),
    /// The certificate of a node.
    NodeCertificate(NodeId),
}
