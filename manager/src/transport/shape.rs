//! Docker's JSON shapes of what the model holds differently.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use swarm_model::Network;

use super::keys;
use crate::api::types::{
    NetworkDetails, NetworkPeer, NetworkService, NetworkTask, ServiceOverview,
};

/// A document, as it is sent.
pub(super) fn document<T: Serialize>(value: &T) -> Bytes {
    // Model types have string keys and no failing serializers.
    serde_json::to_vec(value).expect("model objects are valid JSON").into()
}

/// `network ls`, and `network inspect` without what [`details`] adds.
pub(super) fn network(network: &Network) -> Value {
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

/// `network inspect`: with `Peers`, of an encrypted network `Encryption`, and with `--verbose` `Services`.
pub(super) fn details(details: &NetworkDetails) -> Value {
    let mut value = network(&details.network);
    value["Peers"] = details.peers.iter().map(peer).collect();
    if let Some(encryption) = &details.encryption {
        value["Encryption"] = json!(keys::Document::of(encryption));
    }
    if let Some(services) = &details.services {
        let services =
            services.iter().map(|service| (service.name.clone(), self::service(service)));
        value["Services"] = Value::Object(services.collect());
    }
    value
}

fn peer(peer: &NetworkPeer) -> Value {
    json!(keys::Peer::of(peer))
}

fn service(service: &NetworkService) -> Value {
    json!({
        "VIP": service.vip.map(|vip| vip.to_string()).unwrap_or_default(),
        "Ports": [],
        "Tasks": service.tasks.iter().map(task).collect::<Value>(),
    })
}

fn task(task: &NetworkTask) -> Value {
    json!({
        "Name": task.name,
        "EndpointID": task.id,
        "EndpointIP": task.addr,
        "State": task.state,
        "Info": { "Host IP": task.host.map(|host| host.to_string()).unwrap_or_default() },
    })
}

/// A service as lists show it: with how many of its tasks run.
pub(super) fn overview(overview: &ServiceOverview) -> Value {
    let mut value = json!(overview.service);
    value["ServiceStatus"] =
        json!({ "RunningTasks": overview.running, "DesiredTasks": overview.service.replicas() });
    value
}
