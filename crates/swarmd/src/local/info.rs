//! What `swarmctl info` tells of this host and its swarm, in Docker's shape.

use serde_json::{Value, json};
use swarm_manager::Handle;

use crate::daemon::{Daemon, Shown, View};
use crate::life::cannot_start;
use crate::vault::LOCKED;

pub(super) async fn info(daemon: &Daemon) -> Value {
    let resources = swarm_worker::resources();
    let mut warnings = Vec::new();
    let swarm = match daemon.shown() {
        Shown::Nothing => without_node("inactive", ""),
        Shown::Joining => without_node("pending", "this node is joining a swarm"),
        Shown::Starting => without_node("pending", "this node is starting"),
        Shown::Leaving => without_node("pending", "this node is leaving its swarm"),
        Shown::Failed(why) => without_node("error", &cannot_start(&why)),
        Shown::Locked { id, addr } => json!({
            "NodeID": id,
            "NodeAddr": addr,
            "LocalNodeState": "locked",
            "ControlAvailable": false,
            "Error": LOCKED,
        }),
        Shown::Worker(node) => worker(&node),
        Shown::Manager(node, manager) => {
            let rotation = manager.root_rotation().and_then(rotation_warning);
            warnings = manager.warnings().into_iter().chain(rotation).collect();
            self::manager(&node, &manager).await
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

/// In Docker's words for the state of a node.
fn without_node(state: &str, error: &str) -> Value {
    json!({ "NodeID": "", "LocalNodeState": state, "Error": error })
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

fn worker(node: &View) -> Value {
    json!({
        "NodeID": node.id(),
        "NodeAddr": node.config.data_path_addr,
        "LocalNodeState": "active",
        "ControlAvailable": false,
        "Error": node.trouble(),
        "RemoteManagers": node.managers.all().iter().map(|manager| {
            json!({ "NodeID": manager.node_id, "Addr": manager.addr })
        }).collect::<Value>(),
    })
}

async fn manager(node: &View, manager: &Handle) -> Value {
    let mut value = worker(node);
    value["ControlAvailable"] = json!(true);
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
    value
}
