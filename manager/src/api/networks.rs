//! `network create | ls | inspect | rm | prune`.

use std::sync::Arc;

use serde_json::json;
use swarm_model::{DEFAULT_DRIVER, NetworkId, NetworkSpec, Node, overlap};
use swarm_proto::control::{Changed, Document, Documents, InspectNetworkRequest};
use swarm_state::{Change, Rejected, State};
use tonic::Status;

use super::{Control, document, resolve, shape, strict};
use crate::clock;
use crate::error::ApiError;

impl Control {
    pub(super) async fn create_network_now(&self, request: Document) -> Result<Changed, Status> {
        let mut spec: NetworkSpec = strict::spec(&request.json, "network")?;
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

    pub(super) async fn list_networks_now(&self) -> Result<Documents, Status> {
        let stale = self.freshen().await;
        let state = self.store.read();
        let json = state.networks().map(|network| document(&shape::network(network)));
        Ok(Documents { json: json.collect(), stale })
    }

    pub(super) async fn inspect_network_now(
        &self,
        request: InspectNetworkRequest,
    ) -> Result<Document, Status> {
        self.barrier().await?;
        let encrypted = resolve::network(&self.store.read(), &request.name)?.is_encrypted();
        if encrypted && let Some(answer) = self.ask_leader(&request).await? {
            return Ok(answer);
        }
        let state = self.store.read();
        let network = resolve::network(&state, &request.name)?;
        let mut value = shape::network(&network);
        value["Peers"] = shape::peers(&state, &network);
        if network.is_encrypted() {
            self.show_encryption(&state, &network, &mut value);
        }
        if request.verbose {
            value["Services"] = shape::services(&state, &network);
        }
        Ok(Document { json: document(&value) })
    }

    pub(super) async fn remove_network_now(&self, name: &str) -> Result<Changed, Status> {
        self.barrier().await?;
        let network = resolve::network(&self.store.read(), name)?;
        let change = Change::RemoveNetwork { id: network.id.clone() };
        let outcome = self.proposer.propose_one(change).await?;
        let (id, revision) = (network.id.to_string(), outcome.revision);
        Ok(Changed { id, revision, warnings: vec![] })
    }

    /// Removes every network that nothing uses; answers with the names.
    pub(super) async fn prune_networks_now(&self) -> Result<Documents, Status> {
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
                Ok(_) => removed.push(document(&json!(network.spec.name))),
                // Somebody began to use it, or removed it, meanwhile.
                Err(Rejected::InUse(_) | Rejected::NotFound(_)) => {}
                Err(e) => return Err(ApiError::from(e).into()),
            }
        }
        Ok(Documents { json: removed, stale: String::new() })
    }
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
