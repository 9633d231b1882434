//! The table of tasks and its indexes.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::OrdMap;
use swarm_model::{NetworkId, NodeId, ServiceId, Task, TaskId};

use crate::index::{self, index, unindex, within};

type Index<K, L = TaskId> = index::Index<K, L, Task>;

/// All tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    by_id: OrdMap<TaskId, Arc<Task>>,
    /// In the order of their slots.
    by_service: Index<ServiceId, (u64, TaskId)>,
    /// Unfinished tasks only: the ones a node is told of.
    on_node: Index<NodeId>,
    /// Finished tasks, of which the node keeps the logs.
    ended_on_node: Index<NodeId>,
    /// Unfinished tasks only: the ones that hold an address.
    in_network: Index<NetworkId>,
    /// The nodes with tasks in each network: how many unfinished ones each has there.
    hosts: OrdMap<NetworkId, OrdMap<NodeId, usize>>,
}

/// Where the tasks of a slot begin, among those of a service.
struct Slot(u64);

impl Equivalent<(u64, TaskId)> for Slot {
    fn equivalent(&self, _: &(u64, TaskId)) -> bool {
        false
    }
}

impl Comparable<(u64, TaskId)> for Slot {
    fn compare(&self, (slot, _): &(u64, TaskId)) -> Ordering {
        self.0.cmp(slot).then(Ordering::Less)
    }
}

fn networks(task: &Task) -> impl Iterator<Item = &NetworkId> {
    task.networks_attachments.iter().map(|attachment| &attachment.network.id)
}

/// The node that an unfinished task is on.
fn host(task: &Task) -> Option<&NodeId> {
    task.node_id.as_ref().filter(|_| !task.is_finished())
}

impl Tasks {
    pub(crate) fn get(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.by_id.get(id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.by_id.values()
    }

    pub(crate) fn of_service(&self, service: &ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        within(&self.by_service, service)
    }

    pub(crate) fn count_of_service(&self, service: &ServiceId) -> usize {
        self.by_service.get(service).map_or(0, OrdMap::len)
    }

    pub(crate) fn in_slot(
        &self,
        service: &ServiceId,
        slot: u64,
    ) -> impl Iterator<Item = &Arc<Task>> {
        let tasks = self.by_service.get(service).into_iter();
        tasks.flat_map(move |tasks| tasks.range(Slot(slot)..Slot(slot + 1))).map(|(_, task)| task)
    }

    pub(crate) fn on_node(&self, node: &NodeId) -> impl Iterator<Item = &Arc<Task>> {
        within(&self.on_node, node)
    }

    pub(crate) fn count_on_node(&self, node: &NodeId) -> usize {
        self.on_node.get(node).map_or(0, OrdMap::len)
    }

    pub(crate) fn ended_on_node(&self, node: &NodeId) -> impl Iterator<Item = &Arc<Task>> {
        within(&self.ended_on_node, node)
    }

    pub(crate) fn in_network(&self, network: &NetworkId) -> impl Iterator<Item = &Arc<Task>> {
        within(&self.in_network, network)
    }

    /// The nodes with unfinished tasks in a network.
    pub(crate) fn nodes_in(&self, network: &NetworkId) -> impl Iterator<Item = &NodeId> {
        self.hosts.get(network).into_iter().flat_map(OrdMap::keys)
    }

    /// Gives the networks in which other nodes have tasks now.
    pub(crate) fn put(&mut self, task: Task) -> BTreeSet<NetworkId> {
        let task = Arc::new(task);
        let before = self.by_id.insert(task.id.clone(), Arc::clone(&task));
        let mut changed = BTreeSet::new();
        if let Some(before) = before {
            self.unlist(&before, Some(&task));
            self.leave(&before, &mut changed);
        }
        self.list(&task);
        self.enter(&task, &mut changed);
        changed
    }

    pub(crate) fn drop(&mut self, id: &TaskId) {
        if let Some(task) = self.by_id.remove(id) {
            self.unlist(&task, None);
            self.leave(&task, &mut BTreeSet::new());
        }
    }

    fn list(&mut self, task: &Arc<Task>) {
        index(&mut self.by_service, &task.service_id, (task.slot, task.id.clone()), task);
        let ended = task.is_finished();
        if let Some(node) = &task.node_id {
            let table = if ended { &mut self.ended_on_node } else { &mut self.on_node };
            index(table, node, task.id.clone(), task);
        }
        if !ended {
            for network in networks(task) {
                index(&mut self.in_network, network, task.id.clone(), task);
            }
        }
    }

    /// Takes a task from the indexes where its successor does not take its place anyway.
    fn unlist(&mut self, task: &Task, successor: Option<&Task>) {
        if successor.is_none() {
            let at = (task.slot, task.id.clone());
            unindex(&mut self.by_service, &task.service_id, &at);
        }
        let ended = task.is_finished();
        let leaves =
            successor.is_none_or(|s| s.node_id != task.node_id || s.is_finished() != ended);
        if let Some(node) = task.node_id.as_ref().filter(|_| leaves) {
            let table = if ended { &mut self.ended_on_node } else { &mut self.on_node };
            unindex(table, node, &task.id);
        }
        if !ended {
            let stays = |network: &NetworkId| {
                successor.is_some_and(|s| !s.is_finished() && networks(s).any(|n| n == network))
            };
            for network in networks(task).filter(|network| !stays(network)) {
                unindex(&mut self.in_network, network, &task.id);
            }
        }
    }

    /// Counts a task in the networks it is in; notes those where its node is new.
    fn enter(&mut self, task: &Task, changed: &mut BTreeSet<NetworkId>) {
        let Some(node) = host(task) else { return };
        for network in networks(task) {
            let count = self.hosts.entry(network.clone()).or_default();
            let count = count.entry(node.clone()).or_default();
            *count += 1;
            if *count == 1 {
                toggle(changed, network);
            }
        }
    }

    /// The reverse of [`Tasks::enter`].
    fn leave(&mut self, task: &Task, changed: &mut BTreeSet<NetworkId>) {
        let Some(node) = host(task) else { return };
        for network in networks(task) {
            let Some(nodes) = self.hosts.get_mut(network) else { continue };
            let Some(count) = nodes.get_mut(node) else { continue };
            *count -= 1;
            if *count > 0 {
                continue;
            }
            nodes.remove(node);
            toggle(changed, network);
            if nodes.is_empty() {
                self.hosts.remove(network);
            }
        }
    }
}

/// A node that leaves a network and enters it again at once has not moved: a task never changes its node.
fn toggle(changed: &mut BTreeSet<NetworkId>, network: &NetworkId) {
    if !changed.remove(network) {
        changed.insert(network.clone());
    }
}
