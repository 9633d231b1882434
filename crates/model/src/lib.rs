//! The objects of the cluster: nodes, services, tasks, networks, their specs and ids.
//!
//! Pure data: no clock, no random numbers, no I/O. Field names are those of Docker's API, so that what
//! `inspect` prints is what its users' scripts expect. These shapes are also what Raft replicates, so
//! enums and structs only ever grow.

#![forbid(unsafe_code)]
// Pure: clippy.toml lists what is banned, and why.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod assignment;
mod cluster;
pub mod codec;
mod encryption;
mod id;
mod level;
mod meta;
mod mtu;
mod network;
mod node;
mod ports;
pub mod quantity;
mod readiness;
mod service;
mod task;
mod validate;

pub use assignment::{
    Assignment, Began, EndpointState, EndpointView, Item, ItemKey, NetworkView, NodeView,
    SecurityAssociation, ServiceView, TunnelView, ViewDelta, Wanted,
};
pub use cluster::{
    Cluster, ClusterSpec, EncryptionConfig, JoinTokens, ManagerLock, RootCaDocument, RootRotation,
    UnlockKeyText,
};
pub use encryption::{
    ENCRYPTED_OPTION, ESP_CIPHER, EspKey, KeyRing, NetworkKey, NetworkSecret, NodeEncryption,
    Rotation,
};
pub use id::{ClusterId, Id, NetworkId, NodeId, ServiceId, TaskId};
pub use level::FeatureLevel;
pub use meta::{Labels, Meta, Timestamp, Version};
pub use mtu::overlay_mtu;
pub use network::{DEFAULT_DRIVER, Ipam, IpamConfig, MTU_OPTION, Network, NetworkSpec, overlap};
pub use node::{
    Availability, EngineDescription, ManagerAddress, ManagerStatus, Node, NodeDescription,
    NodeRole, NodeSpec, NodeState, NodeStatus, Platform, Reachability, Resources, TlsInfo,
};
pub use ports::{PortMap, Ports, Protocol};
pub use readiness::{READY_TIMEOUT_LABEL, Readiness};
pub use service::{
    ContainerSpec, Endpoint, EndpointMode, EndpointSpec, NetworkAttachmentConfig, Replicated,
    ResourceRequirements, RestartCondition, RestartPolicy, Service, ServiceMode, ServiceSpec,
    TaskSpec, UpdateState, UpdateStatus, VirtualIp,
};
pub use swarm_family::{ipv4_addr, ipv4_net};
pub use task::{Attachment, AttachmentNetwork, ContainerStatus, Task, TaskState, TaskStatus};
pub use validate::{
    Invalid, image_reference, network_name, network_spec, node_hostname, node_labels, service_name,
    service_spec,
};
