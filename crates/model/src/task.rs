//! Tasks: one run of a service's container on a node. Tasks are one-shot; a replacement is a new task
//! in the same slot.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Meta, NetworkId, NodeId, Readiness, ServiceId, TaskId, TaskSpec, Timestamp};

/// One run of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Task {
    /// The task's id.
    #[serde(rename = "ID")]
    pub id: TaskId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// What it runs: the service's template when the task was created; shared by the tasks made of it.
    pub spec: Arc<TaskSpec>,
    /// The service it belongs to.
    #[serde(rename = "ServiceID")]
    pub service_id: ServiceId,
    /// The service's name: the task's name is `service.slot.id`.
    pub service_name: String,
    /// The slot it fills, from 1.
    pub slot: u64,
    /// The node it was placed on.
    #[serde(rename = "NodeID", default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// What was last seen of it.
    pub status: TaskStatus,
    /// What it should be brought to.
    pub desired_state: TaskState,
    /// Its addresses.
    #[serde(default)]
    pub networks_attachments: Vec<Attachment>,
    /// The revision at which the task left DNS and the balancers. It is told to stop only when every
    /// node has acknowledged that revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<u64>,
    /// The revision at which it was decided that another task takes over its slot. It serves until that
    /// one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded: Option<u64>,
    /// Nanoseconds that it may take until it listens, before it counts as running all the same; 0 is not to wait.
    #[serde(default)]
    pub ready_timeout: u64,
}

impl Task {
    /// `service.slot.id`, the task's name in DNS.
    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.service_name, self.slot, self.id)
    }

    /// Whether it was placed on this node.
    pub fn is_on(&self, node: &NodeId) -> bool {
        self.node_id.as_ref() == Some(node)
    }

    /// Whether it has a log: its process runs, or ran.
    pub fn has_log(&self) -> bool {
        let began = self.status.readiness.is_some() || self.status.state >= TaskState::Running;
        self.node_id.is_some() && began
    }

    /// Whether it should run, and is not on its way out.
    pub fn is_wanted(&self) -> bool {
        self.desired_state <= TaskState::Running && self.withdrawn.is_none()
    }

    /// Whether it should run and nobody is to take its place: its slot is taken.
    pub fn holds_slot(&self) -> bool {
        self.is_wanted() && self.superseded.is_none() && !self.is_finished()
    }

    /// Whether it runs, as its node said last.
    pub fn is_running(&self) -> bool {
        self.status.state == TaskState::Running
    }

    /// Whether it has ended, for whatever reason.
    pub fn is_finished(&self) -> bool {
        self.status.state > TaskState::Running
    }
}

/// The address of a task in a network, Docker's shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attachment {
    /// The network.
    pub network: AttachmentNetwork,
    /// One address, with the subnet's prefix length.
    pub addresses: Vec<IpNet>,
}

/// The network of an [`Attachment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AttachmentNetwork {
    /// The network's id.
    #[serde(rename = "ID")]
    pub id: NetworkId,
}

/// What was last seen of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskStatus {
    /// When.
    pub timestamp: Timestamp,
    /// How far it is.
    pub state: TaskState,
    /// What is happening, in words.
    pub message: String,
    /// What went wrong, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub err: String,
    /// The container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<ContainerStatus>,
    /// Whether it can serve; none while its process does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

impl TaskStatus {
    /// What the user should know of a task that runs: what it is waited for, or that it does not listen.
    pub fn remark(&self) -> Option<&str> {
        match self.readiness? {
            Readiness::Waiting | Readiness::Silent => Some(&self.message),
            Readiness::Listening | Readiness::Unchecked => None,
        }
    }
}

/// What was last seen of a task's container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerStatus {
    /// The container's id; the task's.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// The process id of its first process on the node.
    #[serde(rename = "PID")]
    pub pid: i32,
    /// How it ended: 128 + the signal's number if by a signal.
    pub exit_code: i32,
}

/// How far a task is; only ever forward. Only additions are allowed.
///
/// The order is swarmkit's `api.TaskState`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Created; has no addresses yet.
    #[default]
    New,
    /// Has its addresses; waits for a node.
    Pending,
    /// Has a node.
    Assigned,
    /// The node has heard of it.
    Accepted,
    /// The image is being pulled.
    Preparing,
    /// The image is there.
    Ready,
    /// The container is being started, or runs and cannot serve yet.
    Starting,
    /// The container runs, and can serve as far as is known.
    Running,
    /// It ended with exit code 0.
    Complete,
    /// It was told to stop, and did.
    Shutdown,
    /// It ended by itself, otherwise.
    Failed,
    /// The node could not run it.
    Rejected,
    /// Its node is gone for good.
    Orphaned,
    /// To be removed (a desired state only).
    Remove,
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            TaskState::New => "new",
            TaskState::Pending => "pending",
            TaskState::Assigned => "assigned",
            TaskState::Accepted => "accepted",
            TaskState::Preparing => "preparing",
            TaskState::Ready => "ready",
            TaskState::Starting => "starting",
            TaskState::Running => "running",
            TaskState::Complete => "complete",
            TaskState::Shutdown => "shutdown",
            TaskState::Failed => "failed",
            TaskState::Rejected => "rejected",
            TaskState::Orphaned => "orphaned",
            TaskState::Remove => "remove",
        })
    }
}
