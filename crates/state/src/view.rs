//! What one node is told of the state.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_model::{
    Assignment, EndpointState, EndpointView, Item, ItemKey, Network, NetworkId, NetworkView,
    NodeId, NodeView, Ports, Service, ServiceView, Task,
};

use crate::tables::State;

impl State {
    /// The view of one node: its tasks, and all that concerns the networks it carries.
    pub fn node_view(&self, node: &NodeId) -> NodeView {
        let mut items = self.own_items(node);
        for network in self.carries(node) {
            items.extend(self.network_items(&network));
        }
        items.extend(self.tunnels(node));
        NodeView { items }
    }

    /// The part of a node's view that is no other node's, but for its tunnels.
    pub fn own_items(&self, node: &NodeId) -> BTreeMap<ItemKey, Item> {
        // A finished task stays in its node's view as long as it is remembered: so do its logs.
        let tasks = self.tasks_on(node).chain(self.ended_on(node));
        let assignment = |task: &Task| Item::Task(Arc::new(Assignment::from(task)));
        tasks.map(|task| (ItemKey::Task(task.id.clone()), assignment(task))).collect()
    }

    /// What all nodes that carry a network are told of it; nothing if there is no such network.
    pub fn network_items(&self, id: &NetworkId) -> BTreeMap<ItemKey, Item> {
        let mut items = BTreeMap::new();
        let Some(network) = self.network(id) else { return items };
        let item = Item::Network(self.network_view(network));
        items.insert(ItemKey::Network(id.clone()), item);
        for service in self.services_in(id) {
            let key = ItemKey::Service(id.clone(), service.id.clone());
            items.insert(key, Item::Service(service_view(service, id)));
        }
        for task in self.tasks_in(id) {
            if let Some(endpoint) = self.endpoint_view(task, id) {
                let key = ItemKey::Endpoint(id.clone(), task.id.clone());
                items.insert(key, Item::Endpoint(endpoint));
            }
        }
        items
    }

    fn network_view(&self, network: &Network) -> NetworkView {
        let encrypted = network.is_encrypted();
        let port = if encrypted { self.encrypted_port() } else { Some(self.data_path_port()) };
        NetworkView {
            name: network.spec.name.clone(),
            vni: network.vni,
            // 0 is no port that can be programmed: `apply` makes no such network.
            port: port.unwrap_or(0),
            subnet: network.subnet,
            gateway: network.gateway,
            mtu: network.mtu_override().unwrap_or_else(|| self.overlay_mtu(encrypted)),
            internal: network.spec.internal,
            encrypted,
        }
    }

    /// The endpoint of a placed task; none while it has no node.
    fn endpoint_view(&self, task: &Task, network: &NetworkId) -> Option<EndpointView> {
        let attachment = task.networks_attachments.iter().find(|a| a.network.id == *network)?;
        let node = self.node_of(task)?;
        Some(EndpointView {
            addr: attachment.addresses.first()?.addr(),
            node: node.id.clone(),
            vtep: node.description.data_path_addr,
            service: task.service_id.clone(),
            task_name: task.name(),
            state: self.endpoint_state(task),
        })
    }

    /// What of a task its networks' nodes are told that may change; nothing while it has no endpoint.
    pub(crate) fn endpoint_of(&self, task: &Task) -> Option<(NodeId, EndpointState)> {
        let node = task.node_id.as_ref().filter(|_| !task.is_finished())?;
        Some((node.clone(), self.endpoint_state(task)))
    }

    /// The part a placed, unfinished task has in DNS and balancing: traffic follows readiness.
    pub fn endpoint_state(&self, task: &Task) -> EndpointState {
        let alive = self.node_of(task).is_some_and(|node| node.is_alive());
        if !alive {
            EndpointState::Lost
        } else if !task.is_wanted() {
            EndpointState::Draining
        } else if task.is_running() {
            EndpointState::Ready
        } else {
            EndpointState::Starting
        }
    }
}

fn service_view(service: &Service, network: &NetworkId) -> ServiceView {
    let attachment = service.spec.task_template.networks.iter().find(|n| n.target == *network);
    let vip = service.endpoint.virtual_ips.iter().find(|vip| vip.network_id == *network);
    // A service that is being deleted, or leaves this network, balances its last connections but has
    // no name any more: another may have taken it.
    let listed = attachment.filter(|_| !service.pending_delete);
    ServiceView {
        name: listed.map(|_| service.spec.name.clone()).unwrap_or_default(),
        aliases: listed.map(|attachment| attachment.aliases.clone()).unwrap_or_default(),
        vip: vip.map(|vip| vip.addr.addr()),
        ports: Ports::All,
    }
}
