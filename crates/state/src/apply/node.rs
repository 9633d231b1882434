//! Nodes join, say what they are, go down and are removed.

use std::sync::Arc;

use swarm_model::{
    Availability, EngineDescription, Labels, ManagerStatus, Meta, Node, NodeDescription, NodeId,
    NodeRole, NodeSpec, NodeState, NodeStatus, Task, TaskState, TaskStatus, node_hostname,
    node_labels,
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
        engine: EngineDescription,
    ) -> Result<Option<u64>, Rejected> {
        if self.node(&id).is_some() {
            return Err(Rejected::Exists(format!("node {id}")));
        }
        node_hostname(&hostname).map_err(|e| Rejected::Invalid(e.to_string()))?;
        self.admit(&engine)?;
        let ordinal = self.ordinal_of_new_node()?;
        let manager_status =
            (role == NodeRole::Manager).then(|| self.new_manager_status(addr.clone()));
        let raft_id = manager_status.as_ref().map(|manager| manager.raft_id);
        cx.touch(Touched::Node(id.clone()));
        self.put_node(Node {
            id,
            meta: Meta::created(cx.revision, cx.now),
            spec: NodeSpec { role, ..NodeSpec::default() },
            description: NodeDescription { hostname, engine, ..NodeDescription::default() },
            status: NodeStatus { addr, ..NodeStatus::default() },
            manager_status,
            ordinal,
        });
        Ok(raft_id)
    }

    fn new_manager_status(&mut self, addr: String) -> ManagerStatus {
        let raft_id = self.next_raft_id;
        self.next_raft_id += 1;
        ManagerStatus { leader: false, reachability: Default::default(), addr, raft_id }
    }

    pub(super) fn describe_node(
        &mut self,
        cx: &mut Context,
        id: &NodeId,
        description: NodeDescription,
        addr: String,
    ) -> Result<(), Rejected> {
        self.node(id).ok_or_else(|| no_node(id))?;
        self.admit(&description.engine)?;
        self.change_node(cx, id, |node| {
            if let Some(manager) = &mut node.manager_status
                && !description.listen_addr.is_empty()
            {
                // A host may come back with another address.
                manager.addr.clone_from(&description.listen_addr);
            }
            let former = std::mem::replace(&mut node.description, description);
            let now = &mut node.description;
            // What it could not find out this time is as it was.
            now.routes = now.routes.take().or(former.routes);
            now.underlay_mtu = now.underlay_mtu.or(former.underlay_mtu);
            let message = unknown_of(now);
            node.status = NodeStatus { state: NodeState::Ready, message, addr };
        })
    }

    pub(super) fn note_node_trouble(
        &mut self,
        cx: &mut Context,
        id: &NodeId,
        reason: String,
    ) -> Result<(), Rejected> {
        let node = self.node(id).ok_or_else(|| no_node(id))?;
        if !node.is_alive() {
            return Err(Rejected::OutOfDate(format!("node {id}")));
        }
        let message = if reason.is_empty() { unknown_of(&node.description) } else { reason };
        if node.status.message == message {
            return Ok(());
        }
        self.change_node(cx, id, |node| node.status.message = message)
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

    pub(super) fn update_node(
        &mut self,
        cx: &mut Context,
        id: &NodeId,
        availability: Option<Availability>,
        label_add: Labels,
        label_rm: &[String],
    ) -> Result<(), Rejected> {
        let node = self.node(id).ok_or_else(|| no_node(id))?;
        if let Some(key) = label_rm.iter().find(|key| !node.spec.labels.contains_key(*key)) {
            let hostname = &node.description.hostname;
            return Err(Rejected::NotFound(format!("label {key} of node {hostname}")));
        }
        let mut spec = node.spec.clone();
        spec.labels.retain(|key, _| !label_rm.contains(key));
        spec.labels.extend(label_add);
        spec.availability = availability.unwrap_or(spec.availability);
        node_labels(&spec.labels).map_err(|e| Rejected::Invalid(e.to_string()))?;
        self.change_node(cx, id, |node| node.spec = spec)
    }

    pub(super) fn set_node_role(
        &mut self,
        cx: &mut Context,
        id: &NodeId,
        role: NodeRole,
    ) -> Result<Option<u64>, Rejected> {
        let node = Arc::clone(self.node(id).ok_or_else(|| no_node(id))?);
        let hostname = &node.description.hostname;
        let raft_id = node.manager_status.as_ref().map(|manager| manager.raft_id);
        if node.spec.role == role {
            return Ok(raft_id);
        }
        if role == NodeRole::Worker {
            if self.nodes().filter(|node| node.is_manager()).count() == 1 {
                let text = "attempting to demote the last manager of the swarm";
                return Err(Rejected::InUse(text.into()));
            }
            self.change_node(cx, id, |node| node.spec.role = role)?;
            return Ok(raft_id);
        }
        if raft_id.is_some() {
            let text = format!("node {hostname} is still being demoted: try again");
            return Err(Rejected::InUse(text));
        }
        let addr = node.description.listen_addr.clone();
        if addr.is_empty() {
            let text = format!("node {hostname} has not said yet where it listens: try again");
            return Err(Rejected::InUse(text));
        }
        let manager = self.new_manager_status(addr);
        let raft_id = manager.raft_id;
        self.change_node(cx, id, |node| {
            node.spec.role = role;
            node.manager_status = Some(manager);
        })?;
        Ok(Some(raft_id))
    }

    pub(super) fn drop_manager(&mut self, cx: &mut Context, id: &NodeId) -> Result<(), Rejected> {
        let node = self.node(id).ok_or_else(|| no_node(id))?;
        if node.is_manager() {
            return Err(Rejected::OutOfDate(format!("node {id}")));
        }
        if node.manager_status.is_some() {
            self.change_node(cx, id, |node| node.manager_status = None)?;
        }
        Ok(())
    }

    pub(super) fn take_over(
        &mut self,
        cx: &mut Context,
        id: &NodeId,
        hostname: String,
        addr: String,
        raft_id: u64,
        engine: EngineDescription,
    ) -> Result<(), Rejected> {
        if self.node(id).is_none() {
            let host = addr.rsplit_once(':').map_or(addr.as_str(), |(host, _)| host);
            let host = host.trim_matches(['[', ']']).to_owned();
            self.add_node(cx, id.clone(), NodeRole::Worker, hostname, host, engine)?;
        }
        let former = self.nodes().filter(|node| node.is_manager() || node.manager_status.is_some());
        let former: Vec<NodeId> = former.map(|node| node.id.clone()).collect();
        for other in former.iter().filter(|other| *other != id) {
            self.change_node(cx, other, |node| {
                node.spec.role = NodeRole::Worker;
                node.manager_status = None;
            })?;
        }
        self.next_raft_id = self.next_raft_id.max(raft_id + 1);
        self.change_node(cx, id, |node| {
            node.spec.role = NodeRole::Manager;
            let reachability = Default::default();
            let manager = ManagerStatus { leader: false, reachability, addr, raft_id };
            node.manager_status = Some(manager);
        })
    }

    fn change_node(
        &mut self,
        cx: &mut Context,
        id: &NodeId,
        change: impl FnOnce(&mut Node),
    ) -> Result<(), Rejected> {
        let mut node = (**self.node(id).ok_or_else(|| no_node(id))?).clone();
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
        let node = self.node(id).ok_or_else(|| no_node(id))?;
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
                readiness: None,
            };
            self.set_task_status(cx, task, status);
        }
        Ok(())
    }
}

/// What a node never could say of itself, for those who list it; empty if that is nothing.
fn unknown_of(description: &NodeDescription) -> String {
    match (&description.routes, description.underlay_mtu) {
        (Some(_), Some(_)) => "",
        (None, Some(_)) => {
            "its routes are unknown: a network's subnet may clash with one; its log says why"
        }
        (Some(_), None) => {
            "the MTU of its interface is unknown: a network's MTU may be too large; its log says why"
        }
        (None, None) => {
            "its routes and the MTU of its interface are unknown: a network's subnet may clash with a route, its MTU may be too large; its log says why"
        }
    }
    .to_owned()
}

pub(super) fn no_node(id: &NodeId) -> Rejected {
    Rejected::NotFound(format!("node {id}"))
}
