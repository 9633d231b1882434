//! Services: what the user wants to run.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::{Labels, Meta, NetworkId, Resources, ServiceId, Timestamp};

/// A service: its spec, and the addresses allocated for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    /// The service's id.
    #[serde(rename = "ID")]
    pub id: ServiceId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What was wanted before the last update.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous_spec: Option<ServiceSpec>,
    /// Virtual addresses.
    pub endpoint: Endpoint,
    /// The rolling update in progress, or the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub update_status: Option<UpdateStatus>,
    /// The service was removed; it goes when its last task has stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending_delete: bool,
    /// A task of this template listened nowhere for as long as it may take: further ones are not waited for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
}

impl Service {
    /// How many tasks are wanted.
    pub fn replicas(&self) -> u64 {
        let ServiceMode::Replicated(replicated) = &self.spec.mode;
        if self.pending_delete { 0 } else { replicated.replicas }
    }

    /// How long a task that is created now may take until it listens; zero is not to wait.
    pub fn ready_timeout(&self) -> Duration {
        // A label that is no duration was refused when the spec was given.
        let timeout = self.spec.ready_timeout().unwrap_or_default();
        if self.silent { Duration::ZERO } else { timeout }
    }
}

/// What the user wants of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceSpec {
    /// The name, unique in the cluster, and its name in DNS.
    pub name: String,
    /// User labels.
    pub labels: Labels,
    /// What each task runs.
    pub task_template: TaskSpec,
    /// How many tasks.
    pub mode: ServiceMode,
    /// How the service is found.
    pub endpoint_spec: EndpointSpec,
}

/// How many tasks a service has. Only additions are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Modes", into = "Modes")]
pub enum ServiceMode {
    /// A fixed number of tasks.
    Replicated(Replicated),
}

impl ServiceMode {
    /// A fixed number of tasks.
    pub fn replicated(replicas: u64) -> ServiceMode {
        ServiceMode::Replicated(Replicated { replicas })
    }
}

/// Docker's shape: a field for each mode, of which one is there. None means one task.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Modes {
    #[serde(skip_serializing_if = "Option::is_none")]
    replicated: Option<Replicated>,
}

impl From<Modes> for ServiceMode {
    fn from(modes: Modes) -> ServiceMode {
        ServiceMode::Replicated(modes.replicated.unwrap_or_default())
    }
}

impl From<ServiceMode> for Modes {
    fn from(ServiceMode::Replicated(replicated): ServiceMode) -> Modes {
        Modes { replicated: Some(replicated) }
    }
}

impl Default for ServiceMode {
    fn default() -> ServiceMode {
        ServiceMode::Replicated(Replicated::default())
    }
}

/// A fixed number of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Replicated {
    /// The number of tasks.
    pub replicas: u64,
}

impl Default for Replicated {
    fn default() -> Replicated {
        Replicated { replicas: 1 }
    }
}

/// What a task runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskSpec {
    /// The container.
    pub container_spec: ContainerSpec,
    /// Limits.
    pub resources: ResourceRequirements,
    /// What happens when it ends.
    pub restart_policy: RestartPolicy,
    /// The networks it is attached to.
    pub networks: Vec<NetworkAttachmentConfig>,
    /// Raised by `update --force`, so that tasks are replaced though nothing else changed.
    pub force_update: u64,
}

/// What a container runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSpec {
    /// The image reference; with a digest once it was resolved.
    pub image: String,
    /// Labels of the container.
    pub labels: Labels,
    /// Replaces the image's entry point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Nanoseconds between the stop signal and SIGKILL; none means 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<u64>,
}

impl ContainerSpec {
    /// The time between the stop signal and SIGKILL.
    pub fn grace(&self) -> Duration {
        self.stop_grace_period.map_or(Duration::from_secs(10), Duration::from_nanos)
    }
}

/// Limits of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResourceRequirements {
    /// What it may use at most; zero means no limit.
    pub limits: Resources,
}

/// What happens when a task ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// When a task is replaced.
    pub condition: RestartCondition,
    /// Nanoseconds to wait before the replacement starts.
    pub delay: u64,
}

impl Default for RestartPolicy {
    fn default() -> RestartPolicy {
        RestartPolicy { condition: RestartCondition::Any, delay: 5_000_000_000 }
    }
}

/// When an ended task is replaced. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Never.
    None,
    /// When it failed.
    OnFailure,
    /// Always.
    #[default]
    Any,
}

/// One attachment to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkAttachmentConfig {
    /// The network's id (a name is resolved before it is stored).
    pub target: NetworkId,
    /// More names for the service in this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// How a service is found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSpec {
    /// By a virtual address or by its tasks' addresses.
    pub mode: EndpointMode,
}

/// How a service's name resolves. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// To one virtual address in each network, balanced over the tasks.
    #[default]
    Vip,
    /// To the tasks' addresses.
    Dnsrr,
}

/// The addresses allocated for a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Endpoint {
    /// The spec these were allocated for.
    pub spec: EndpointSpec,
    /// One for each network, unless the mode is `dnsrr`.
    #[serde(rename = "VirtualIPs", skip_serializing_if = "Vec::is_empty")]
    pub virtual_ips: Vec<VirtualIp>,
}

/// A virtual address in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VirtualIp {
    /// The network.
    #[serde(rename = "NetworkID")]
    pub network_id: NetworkId,
    /// The address, with the subnet's prefix length.
    pub addr: IpNet,
}

/// A rolling update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateStatus {
    /// How far it is.
    pub state: UpdateState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was completed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub completed_at: Option<Timestamp>,
    /// In words.
    pub message: String,
}

/// How far an update is. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// Tasks are being replaced, one after the other.
    Updating,
    /// A replacement failed; the rest was left alone.
    Paused,
    /// Every task runs the new spec.
    Completed,
}
