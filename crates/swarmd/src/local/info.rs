//! What `swarmctl info` tells of this host and its swarm, in Docker's shape.

use serde_json::{Value, json};
use swarm_raft::Status;

use super::Daemon;
use crate::node::Node;

pub(super) async fn info(daemon: &Daemon) -> Value {
    let node = daemon.node.read().await;
    let resources = swarm_worker::resources();
    let (swarm, warnings) = match node.as_ref() {
        None => (json!({ "NodeID": "", "LocalNodeState": "inactive" }), Vec::new()),
        Some(node) => (swarm(node), warnings(node)),
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

fn swarm(node: &Node) -> Value {
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
        let raft = manager.raft().status().borrow().clone();
        let lost = quorum_error(&raft);
        if !lost.is_empty() {
            value["Error"] = json!(lost);
        }
        value["Managers"] = json!(raft.voters.len());
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
            value["Cluster"] = json!({ "ID": cluster.id, "Spec": cluster.spec });
        }
    }
    value
}

fn quorum_error(raft: &Status) -> String {
    match raft.quorum_lost_since {
        Some(since) => format!(
            "the swarm has had no quorum for {} s: more than half of its {} managers must be reachable",
            since.elapsed().as_secs(),
            raft.voters.len()
        ),
        None => String::new(),
    }
}

fn warnings(node: &Node) -> Vec<String> {
    let Some(manager) = &node.manager else { return Vec::new() };
    let raft = manager.raft().status().borrow().clone();
    let mut warnings = Vec::new();
    let voters = raft.voters.len();
    if voters > 1 && voters % 2 == 0 {
        warnings.push(format!(
            "{voters} managers survive the loss of {}, as {} would: use an odd number",
            (voters - 1) / 2,
            voters - 1
        ));
    }
    warnings
}
