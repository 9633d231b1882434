//! Which nodes and networks a change concerns: those whose view of the state may differ by it.

use std::collections::BTreeSet;

use swarm_model::{NetworkId, NodeId};
use swarm_state::{State, Touched};

/// The nodes whose view may have changed by `touched`. `state` may be newer than that: what a change
/// leaves behind (a task forgotten, a network left by a service) is named in `touched` itself.
pub(crate) fn affected(state: &State, touched: &[Touched]) -> BTreeSet<NodeId> {
    let mut nodes: BTreeSet<NodeId> = touched
        .iter()
        .filter_map(|object| match object {
            Touched::NodeHistory(id) | Touched::Node(id) | Touched::Assignment(id) => {
                Some(id.clone())
            }
            // What its node reports of a task, that node knows.
            Touched::Task(..) => None,
            Touched::Service(_) | Touched::Network(_) | Touched::Cluster => None,
            Touched::NetworkKeys | Touched::NodeCertificate(_) => None,
            Touched::Carriers(_) | Touched::Endpoint(_) => None,
        })
        .collect();
    if touched.contains(&Touched::NetworkKeys) {
        let encrypted = state.networks().filter(|network| network.is_encrypted());
        nodes.extend(encrypted.flat_map(|network| state.carriers(&network.id)).cloned());
    }
    if touched.contains(&Touched::Cluster) {
        // A newer feature level may be that of what was kept from any of them.
        nodes.extend(state.nodes().map(|node| node.id.clone()));
    }
    let networks = networks(state, touched);
    nodes.extend(networks.iter().flat_map(|network| state.carriers(network)).cloned());
    nodes
}

/// The networks of which nodes may be told something else since `touched`.
pub(crate) fn networks(state: &State, touched: &[Touched]) -> BTreeSet<NetworkId> {
    let mut networks: BTreeSet<NetworkId> = BTreeSet::new();
    for object in touched {
        match object {
            Touched::Service(id) => {
                if let Some(service) = state.service(id) {
                    let wanted = service.spec.task_template.networks.iter();
                    networks.extend(wanted.map(|network| network.target.clone()));
                }
            }
            Touched::Network(id) | Touched::Carriers(id) | Touched::Endpoint(id) => {
                networks.insert(id.clone());
            }
            // What concerns others, or its node, is touched besides.
            Touched::Task(..) | Touched::Assignment(_) => {}
            Touched::NodeHistory(_) | Touched::NetworkKeys | Touched::NodeCertificate(_) => {}
            // A node's address concerns the carriers of its tasks' networks. Its MTU concerns all, since an overlay's
            // is the smallest of all nodes', and so does the cluster's VXLAN port.
            Touched::Node(_) | Touched::Cluster => {
                networks.extend(state.networks().map(|network| network.id.clone()));
            }
        }
    }
    networks
}

/// Whether any node may be told of other tunnels since `touched`.
pub(crate) fn tunnels(state: &State, touched: &[Touched]) -> bool {
    touched.iter().any(|object| match object {
        Touched::Node(_) | Touched::NetworkKeys | Touched::Cluster => true,
        // A network that is gone already may have been an encrypted one.
        Touched::Carriers(id) => state.network(id).is_none_or(|n| n.is_encrypted()),
        _ => false,
    })
}

#[cfg(test)]
mod tests;
