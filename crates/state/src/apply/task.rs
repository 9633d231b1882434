//! Tasks are created in slots, given addresses and a node, reported on, withdrawn, stopped and
//! forgotten. Their states only go forward.

use std::sync::Arc;
use std::time::Duration;

use swarm_model::{
    Attachment, AttachmentNetwork, Meta, NetworkId, Node, NodeId, Readiness, Service, ServiceId,
    Task, TaskId, TaskSpec, TaskState, TaskStatus, Wanted,
};

use super::Context;
use super::node::no_node;
use super::service::no_service;
use crate::command::{Rejected, Touched};
use crate::tables::State;

impl State {
    pub(super) fn create_task(
        &mut self,
        cx: &mut Context,
        id: TaskId,
        service_id: &ServiceId,
        slot: u64,
        node: Option<NodeId>,
    ) -> Result<(), Rejected> {
        let service = self.service(service_id).filter(|service| !service.pending_delete);
        let service = service.ok_or_else(|| no_service(service_id))?;
        if self.tasks_in_slot(service_id, slot).any(|task| task.holds_slot()) {
            let name = &service.spec.name;
            return Err(Rejected::Exists(format!("a task in slot {slot} of service {name}")));
        }
        if self.task(&id).is_some() {
            return Err(Rejected::Exists(format!("task {id}")));
        }
        let mut task = Task {
            id,
            meta: Meta::created(cx.revision, cx.now),
            spec: self.template(service),
            service_id: service_id.clone(),
            service_name: service.spec.name.clone(),
            slot,
            node_id: None,
            status: TaskStatus {
                timestamp: cx.now,
                message: "created".into(),
                ..TaskStatus::default()
            },
            desired_state: TaskState::Running,
            networks_attachments: Vec::new(),
            withdrawn: None,
            superseded: None,
            ready_timeout: nanoseconds(service.ready_timeout()),
        };
        self.allocate_task_addresses(cx, &mut task);
        // A node that was removed meanwhile leaves it to wait for another one.
        let node = node.filter(|node| self.node(node).is_some());
        if let Some(node) = node.filter(|_| task.status.state == TaskState::Pending) {
            place(cx, &mut task, node);
        }
        self.save_task(cx, task);
        Ok(())
    }

    /// The template of new tasks, shared with a task of the first slot: an update begins there, and leaves older ones.
    fn template(&self, service: &Service) -> Arc<TaskSpec> {
        let template = &service.spec.task_template;
        let first = self.tasks_of(&service.id).next().map(|task| task.slot);
        let tasks = first.into_iter().flat_map(|slot| self.tasks_in_slot(&service.id, slot));
        let known = tasks.map(|task| &task.spec).find(|known| ***known == *template);
        known.map_or_else(|| Arc::new(template.clone()), Arc::clone)
    }

    pub(super) fn allocate_task(&mut self, cx: &mut Context, id: &TaskId) -> Result<(), Rejected> {
        let mut task = self.existing(id)?;
        if task.status.state == TaskState::New && self.allocate_task_addresses(cx, &mut task) {
            self.save_task(cx, task);
        }
        Ok(())
    }

    /// Gives a new task its addresses: all, and it is pending; or none, and it says why. Returns whether
    /// that changed the task.
    fn allocate_task_addresses(&mut self, cx: &Context, task: &mut Task) -> bool {
        let networks: Vec<NetworkId> =
            task.spec.networks.iter().map(|network| network.target.clone()).collect();
        let (state, message, err) = match self.allocate_all(&networks) {
            Ok(addresses) => {
                let attachments = addresses.into_iter().map(|(id, addr)| Attachment {
                    network: AttachmentNetwork { id },
                    addresses: vec![addr],
                });
                task.networks_attachments = attachments.collect();
                (TaskState::Pending, "pending task scheduling".to_owned(), String::new())
            }
            Err(e) => (TaskState::New, task.status.message.clone(), e.to_string()),
        };
        let changed = state != task.status.state || err != task.status.err;
        if changed {
            task.status =
                TaskStatus { timestamp: cx.now, state, message, err, ..TaskStatus::default() };
        }
        changed
    }

