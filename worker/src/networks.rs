//! From what a node is told of a network to what its kernel, balancer and DNS should hold. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use swarm_balancer::{Backend, VirtualService};
use swarm_dns::{Answer, NetworkNames};
use swarm_model::{
    EndpointState, EndpointView, Item, ItemKey, NetworkId, NetworkView, NodeId, NodeView, PortMap,
    Ports, Protocol, ServiceId, ServiceView, ViewDelta,
};
use swarm_overlay::Remote;

/// One network, taken out of a node's view.
pub(crate) struct Desired<'a> {
    id: &'a NetworkId,
    network: &'a NetworkView,
    services: Vec<(&'a ServiceId, &'a ServiceView)>,
    endpoints: Vec<&'a EndpointView>,
}

/// The networks of a view.
pub(crate) fn networks_of(view: &NodeView) -> BTreeSet<NetworkId> {
    let networks = view.items.keys().filter_map(|key| match key {
        ItemKey::Network(id) => Some(id.clone()),
        _ => None,
    });
    networks.collect()
}

/// The networks that a change of the view concerns: one that begins anew concerns all there were, too.
pub(crate) fn concerned(view: &NodeView, delta: &ViewDelta) -> BTreeSet<NetworkId> {
    let keys = delta.upsert.iter().map(|(key, _)| key).chain(&delta.remove);
    let mut networks: BTreeSet<NetworkId> = keys.filter_map(|key| key.network().cloned()).collect();
    if delta.full {
        networks.extend(networks_of(view));
    }
    networks
}

/// MTU and `--internal` of a network that the node is told of.
pub(crate) fn network_facts(view: &NodeView, id: &NetworkId) -> Option<(u32, bool)> {
    match view.items.get(&ItemKey::Network(id.clone())) {
        Some(Item::Network(network)) => Some((network.mtu, network.internal)),
        _ => None,
    }
}

