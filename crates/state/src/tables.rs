//! The tables and their indexes. Objects are shared (`Arc`) and replaced as a whole, never changed in place; tables are
//! persistent maps, of which a clone shares all that is not changed since. So a clone of the state costs a few pointers,
//! and whoever reads has one.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use swarm_model::{
    Cluster, KeyRing, Network, NetworkId, Node, NodeId, Service, ServiceId, Task, TaskId,
};

use crate::index::{Index, index, unindex, within};
use crate::ipam::AddressPool;
use crate::mtu::{self, OverlayMtu};
use crate::tasks::Tasks;

/// The first VNI handed out; smaller ones are left to networks made by hand.
pub(crate) const FIRST_VNI: u32 = 4097;
/// VNIs have 24 bits (RFC 7348).
pub(crate) const LAST_VNI: u32 = (1 << 24) - 1;

/// The replicated state of the cluster.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub(crate) revision: u64,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) nodes: OrdMap<NodeId, Arc<Node>>,
    pub(crate) networks: OrdMap<NetworkId, Arc<Network>>,
    pub(crate) services: OrdMap<ServiceId, Arc<Service>>,
    pub(crate) tasks: Tasks,
    pub(crate) next_raft_id: u64,
    pub(crate) next_vni: u32,
    pub(crate) keys: KeyRing,
    pub(crate) last_ordinal: u32,

    pub(crate) pools: OrdMap<NetworkId, AddressPool>,
    pub(crate) vnis: OrdSet<u32>,
    network_names: OrdMap<String, NetworkId>,
    service_names: OrdMap<String, ServiceId>,
    services_by_network: Index<NetworkId, ServiceId, Service>,
    overlay_mtu: OverlayMtu,
}

/// The networks in which a service has a name, an address or tasks to come.
pub(crate) fn attached(service: &Service) -> BTreeSet<NetworkId> {
    let wanted = service.spec.task_template.networks.iter().map(|n| n.target.clone());
    let held = service.endpoint.virtual_ips.iter().map(|vip| vip.network_id.clone());
    wanted.chain(held).collect()
}

impl State {
    /// An empty state: no cluster yet.
    pub fn new() -> State {
        State { next_raft_id: 1, next_vni: FIRST_VNI, ..State::default() }
    }

    /// The revision (Raft log index) of the last command applied.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The cluster, once `init` made it.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// The smallest Raft id that no manager has had.
    pub fn next_raft_id(&self) -> u64 {
        self.next_raft_id
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The node of this id.
    pub fn node(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(id)
    }

    /// Whether the task runs as far as anybody knows: it was said to, and its node is heard of.
    pub fn runs(&self, task: &Task) -> bool {
        task.is_running() && self.node_of(task).is_some_and(|node| node.is_alive())
    }

    /// The node that a task is placed on, if it is placed and the node is still part of the swarm.
    pub fn node_of(&self, task: &Task) -> Option<&Arc<Node>> {
        task.node_id.as_ref().and_then(|id| self.node(id))
    }

    /// All networks.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    /// The network of this id.
    pub fn network(&self, id: &NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(id)
    }

    /// The network of this name.
    pub fn network_named(&self, name: &str) -> Option<&Arc<Network>> {
        self.network_names.get(name).and_then(|id| self.networks.get(id))
    }

    /// All services, those being deleted too.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The service of this id.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id)
    }