    fn release_all(&mut self, attachments: &[Attachment]) {
        for attachment in attachments {
            for addr in &attachment.addresses {
                self.release(&attachment.network.id, addr.addr());
            }
        }
    }

    pub(super) fn assign_task(
        &mut self,
        cx: &mut Context,
        id: &TaskId,
        node: &NodeId,
    ) -> Result<(), Rejected> {
        let mut task = self.existing(id)?;
        if self.node(node).is_none() {
            return Err(no_node(node));
        }
        if task.status.state != TaskState::Pending || !task.is_wanted() {
            return Err(Rejected::OutOfDate(format!("task {id}")));
        }
        place(cx, &mut task, node.clone());
        self.save_task(cx, task);
        Ok(())
    }

    pub(super) fn explain_task(
        &mut self,
        cx: &mut Context,
        id: &TaskId,
        err: String,
    ) -> Result<(), Rejected> {
        let mut task = self.existing(id)?;
        if task.status.state <= TaskState::Pending && task.status.err != err {
            task.status.err = err;
            task.status.timestamp = cx.now;
            self.save_task(cx, task);
        }
        Ok(())
    }

    pub(super) fn report_task(
        &mut self,
        cx: &mut Context,
        id: &TaskId,
        status: TaskStatus,
    ) -> Result<(), Rejected> {
        let task = self.existing(id)?;
        if task.node_id.is_none() {
            return Err(Rejected::Invalid(format!("task {id} is on no node")));
        }
        if status.state < task.status.state || task.is_finished() {
            return Err(Rejected::OutOfDate(format!("task {id}")));
        }
        // A node that has forgotten since when a task runs says nothing of the template.
        if status.readiness == Some(Readiness::Silent) && task.status.state < TaskState::Running {
            self.note_silence(cx, &task);
        }
        self.set_task_status(cx, task, status);
        Ok(())
    }

    /// A task waited in vain: further ones of its template need not.
    fn note_silence(&mut self, cx: &mut Context, task: &Task) {
        let Some(service) = self.service(&task.service_id) else { return };
        let current = *task.spec == service.spec.task_template
            && task.ready_timeout == nanoseconds(service.ready_timeout());
        if current {
            let service = Service { silent: true, ..(**service).clone() };
            self.save_service(cx, service);
        }
    }

    /// Sets a status; a task that is finished by it gives its addresses back, but still shows them.
    pub(super) fn set_task_status(&mut self, cx: &mut Context, mut task: Task, status: TaskStatus) {
        task.status = status;
        if task.is_finished() {
            self.release_all(&task.networks_attachments);
            task.desired_state = task.desired_state.max(TaskState::Shutdown);
        }
        self.save_task(cx, task);
    }

    pub(super) fn withdraw_task(&mut self, cx: &mut Context, id: &TaskId) -> Result<(), Rejected> {
        let mut task = self.existing(id)?;
        if task.withdrawn.is_none() {
            task.withdrawn = Some(cx.revision);
            self.save_task(cx, task);
        }
        Ok(())
    }

    pub(super) fn supersede_task(&mut self, cx: &mut Context, id: &TaskId) -> Result<(), Rejected> {
        let mut task = self.existing(id)?;
        if !task.holds_slot() {
            return Err(Rejected::OutOfDate(format!("task {id}")));
        }
        task.superseded = Some(cx.revision);
        self.save_task(cx, task);
        Ok(())
    }

    pub(super) fn stop_task(
        &mut self,
        cx: &mut Context,
        id: &TaskId,
        as_of: u64,
    ) -> Result<(), Rejected> {
        if !self.may_stop(cx, &self.existing(id)?, as_of) {
            return Err(Rejected::OutOfDate(format!("task {id}")));
        }
        self.set_desired_state(cx, id, TaskState::Shutdown)
    }

