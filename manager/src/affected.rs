//! Which nodes a change concerns: those whose view of the state may differ by it.

use std::collections::BTreeSet;

use swarm_model::{NetworkId, NodeId};
use swarm_state::{State, Touched};

/// The nodes whose view may have changed by `touched`. `state` may be newer than that: what a change
/// leaves behind (a task forgotten, a network left by a service) is named in `touched` itself.
pub(crate) fn affected(state: &State, touched: &[Touched]) -> BTreeSet<NodeId> {
    let mut networks: BTreeSet<NetworkId> = BTreeSet::new();
    let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
    for object in touched {
        match object {
            Touched::Task(id, _) => {
                if let Some(task) = state.task(id.as_str()) {
                    nodes.insert(task.node_id.clone());
                    let attached = task.networks_attachments.iter();
                    networks.extend(attached.map(|attachment| attachment.network.id.clone()));
                }
            }
            Touched::Service(id) => {
                if let Some(service) = state.service(id.as_str()) {
                    let wanted = service.spec.task_template.networks.iter();
                    networks.extend(wanted.map(|network| network.target.clone()));
                }
            }
            Touched::Network(id) => {
                networks.insert(id.clone());
            }
            Touched::NodeHistory(id) => {
                nodes.insert(id.clone());
            }
            // A node's address or MTU concerns whoever shares a network with it, and the MTU all.
            Touched::Node(id) => {
                nodes.insert(id.clone());
                networks.extend(state.networks().map(|network| network.id.clone()));
            }
            // Its VXLAN port concerns all.
            Touched::Cluster => networks.extend(state.networks().map(|n| n.id.clone())),
        }
    }
    nodes.extend(networks.iter().flat_map(|network| state.nodes_in(network)));
    nodes.remove("");
    nodes
}

#[cfg(test)]
mod tests;
