//! Docker's JSON shapes of what the model holds differently.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use swarm_model::{Network, Node, Service};
use swarm_state::State;

/// `network inspect`: without `Peers` and `Services`.
pub(crate) fn network(network: &Network) -> Value {
    let mut config = json!({ "Subnet": network.subnet, "Gateway": network.gateway });
    if network.ip_range != network.subnet {
        config["IPRange"] = json!(network.ip_range);
    }
    let mut options = json!(network.spec.options);
    options["com.docker.network.driver.overlay.vxlanid_list"] = json!(network.vni.to_string());
    json!({
        "Name": network.spec.name,
        "Id": network.id,
        "Created": network.meta.created_at,
        "Scope": "swarm",
        "Driver": network.spec.driver,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": [config] },
        "Internal": network.spec.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": null,
        "Options": options,
        "Labels": network.spec.labels,
    })
}

/// The nodes that carry a network: `Peers` of `network inspect`.
pub(crate) fn peers(state: &State, network: &Network) -> Value {
    let nodes = state.carriers(&network.id);
    nodes.filter_map(|id| state.node(id)).map(|node| peer(node)).collect()
}

/// One of [`peers`].
pub(crate) fn peer(node: &Node) -> Value {
    let addr = node.description.data_path_addr.map(|addr| addr.to_string());
    let addr = addr.unwrap_or_else(|| node.status.addr.clone());
    json!({ "Name": node.description.hostname, "IP": addr })
}

/// The services in a network with their addresses and tasks: `Services` of `network inspect --verbose`.
pub(crate) fn services(state: &State, network: &Network) -> Value {
    let services = state.services_in(&network.id).filter(|service| !service.pending_delete);
    let services = services.map(|service| {
        let vip = service.endpoint.virtual_ips.iter().find(|v| v.network_id == network.id);
        let value = json!({
            "VIP": vip.map(|vip| vip.addr.addr().to_string()).unwrap_or_default(),
            "Ports": [],
            "Tasks": tasks(state, network, service),
        });
        (service.spec.name.clone(), value)
    });
    Value::Object(services.collect())
}

fn tasks(state: &State, network: &Network, service: &Service) -> Value {
    let of_service = state.tasks_in(&network.id).filter(|task| task.service_id == service.id);
    let tasks = of_service.filter_map(|task| {
        let attachment = task.networks_attachments.iter().find(|a| a.network.id == network.id)?;
        let host = state.node_of(task)?.description.data_path_addr;
        Some(json!({
            "Name": task.name(),
            "EndpointID": task.id,
            "EndpointIP": attachment.addresses.first()?.addr(),
            "State": task.status.state,
            "Info": { "Host IP": host.map(|host| host.to_string()).unwrap_or_default() },
        }))
    });
    tasks.collect()
}

/// A service as lists show it: with how many of its tasks run.
pub(crate) fn service_with_status(state: &State, service: &Service) -> Value {
    // A slot that is handed over has two tasks for a moment.
    let running: BTreeSet<u64> = state
        .tasks_of(&service.id)
        .filter(|task| task.is_wanted() && state.runs(task))
        .map(|task| task.slot)
        .collect();
    let mut value = json!(service);
    value["ServiceStatus"] =
        json!({ "RunningTasks": running.len(), "DesiredTasks": service.replicas() });
    value
}