    /// The service of this name that is not being deleted.
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.service_names.get(name).and_then(|id| self.services.get(id))
    }

    /// The services with an address or tasks in a network.
    pub fn services_in(&self, network: &NetworkId) -> impl Iterator<Item = &Arc<Service>> {
        within(&self.services_by_network, network)
    }

    /// All tasks.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.all()
    }

    /// The task of this id.
    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(id)
    }

    /// All tasks of a service in the order of their slots, finished ones too.
    pub fn tasks_of(&self, service: &ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.of_service(service)
    }

    /// How many tasks a service has, finished ones too.
    pub fn count_of(&self, service: &ServiceId) -> usize {
        self.tasks.count_of_service(service)
    }

    /// The tasks in a slot of a service, finished ones too.
    pub fn tasks_in_slot(
        &self,
        service: &ServiceId,
        slot: u64,
    ) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.in_slot(service, slot)
    }

    /// The unfinished tasks placed on a node.
    pub fn tasks_on(&self, node: &NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.on_node(node)
    }

    /// The finished tasks that were placed on a node.
    pub fn ended_on(&self, node: &NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.ended_on_node(node)
    }

    /// How many unfinished tasks are placed on a node.
    pub fn task_count(&self, node: &NodeId) -> usize {
        self.tasks.count_on_node(node)
    }

    /// The unfinished tasks with an address in a network.
    pub fn tasks_in(&self, network: &NetworkId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.in_network(network)
    }

    /// The MTU of overlay networks, in bytes: the smallest underlay MTU of all nodes less the
    /// encapsulation, and the encryption.
    pub fn overlay_mtu(&self, encrypted: bool) -> u32 {
        let mtu = self.overlay_mtu;
        if encrypted { mtu.encrypted } else { mtu.plain }
    }

    /// The UDP port of networks without encryption.
    pub(crate) fn data_path_port(&self) -> u16 {
        self.cluster().map_or(4789, |cluster| cluster.spec.data_path_port)
    }

    /// The UDP port of encrypted networks: one of their own, so that whatever goes there must be
    /// encrypted, and nothing else need be.
    pub(crate) fn encrypted_port(&self) -> Option<u16> {
        self.data_path_port().checked_add(1)
    }

    /// Free addresses left in a network.
    pub fn free_addresses(&self, network: &NetworkId) -> u64 {
        self.pools.get(network).map_or(0, AddressPool::free)
    }

    pub(crate) fn put_node(&mut self, node: Node) {
        self.nodes.insert(node.id.clone(), Arc::new(node));
        self.measure_mtu();
    }

    pub(crate) fn drop_node(&mut self, id: &NodeId) {
        self.nodes.remove(id);
        self.measure_mtu();
    }

    fn measure_mtu(&mut self) {
        self.overlay_mtu = mtu::between(|| self.nodes.values().map(|node| &**node));
    }

    pub(crate) fn put_network(&mut self, network: Network, pool: AddressPool) {
        self.network_names.insert(network.spec.name.clone(), network.id.clone());
        self.vnis.insert(network.vni);
        self.pools.insert(network.id.clone(), pool);
        self.networks.insert(network.id.clone(), Arc::new(network));
    }

    pub(crate) fn drop_network(&mut self, id: &NetworkId) {
        if let Some(network) = self.networks.remove(id) {
            self.network_names.remove(&network.spec.name);
            self.vnis.remove(&network.vni);
            self.pools.remove(id);
        }
    }

    pub(crate) fn put_service(&mut self, service: Service) {
        self.unlist_service(&service.id);
        if !service.pending_delete {
            self.service_names.insert(service.spec.name.clone(), service.id.clone());
        }
        let service = Arc::new(service);
        for network in attached(&service) {
            index(&mut self.services_by_network, &network, service.id.clone(), &service);
        }
        self.services.insert(service.id.clone(), service);
    }

    pub(crate) fn drop_service(&mut self, id: &ServiceId) {
        self.unlist_service(id);
        self.services.remove(id);
    }

    fn unlist_service(&mut self, id: &ServiceId) {
        let Some(service) = self.services.get(id) else { return };
        for network in attached(service) {
            unindex(&mut self.services_by_network, &network, id);
        }
        // Another service may have taken the name of one that is being deleted.
        if self.service_names.get(&service.spec.name) == Some(id) {
            self.service_names.remove(&service.spec.name);
        }
    }
}
