//! Nodes: the hosts of the swarm.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{FeatureLevel, Labels, Meta, NodeEncryption, NodeId};

/// A host that joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    /// The node's id, the `CN` of its certificate.
    #[serde(rename = "ID")]
    pub id: NodeId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// What the user wants of it.
    pub spec: NodeSpec,
    /// What it says of itself.
    pub description: NodeDescription,
    /// What the managers think of it.
    pub status: NodeStatus,
    /// Its part in Raft; none for a worker.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manager_status: Option<ManagerStatus>,
    /// A small number that no other node has or ever had; 0 as long as no network was ever encrypted.
    #[serde(default)]
    pub ordinal: u32,
}

impl Node {
    /// Whether tasks on this node count: it is heard of.
    pub fn is_alive(&self) -> bool {
        self.status.state == NodeState::Ready
    }

    /// Whether new tasks may be placed here.
    pub fn takes_tasks(&self) -> bool {
        self.is_alive() && self.spec.availability == Availability::Active
    }

    /// Whether it can be part of encrypted networks.
    pub fn has_esp(&self) -> bool {
        self.description.encryption.is_capable()
    }

    /// Whether it is a manager.
    pub fn is_manager(&self) -> bool {
        self.spec.role == NodeRole::Manager
    }
}

/// What the user wants of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeSpec {
    /// User labels.
    pub labels: Labels,
    /// Worker or manager.
    pub role: NodeRole,
    /// Whether it takes tasks.
    pub availability: Availability,
}

/// A node's role. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Runs tasks.
    #[default]
    Worker,
    /// Votes in Raft, and runs tasks too.
    Manager,
}

/// Whether a node takes tasks. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Takes tasks.
    #[default]
    Active,
    /// Keeps its tasks, takes no new ones.
    Pause,
    /// Gives its tasks up.
    Drain,
}

/// What a node says of itself when it opens a session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeDescription {
    /// The host's name.
    pub hostname: String,
    /// Architecture and operating system, in OCI's words (`amd64`, `linux`).
    pub platform: Platform,
    /// CPUs and memory.
    pub resources: Resources,
    /// The daemon.
    pub engine: EngineDescription,
    /// The smallest MTU of the interfaces that carry the overlay, in bytes; none if that could not be found out.
    #[serde(rename = "UnderlayMTU")]
    pub underlay_mtu: Option<u32>,
    /// Every IPv4 prefix the host has a route for; subnets from the pool keep clear of them. None if they could not be
    /// listed, which is not the same as having none.
    pub routes: Option<Vec<IpNet>>,
    /// The VTEP: where other nodes send VXLAN packets for tasks here.
    pub data_path_addr: Option<IpAddr>,
    /// The balancer engine in use and why.
    pub balancer: String,
    /// Where its gRPC listens, `host:port`: managers reach its tasks' logs and consoles there.
    pub listen_addr: String,
    /// Whether it can be part of encrypted networks.
    pub encryption: NodeEncryption,
    /// Its certificate and the roots it trusts.
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
}

/// Which certificate a node has, and which it trusts: while the root is being rotated, how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TlsInfo {
    /// The root certificates it trusts, PEM.
    pub trust_root: String,
    /// The distinguished name of the root that issued its certificate, base64 of DER.
    pub cert_issuer_subject: String,
    /// The key of that root, base64 of DER: roots of one name differ by it.
    pub cert_issuer_public_key: String,
}

/// Architecture and operating system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Platform {
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `linux`.
    #[serde(rename = "OS")]
    pub os: String,
}

/// CPUs and memory of a node, or limits of a task. Zero means none given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Resources {
    /// Billionths of a CPU.
    #[serde(rename = "NanoCPUs")]
    pub nano_cpus: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// The daemon on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineDescription {
    /// The version of `swarmd`.
    pub engine_version: String,
    /// The newest feature level it speaks.
    pub feature_level: FeatureLevel,
}

impl EngineDescription {
    /// The daemon that this is compiled into.
    pub fn of_this_build() -> EngineDescription {
        EngineDescription {
            engine_version: env!("CARGO_PKG_VERSION").into(),
            feature_level: FeatureLevel::NEWEST,
        }
    }
}

/// What the managers think of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeStatus {
    /// Heard of or not.
    pub state: NodeState,
    /// Why, in words.
    pub message: String,
    /// The node's advertised address.
    pub addr: String,
}

/// Whether a node is heard of. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Joined, but no session yet.
    #[default]
    Unknown,
    /// Not heard of for too long, or it left.
    Down,
    /// Has a session.
    Ready,
}

/// A manager's part in Raft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManagerStatus {
    /// Whether it leads. Filled in when shown; false in the replicated state.
    #[serde(default)]
    pub leader: bool,
    /// Whether the leader hears of it. Filled in when shown.
    #[serde(default)]
    pub reachability: Reachability,
    /// Where its gRPC listens, `host:port`.
    pub addr: String,
    /// Its id in Raft, never reused.
    #[serde(rename = "RaftID")]
    pub raft_id: u64,
}

/// Whether a manager is reachable. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reachability {
    /// Not known.
    #[default]
    Unknown,
    /// Not reachable.
    Unreachable,
    /// Reachable.
    Reachable,
}

/// Where a manager is, as nodes are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManagerAddress {
    /// The manager's node id.
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    /// `host:port`.
    pub addr: String,
}