impl<'a> Desired<'a> {
    /// The network of this id; none if the view does not hold it.
    pub(crate) fn of(view: &'a NodeView, id: &'a NetworkId) -> Option<Desired<'a>> {
        let mut network = None;
        let (mut services, mut endpoints) = (Vec::new(), Vec::new());
        for (key, item) in view.of_network(id) {
            match (key, item) {
                (_, Item::Network(view)) => network = Some(view),
                (ItemKey::Service(_, service), Item::Service(view)) => {
                    services.push((service, view));
                }
                (_, Item::Endpoint(view)) => endpoints.push(view),
                _ => {}
            }
        }
        Some(Desired { id, network: network?, services, endpoints })
    }

    /// Whether what is sent to other nodes must be encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.network.encrypted
    }

    /// What the overlay should hold on `node`, whose VTEP is `vtep`.
    pub(crate) fn overlay(&self, node: &NodeId, vtep: IpAddr) -> swarm_overlay::Network {
        // At this host's own address there was another node before it left and joined again: its tasks are
        // gone, and only not forgotten yet. One of the other family cannot be sent to from here.
        let is_sendable =
            |remote: &Remote| remote.vtep != vtep && remote.vtep.is_ipv4() == vtep.is_ipv4();
        let (local, remote): (Vec<&EndpointView>, Vec<&EndpointView>) =
            self.endpoints.iter().copied().partition(|endpoint| endpoint.node == *node);
        let reachable = remote
            .into_iter()
            .filter_map(|endpoint| endpoint.vtep.map(|vtep| Remote { addr: endpoint.addr, vtep }))
            .filter(is_sendable);
        swarm_overlay::Network {
            id: self.id.to_string(),
            vni: self.network.vni,
            port: self.network.port,
            subnet: self.network.subnet,
            gateway: self.network.gateway,
            mtu: self.network.mtu,
            vips: self.services.iter().filter_map(|(_, service)| service.vip).collect(),
            local: local.into_iter().map(|endpoint| endpoint.addr).collect(),
            remote: reachable.collect(),
        }
    }

    /// What the balancer should hold on `node`. A task on its way out keeps the connections it has; one
    /// whose node is dead loses them, so that they are made anew elsewhere.
    pub(crate) fn balancer(&self, node: &NodeId, netns: PathBuf) -> swarm_balancer::Network {
        let mut backends: BTreeMap<&ServiceId, Vec<Backend>> = BTreeMap::new();
        for endpoint in &self.endpoints {
            let weight = match endpoint.state {
                EndpointState::Ready => 1,
                EndpointState::Draining => 0,
                EndpointState::Starting | EndpointState::Lost => continue,
            };
            let local = endpoint.node == *node;
            let backend = Backend { addr: endpoint.addr, weight, local };
            backends.entry(&endpoint.service).or_default().push(backend);
        }
        let services = self.services.iter().filter_map(|(id, service)| {
            let vip = service.vip?;
            Some(VirtualService {
                id: id.to_string(),
                name: service.name.clone(),
                mark: self.host_number(vip),
                vip,
                ports: balanced_ports(&service.ports),
                backends: backends.remove(id).unwrap_or_default(),
            })
        });
        swarm_balancer::Network {
            id: self.id.to_string(),
            netns,
            gateway: self.network.gateway,
            services: services.collect(),
        }
    }

    /// Unique in the network, as a service's mark must be, and short: what `ipvsadm` shows as `FWM 2` is the service
    /// with the VIP 10.0.1.2 of 10.0.1.0/24. None if the address is IPv6, which no engine balances.
    fn host_number(&self, addr: IpAddr) -> Option<u32> {
        match (addr, self.network.subnet.hostmask()) {
            (IpAddr::V4(addr), IpAddr::V4(mask)) => Some(u32::from(addr) & u32::from(mask)),
            _ => None,
        }
    }

    /// The names in this network.
    pub(crate) fn names(&self) -> Result<NetworkNames, swarm_dns::Error> {
        let mut names = NetworkNames::new();
        let named: Vec<_> = self.services.iter().filter(|(_, s)| !s.name.is_empty()).collect();
        for (id, service) in &named {
            let tasks = Answer::Addresses(self.ready(id));
            let answer = service.vip.map_or_else(|| tasks.clone(), Answer::Vip);
            for alias in &service.aliases {
                insert_shared(&mut names, alias, &answer)?;
                insert_shared(&mut names, &format!("tasks.{alias}"), &tasks)?;
            }
        }
        // A service's own name goes before another's alias.
        for (id, service) in &named {
            let tasks = Answer::Addresses(self.ready(id));
            names.insert(&format!("tasks.{}", service.name), tasks.clone())?;
            names.insert(&service.name, service.vip.map_or(tasks, Answer::Vip))?;
            if let Some(vip) = service.vip {
                self.insert_reverse(&mut names, vip, &service.name)?;
            }
        }
        for endpoint in self.endpoints.iter().filter(|e| e.state != EndpointState::Lost) {
            names.insert(&endpoint.task_name, Answer::Addresses(vec![endpoint.addr]))?;
            self.insert_reverse(&mut names, endpoint.addr, &endpoint.task_name)?;
        }
        Ok(names)
    }

    /// An address belongs to `name.network`, as in Docker; or to `name` where the network's name is none
    /// that DNS can carry.
    fn insert_reverse(
        &self,
        names: &mut NetworkNames,
        addr: IpAddr,
        name: &str,
    ) -> Result<(), swarm_dns::Error> {
        let full = format!("{name}.{}", self.network.name);
        names.insert_reverse(addr, &full).or_else(|_| names.insert_reverse(addr, name))
    }

    fn ready(&self, service: &ServiceId) -> Vec<IpAddr> {
        let of_service = self.endpoints.iter().filter(|endpoint| endpoint.service == *service);
        let ready = of_service.filter(|endpoint| endpoint.state == EndpointState::Ready);
        ready.map(|endpoint| endpoint.addr).collect()
    }
}

/// In the balancer's terms.
fn balanced_ports(ports: &Ports) -> swarm_balancer::Ports {
    let map = |map: &PortMap| swarm_balancer::PortMap {
        protocol: match map.protocol {
            Protocol::Tcp => swarm_balancer::Protocol::Tcp,
            Protocol::Udp => swarm_balancer::Protocol::Udp,
        },
        port: map.port,
        target: map.target,
    };
    match ports {
        Ports::All => swarm_balancer::Ports::All,
        Ports::Only(maps) => swarm_balancer::Ports::Only(maps.iter().map(map).collect()),
    }
}

/// Services may share an alias: it resolves to all of them.
fn insert_shared(
    names: &mut NetworkNames,
    alias: &str,
    answer: &Answer,
) -> Result<(), swarm_dns::Error> {
    let both = match names.get(&alias.to_ascii_lowercase()) {
        Some(other) => Answer::Addresses([other.addresses(), answer.addresses()].concat()),
        None => answer.clone(),
    };
    names.insert(alias, both).map(|_| ())
}

#[cfg(test)]
mod tests;
