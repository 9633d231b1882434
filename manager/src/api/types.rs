//! What the manager API is asked and answers, where the model has no type for it.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use swarm_model::{
    Availability, Labels, Network, NodeRole, Service, TaskId, TaskState, Timestamp, UnlockKeyText,
};

/// What was created or changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// The object's id; empty if it is the swarm.
    pub id: String,
    /// The revision of the change; 0 if there was none, or if it changed nothing but a node's role.
    pub revision: u64,
    /// What the user should know of it.
    pub warnings: Vec<String>,
}

/// A list. It is answered without a quorum, too.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    /// What there is.
    pub items: Vec<T>,
    /// Why it may be out of date; empty if it is not.
    pub stale: String,
}

/// A service as lists show it.
#[derive(Debug, Clone)]
pub struct ServiceOverview {
    /// The service.
    pub service: Arc<Service>,
    /// How many of its tasks run.
    pub running: u64,
}

/// How far a service is from being as wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tasks wanted.
    pub desired: u64,
    /// Of these, the ones that run the current spec.
    pub running: u64,
    /// Tasks of the service that are on their way out.
    pub stopping: u64,
    /// Nodes whose data plane holds the service's networks.
    pub nodes: u64,
    /// Of these, the ones that acknowledged.
    pub nodes_in_force: u64,
    /// The nodes that have not, each with why, if it has said.
    pub lagging: Vec<String>,
    /// The tasks by slot.
    pub slots: Vec<SlotProgress>,
    /// All is as wanted: there is no more news.
    pub converged: bool,
    /// It will not become as wanted, and why: there is no more news.
    pub failure: String,
}

/// How far a service's task in one slot is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotProgress {
    /// The slot.
    pub slot: u64,
    /// The task's state: as its word, since the leader that tells it may be newer and know more of them.
    pub state: String,
    /// The error of the task, or of the last one that failed in this slot.
    pub err: String,
    /// What a task is waited for, or that it runs though it does not listen; else empty.
    pub message: String,
}

/// A network, and who is in it.
#[derive(Debug, Clone)]
pub struct NetworkDetails {
    /// The network.
    pub network: Arc<Network>,
    /// The nodes that carry it.
    pub peers: Vec<NetworkPeer>,
    /// The services in it, if they were asked for.
    pub services: Option<Vec<NetworkService>>,
    /// Its keys, if it is encrypted.
    pub encryption: Option<Encryption>,
}

/// A node that carries a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPeer {
    /// The node's host name.
    pub hostname: String,
    /// Where others reach its part of the network.
    pub addr: String,
    /// How far it is with the network's keys, in words, if it is encrypted.
    pub keys: Option<String>,
}

/// A service in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkService {
    /// The service's name.
    pub name: String,
    /// Its address there.
    pub vip: Option<IpAddr>,
    /// Its tasks there.
    pub tasks: Vec<NetworkTask>,
}

/// A task in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkTask {
    /// The task's id.
    pub id: TaskId,
    /// Its name.
    pub name: String,
    /// Its address there.
    pub addr: IpAddr,
    /// Its state.
    pub state: TaskState,
    /// The VTEP of its node.
    pub host: Option<IpAddr>,
}

/// What is told of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// The key that is sent with; none before there is one.
    pub key: Option<SendingKey>,
    /// How far a rotation is, in words; empty if there is none.
    pub rotation: String,
}

/// What is told of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendingKey {
    /// Counts from 1.
    pub generation: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What is to change of a node; the rest stays.
#[derive(Debug, Clone, Default)]
pub struct NodeUpdate {
    /// Whether it takes tasks.
    pub availability: Option<Availability>,
    /// Whether it is a manager; that is waited for.
    pub role: Option<NodeRole>,
    /// Labels to set.
    pub label_add: Labels,
    /// Labels to take away: it must have them.
    pub label_rm: Vec<String>,
}

/// What a host joins with. It is a secret: never to be in a log.
#[derive(Clone)]
pub struct JoinAnswer {
    /// The token, which gives the role.
    pub token: String,
    /// A manager's address.
    pub addr: String,
}

/// The unlock key as it is now.
#[derive(Debug, Clone)]
pub struct UnlockKeyInForce {
    /// None if managers do not lock themselves.
    pub key: Option<UnlockKeyText>,
    /// Which managers have not heard of the change, and need a former key.
    pub warnings: Vec<String>,
}

/// The root certificate that is in force, or is to be, and how far that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootStatus {
    /// The certificate; the next one while it is being rotated.
    pub root_pem: String,
    /// `sha256:` and the digest of its DER, in hex.
    pub digest: String,
    /// The former one is still trusted.
    pub rotating: bool,
    /// How many nodes there are.
    pub nodes: u64,
    /// Of these, how many have a certificate of the root...
    pub certificates: u64,
    /// ...and how many trust no other.
    pub trusting: u64,
    /// The nodes without such a certificate, each with why it may take a while.
    pub waiting: Vec<String>,
    /// All live nodes are there.
    pub converged: bool,
}

/// Which logs, and how much of them.
#[derive(Debug, Clone)]
pub struct LogsQuery {
    /// A service or a task.
    pub name: String,
    /// Goes on with what is written later.
    pub follow: bool,
    /// The number of lines from the end of each task's log; all if none is given.
    pub tail: Option<u64>,
}

/// A line of a task's log, or why it cannot be had.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// The task.
    pub task_id: TaskId,
    /// `service.slot`
    pub task_name: String,
    /// The host name of its node, if the line is from there.
    pub node: String,
    /// The line, or in words why there is none.
    pub line: Result<LogLine, String>,
}

/// What a task wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When.
    pub time: Timestamp,
    /// "stdout" or "stderr".
    pub stream: String,
    /// Without the line end.
    pub line: Bytes,
}

/// A command to run in a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// On a terminal.
    pub tty: bool,
    /// It is given input.
    pub stdin: bool,
    /// The size of the terminal.
    pub size: Option<TerminalSize>,
    /// More environment, as `NAME=value`.
    pub env: Vec<String>,
    /// As whom; the container's user if empty.
    pub user: String,
    /// Where; the container's directory if empty.
    pub workdir: String,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u32,
    /// Characters of a line.
    pub columns: u32,
}

/// What a running command is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Input.
    Stdin(Bytes),
    /// The end of its input.
    StdinClosed,
    /// Another size of its terminal.
    Resize(TerminalSize),
}

/// What a running command gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// Output.
    Stdout(Bytes),
    /// Output of errors.
    Stderr(Bytes),
    /// Its end.
    ExitCode(i32),
}
