//! Nodes join, say what they are, go down and are removed.

use swarm_model::{
    ManagerStatus, Meta, Node, NodeDescription, NodeId, NodeRole, NodeSpec, NodeState, NodeStatus,
    Task, TaskState, TaskStatus, node_hostname,
};

use super::Context;
use crate::command::{Rejected, Touched};
use crate::tables::State;

impl State {
    pub(super) fn add_node(
        &mut self,
        cx: &mut Context,
        id: NodeId,
        role: NodeRole,
        hostname: String,
        addr: String,
    ) -> Result<Option<u64>, Rejected> {
        if self.node(id.as_str()).is_some() {
            return Err(Rejected::Exists(format!("node {id}")));
        }
        node_hostname(&hostname).map_err(|e| Rejected::Invalid(e.to_string()))?;
        let ordinal = self.ordinal_of_new_node()?;
        let raft_id = (role == NodeRole::Manager).then_some(self.next_raft_id);
        self.next_raft_id += u64::from(raft_id.is_some());
        let manager_status = raft_id.map(|raft_id| ManagerStatus {
            leader: false,
            reachability: Default::default(),
            addr: addr.clone(),
            raft_id,
        });
        cx.touch(Touched::Node(id.clone()));
        self.put_node(Node {
            id,
            meta: Meta::created(cx.revision, cx.now),
            spec: NodeSpec { role, ..NodeSpec::default() },
            description: NodeDescription { hostname, ..NodeDescription::default() },
            status: NodeStatus { addr, ..NodeStatus::default() },
            manager_status,
            ordinal,
        });
        Ok(raft_id)
    }

    pub(super) fn describe_node(
        &mut self,
        cx: &mut Context,
        id: &NodeId,
        description: NodeDescription,
        addr: String,
    ) -> Result<(), Rejected> {
        self.change_node(cx, id, |node| {
            node.description = description;
            node.status = NodeStatus { state: NodeState::Ready, message: String::new(), addr };
        })
    }

    pub(super) fn set_node_state(
        &mut self,
        cx: &mut Context,
        id: &NodeId,
        state: NodeState,
        message: String,
    ) -> Result<(), Rejected> {
        self.change_node(cx, id, |node| {
            node.status.state = state;
            node.status.message = message;
        })
    }

    fn change_node(
        &mut self,
        cx: &mut Context,
        id: &NodeId,
        change: impl FnOnce(&mut Node),
    ) -> Result<(), Rejected> {
        let mut node = (**self.node(id.as_str()).ok_or_else(|| no_node(id))?).clone();
        change(&mut node);
        node.meta.touch(cx.revision, cx.now);
        self.put_node(node);
        cx.touch(Touched::Node(id.clone()));
        Ok(())
    }

    pub(super) fn remove_node(
        &mut self,
        cx: &mut Context,
        id: &NodeId,
        force: bool,
    ) -> Result<(), Rejected> {
        let node = self.node(id.as_str()).ok_or_else(|| no_node(id))?;
        if node.is_alive() && !force {
            return Err(Rejected::InUse(format!(
                "node {} is not down: let it leave first, or use --force",
                node.description.hostname
            )));
        }
        let tasks: Vec<Task> = self.tasks_on(id).map(|task| (**task).clone()).collect();
        self.drop_node(id);
        cx.touch(Touched::Node(id.clone()));
        for task in tasks {
            let status = TaskStatus {
                timestamp: cx.now,
                state: TaskState::Orphaned,
                message: "node was removed".into(),
                err: "its node was removed from the swarm".into(),
                container_status: task.status.container_status.clone(),
            };
            self.set_task_status(cx, task, status);
        }
        Ok(())
    }
}

pub(super) fn no_node(id: &NodeId) -> Rejected {
    Rejected::NotFound(format!("node {id}"))
}
