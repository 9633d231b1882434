//! What `swarmctl info` tells of this host and its swarm, in Docker's shape.

use serde_json::{Value, json};

use super::Daemon;
use crate::locked::LockedNode;
use crate::node::Node;
use crate::vault::LOCKED;

pub(super) async fn info(daemon: &Daemon) -> Value {
    let locked = daemon.locked.read().await;
    let node = daemon.node.read().await;
    let resources = swarm_worker::resources();
    let (swarm, warnings) = match (node.as_ref(), locked.as_ref()) {
        (None, Some(locked)) => (self::locked(locked), Vec::new()),
        (None, None) => (json!({ "NodeID": "", "LocalNodeState": "inactive" }), Vec::new()),
        (Some(node), _) => {
            let warnings = node.manager.as_ref().map(|manager| {
                let rotation = manager.root_rotation().and_then(rotation_warning);
                manager.warnings().into_iter().chain(rotation).collect::<Vec<_>>()
            });
            (swarm(node).await, warnings.unwrap_or_default())
        }
    };
    json!({
        "ID": swarm["NodeID"],
        "Name": daemon.host.hostname,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "OperatingSystem": std::env::consts::OS,
        "Architecture": std::env::consts::ARCH,
        "NCPU": resources.nano_cpus / 1_000_000_000,
        "MemTotal": resources.memory_bytes,
        "Images": daemon.host.images.list().len(),
        "DockerRootDir": daemon.host.state_dir,
        "Swarm": swarm,
        "Warnings": warnings,
    })
}

fn locked(node: &LockedNode) -> Value {
    json!({
        "NodeID": node.id,
        "NodeAddr": node.config.data_path_addr,
        "LocalNodeState": "locked",
        "ControlAvailable": false,
        "Error": LOCKED,
    })
}

/// Whom a rotation of the root waits for; none if it is about to end.
fn rotation_warning(waiting: Vec<String>) -> Option<String> {
    (!waiting.is_empty()).then(|| {
        format!(
            "the CA is being rotated, and waits for certificates of: {}; bring a node that is down back, or if it is lost for good remove it (swarmctl node rm)",
            waiting.join(", ")
        )
    })
}

async fn swarm(node: &Node) -> Value {
    let mut value = json!({
        "NodeID": node.id(),
        "NodeAddr": node.config.data_path_addr,
        "LocalNodeState": "active",
        "ControlAvailable": node.manager.is_some(),
        "Error": node.worker.trouble(),
        "RemoteManagers": node.worker.managers().all().iter().map(|manager| {
            json!({ "NodeID": manager.node_id, "Addr": manager.addr })
        }).collect::<Value>(),
    });
    if let Some(manager) = &node.manager {
        let trouble = manager.trouble().await;
        if !trouble.is_empty() {
            value["Error"] = json!(trouble);
        }
        value["Managers"] = json!(manager.raft().status().borrow().voters.len());
        let state = manager.store().read();
        value["Nodes"] = json!(state.nodes().count());
        value["RemoteManagers"] = state
            .nodes()
            .filter_map(|node| {
                let addr = &node.manager_status.as_ref()?.addr;
                Some(json!({ "NodeID": node.id, "Addr": addr }))
            })
            .collect();
        if let Some(cluster) = state.cluster() {
            value["Cluster"] = json!({
                "ID": cluster.id,
                "Spec": cluster.spec,
                "TLSInfo": { "TrustRoot": cluster.trusted_roots() },
                "RootRotationInProgress": cluster.root_rotation.is_some(),
                "FeatureLevel": state.feature_level(),
            });
            if let Some(next) = state.next_level() {
                let by = state.held_back_by(next);
                value["Cluster"]["NextFeatureLevel"] = json!({ "Level": next, "HeldBackBy": by });
            }
        }
    }
    value
}
