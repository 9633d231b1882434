//! The tasks of this node: one supervising task of ours for each of the swarm's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use swarm_model::{Assignment, NodeView, TaskId};
use swarm_runtime::{Adopted, ContainerState};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::adapters::{Overlay, Runtime};
use crate::task::{Order, Supervised, Tools};

/// Starts, tells and ends the supervision of tasks.
pub(crate) struct Supervisor {
    tools: Arc<Tools>,
    orders: BTreeMap<TaskId, watch::Sender<Order>>,
    found: BTreeMap<String, ContainerState>,
    running: JoinSet<()>,
    /// Each task that is yet to say what became of its container has a receiver.
    unsettled: watch::Sender<()>,
}

impl Supervisor {
    /// `found` are the containers that an earlier `swarmd` left.
    pub(crate) fn new(tools: Arc<Tools>, found: Vec<Adopted>) -> Supervisor {
        let found = found.into_iter().map(|container| (container.id, container.state)).collect();
        Supervisor {
            tools,
            orders: BTreeMap::new(),
            found,
            running: JoinSet::new(),
            unsettled: watch::Sender::new(()),
        }
    }

    /// Takes over the containers that run, as a remembered view has them. Nothing is started or given up
    /// before a manager was heard: it may have replaced a task meanwhile.
    pub(crate) fn resume(&mut self, remembered: &NodeView) {
        for task in remembered.tasks() {
            if matches!(self.found.get(task.id.as_str()), Some(ContainerState::Running(_))) {
                self.have(task);
            }
        }
    }

    /// Brings the supervised tasks to those of `view`; new ones only if they may start.
    pub(crate) fn update(&mut self, view: &NodeView, may_start: bool) {
        while self.running.try_join_next().is_some() {}
        let mut gone: BTreeSet<TaskId> = self.orders.keys().cloned().collect();
        for task in view.tasks() {
            if gone.remove(&task.id) || may_start {
                self.have(task);
            }
        }
        for id in gone {
            if let Some(orders) = self.orders.remove(&id) {
                // A supervisor that ended by itself has nothing left to forget.
                orders.send_replace(Order::Forget);
            }
        }
    }

    /// Waits until each task that the managers think to run has said whether it does: after a restart of the node
    /// it may not.
    pub(crate) async fn settled(&self) {
        self.unsettled.closed().await;
    }

    fn have(&mut self, task: &Arc<Assignment>) {
        let order = Order::Have(Arc::clone(task));
        if let Some(orders) = self.orders.get(&task.id) {
            orders.send_replace(order);
            return;
        }
        let (sender, receiver) = watch::channel(order);
        self.orders.insert(task.id.clone(), sender);
        let found = self.found.remove(task.id.as_str());
        let tools = Arc::clone(&self.tools);
        let unsettled = self.unsettled.subscribe();
        self.running.spawn(Supervised::run(Arc::clone(task), receiver, tools, found, unsettled));
    }

    /// Removes containers and sandboxes of tasks that no manager knows any more. To be called once, with
    /// the first view that a manager sent.
    pub(crate) async fn remove_strays(&mut self) {
        let found = std::mem::take(&mut self.found);
        let removals = found.keys().map(|id| remove_container(&*self.tools.runtime, id));
        join_all(removals).await;
        let sandboxes = match self.tools.overlay.list() {
            Ok(existing) => existing.sandboxes,
            Err(e) => return tracing::warn!("cannot list sandboxes that are left over: {e}"),
        };
        let strays = sandboxes.iter().filter(|id| !self.orders.contains_key(id.as_str()));
        join_all(strays.map(|id| remove_sandbox(&*self.tools.overlay, id))).await;
    }

    /// Stops every task and removes all that is left of it: the node leaves the swarm.
    pub(crate) async fn clear(&mut self) {
        for orders in std::mem::take(&mut self.orders).into_values() {
            orders.send_replace(Order::Forget);
        }
        while self.running.join_next().await.is_some() {}
        self.remove_strays().await;
        self.tools.runtime.remove_cgroup_parent();
    }
}

async fn remove_container(runtime: &dyn Runtime, id: &str) {
    tracing::info!("removing container {id}, which no manager knows");
    if let Err(e) = runtime.delete(id).await {
        tracing::warn!("cannot remove container {id}: {e}");
    }
}

async fn remove_sandbox(overlay: &dyn Overlay, id: &str) {
    if let Err(e) = overlay.remove_sandbox(id).await {
        tracing::warn!("cannot remove sandbox {id}: {e}");
    }
}