    /// Whether what was so at `as_of` still is: the task is on no live node, or no live node sends to it.
    fn may_stop(&self, cx: &mut Context, task: &Task, as_of: u64) -> bool {
        if task.node_id.as_ref().and_then(|node| self.live(node)).is_none() {
            return true;
        }
        let mut networks =
            task.networks_attachments.iter().map(|attachment| &attachment.network.id);
        task.withdrawn.is_some_and(|withdrawn| withdrawn <= as_of)
            && networks.all(|network| cx.newest_carrier(self, network) <= as_of)
    }

    /// The revision that last changed a live carrier of a network.
    pub(super) fn newest_carrier(&self, network: &NetworkId) -> u64 {
        let carriers = self.carriers(network).filter_map(|node| self.live(node));
        carriers.map(|node| node.meta.version.index).max().unwrap_or_default()
    }

    fn live(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.node(id).filter(|node| node.is_alive())
    }

    pub(super) fn set_desired_state(
        &mut self,
        cx: &mut Context,
        id: &TaskId,
        state: TaskState,
    ) -> Result<(), Rejected> {
        let mut task = self.existing(id)?;
        if state <= task.desired_state {
            return Ok(());
        }
        task.desired_state = state;
        // What was never given to a node has nothing to stop.
        if state > TaskState::Running && task.node_id.is_none() && !task.is_finished() {
            let status = TaskStatus {
                timestamp: cx.now,
                state: TaskState::Shutdown,
                message: "never started".into(),
                ..task.status.clone()
            };
            self.set_task_status(cx, task, status);
        } else {
            self.save_task(cx, task);
        }
        Ok(())
    }

    pub(super) fn remove_task(&mut self, cx: &mut Context, id: &TaskId) -> Result<(), Rejected> {
        let task = self.existing(id)?;
        if !task.is_finished() {
            return Err(Rejected::InUse(format!("task {id} has not finished")));
        }
        self.forget_task(cx, id);
        Ok(())
    }

    /// Drops a finished task. Who hears of this later cannot look up where it was: so that is said here.
    pub(super) fn forget_task(&mut self, cx: &mut Context, id: &TaskId) {
        let Some(task) = self.task(id).cloned() else { return };
        self.tasks.drop(id);
        cx.touch(Touched::Task(id.clone(), task.service_id.clone()));
        if let Some(node) = &task.node_id {
            cx.touch(Touched::NodeHistory(node.clone()));
        }
    }

    fn existing(&self, id: &TaskId) -> Result<Task, Rejected> {
        let task = self.task(id);
        task.map(|task| (**task).clone()).ok_or_else(|| Rejected::NotFound(format!("task {id}")))
    }

    fn save_task(&mut self, cx: &mut Context, mut task: Task) {
        task.meta.touch(cx.revision, cx.now);
        cx.touch(Touched::Task(task.id.clone(), task.service_id.clone()));
        let before = self.task(&task.id).map(|before| (self.endpoint_of(before), told(before)));
        let (endpoint, assignment) = before.unwrap_or_default();
        if endpoint != self.endpoint_of(&task) {
            for attachment in &task.networks_attachments {
                cx.touch(Touched::Endpoint(attachment.network.id.clone()));
            }
        }
        if let Some(node) = &task.node_id
            && assignment != told(&task)
        {
            cx.touch(Touched::Assignment(node.clone()));
        }
        for network in self.tasks.put(task) {
            cx.touch(Touched::Carriers(network));
        }
    }
}

/// What the node of a task is told of it that may change.
fn told(task: &Task) -> Option<Wanted> {
    task.node_id.as_ref().map(|_| Wanted::of(task))
}

/// Gives a pending task a node.
fn place(cx: &Context, task: &mut Task, node: NodeId) {
    task.node_id = Some(node);
    task.status = TaskStatus {
        timestamp: cx.now,
        state: TaskState::Assigned,
        message: "scheduler assigned task to node".into(),
        ..TaskStatus::default()
    };
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
