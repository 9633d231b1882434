//! Networks: created, listed, inspected, removed.

use std::sync::Arc;

use swarm_model::{DEFAULT_DRIVER, Network, NetworkId, NetworkSpec, Node, Service, overlap};
use swarm_state::{Change, Rejected, State};

use super::types::{Changed, Listed, NetworkDetails, NetworkPeer, NetworkService, NetworkTask};
use super::{Api, resolve};
use crate::clock;
use crate::error::ApiError;

impl Api {
    /// Creates a network; warns of what will not work well.
    pub async fn create_network(&self, mut spec: NetworkSpec) -> Result<Changed, ApiError> {
        if spec.driver.is_empty() {
            spec.driver = DEFAULT_DRIVER.to_owned();
        }
        let id: NetworkId = clock::new_id();
        let change = Change::CreateNetwork { id: id.clone(), spec };
        let outcome = self.proposer.propose_one(change).await?;
        let state = self.store.read();
        let warnings =
            [hidden_routes(&state, &id), unknown_routes(&state), unfit(&state, &id)].concat();
        Ok(Changed { id: id.to_string(), revision: outcome.revision, warnings })
    }

    /// All networks.
    pub async fn list_networks(&self) -> Listed<Arc<Network>> {
        let stale = self.freshen().await;
        Listed { items: self.store.read().networks().cloned().collect(), stale }
    }

    /// The network meant; `verbose`, with the services in it.
    pub async fn inspect_network(
        &self,
        name: &str,
        verbose: bool,
    ) -> Result<NetworkDetails, ApiError> {
        self.barrier().await?;
        let state = self.store.read();
        let network = resolve::network(&state, name)?;
        let services = verbose.then(|| services(&state, &network));
        let (peers, encryption) = match network.is_encrypted() {
            true => {
                self.keys_of(&state, &network).await.map(|(peers, keys)| (peers, Some(keys)))?
            }
            false => (peers(&state, &network, |_| None), None),
        };
        Ok(NetworkDetails { network, peers, services, encryption })
    }

    /// Removes a network.
    pub async fn remove_network(&self, name: &str) -> Result<Changed, ApiError> {
        self.barrier().await?;
        let network = resolve::network(&self.store.read(), name)?;
        let change = Change::RemoveNetwork { id: network.id.clone() };
        let revision = self.proposer.propose_one(change).await?.revision;
        Ok(Changed { id: network.id.to_string(), revision, warnings: vec![] })
    }

    /// Removes every network that nothing uses; answers with the names.
    pub async fn prune_networks(&self) -> Result<Vec<String>, ApiError> {
        self.barrier().await?;
        let unused: Vec<_> = {
            let state = self.store.read();
            let unused =
                |id| state.services_in(id).next().is_none() && state.tasks_in(id).next().is_none();
            state.networks().filter(|network| unused(&network.id)).cloned().collect()
        };
        let changes = unused.iter().map(|n| Change::RemoveNetwork { id: n.id.clone() }).collect();
        let mut removed = Vec::new();
        for (network, result) in unused.iter().zip(self.proposer.propose(changes).await?) {
            match result {
                Ok(_) => removed.push(network.spec.name.clone()),
                // Somebody began to use it, or removed it, meanwhile.
                Err(Rejected::InUse(_) | Rejected::NotFound(_)) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(removed)
    }
}

/// The nodes that carry a network; `keys` says how far a node is with its keys.
pub(super) fn peers(
    state: &State,
    network: &Network,
    keys: impl Fn(&Node) -> Option<String>,
) -> Vec<NetworkPeer> {
    let nodes = state.carriers(&network.id).filter_map(|id| state.node(id));
    let peers = nodes.map(|node| {
        let addr = node.description.data_path_addr.map(|addr| addr.to_string());
        let addr = addr.unwrap_or_else(|| node.status.addr.clone());
        NetworkPeer { hostname: node.description.hostname.clone(), addr, keys: keys(node) }
    });
    peers.collect()
}

fn services(state: &State, network: &Network) -> Vec<NetworkService> {
    let services = state.services_in(&network.id).filter(|service| !service.pending_delete);
    let services = services.map(|service| {
        let vip = service.endpoint.virtual_ips.iter().find(|v| v.network_id == network.id);
        NetworkService {
            name: service.spec.name.clone(),
            vip: vip.map(|vip| vip.addr.addr()),
            tasks: tasks(state, network, service),
        }
    });
    services.collect()
}

fn tasks(state: &State, network: &Network, service: &Service) -> Vec<NetworkTask> {
    let of_service = state.tasks_in(&network.id).filter(|task| task.service_id == service.id);
    let tasks = of_service.filter_map(|task| {
        let attachment = task.networks_attachments.iter().find(|a| a.network.id == network.id)?;
        Some(NetworkTask {
            id: task.id.clone(),
            name: task.name(),
            addr: attachment.addresses.first()?.addr(),
            state: task.status.state,
            host: state.node_of(task)?.description.data_path_addr,
        })
    });
    tasks.collect()
}

/// What in a network's options will not work well.
fn unfit(state: &State, id: &NetworkId) -> Vec<String> {
    let Some(network) = state.network(id) else { return Vec::new() };
    let mut warnings = Vec::new();
    let most = state.overlay_mtu(network.is_encrypted());
    if let Some(mtu) = network.mtu_override()
        && mtu > most
    {
        warnings.push(format!(
            "full-size packets will be fragmented between nodes: the MTU {mtu} is more than {most}, the \
             most that fits there"
        ));
    }
    let nodes = state.nodes().filter(|node| network.is_encrypted() && !node.has_esp());
    let mut lacking: Vec<&str> = nodes.map(|node| node.description.hostname.as_str()).collect();
    lacking.sort_unstable();
    warnings.extend(lacking.iter().map(|hostname| {
        format!("tasks on this network will not run on {hostname}, whose kernel lacks IPsec ESP")
    }));
    warnings
}

/// What tasks on a network with a subnet of the user's choice cannot reach: hosts that a node has a route
/// to in the same subnet. (A subnet from the pool keeps clear of these.)
fn hidden_routes(state: &State, id: &NetworkId) -> Vec<String> {
    let Some(network) = state.network(id) else { return Vec::new() };
    let subnet = network.subnet;
    let nodes = state.nodes().filter_map(|node| {
        let routes = node.description.routes.iter().flatten();
        let route =
            routes.filter(|route| route.prefix_len() > 0).find(|route| overlap(route, &subnet))?;
        let hostname = &node.description.hostname;
        Some(format!("tasks will not reach {route}, which {hostname} has a route to"))
    });
    nodes.collect()
}

/// The nodes that any subnet may clash with, since they could not list their routes.
fn unknown_routes(state: &State) -> Vec<String> {
    let nodes = state.nodes().filter(|node| node.is_alive() && node.description.routes.is_none());
    let warning = |node: &Arc<Node>| {
        let hostname = &node.description.hostname;
        format!(
            "whether the subnet clashes with a route of {hostname} is not known: its routes are not"
        )
    };
    nodes.map(warning).collect()
}
