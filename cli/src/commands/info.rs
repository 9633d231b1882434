//! `info`: this node and its swarm, in the words of `docker info`.

use std::fmt::Write;

use serde::Deserialize;
use swarm_model::FeatureLevel;
use swarm_proto::control::Empty;

use crate::args::{Format, Info};
use crate::client::{Client, ask};
use crate::error::Error;
use crate::output::{self, json, size};

/// Of the document, what the text shows.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct NodeInfo {
    name: String,
    #[serde(rename = "NCPU")]
    ncpu: u64,
    mem_total: u64,
    server_version: String,
    operating_system: String,
    architecture: String,
    images: u64,
    warnings: Option<Vec<String>>,
    pub(super) swarm: SwarmInfo,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct SwarmInfo {
    #[serde(rename = "NodeID")]
    pub(super) node_id: String,
    node_addr: String,
    local_node_state: String,
    control_available: bool,
    error: String,
    remote_managers: Option<Vec<RemoteManager>>,
    nodes: Option<u64>,
    managers: Option<u64>,
    cluster: Option<ClusterInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RemoteManager {
    addr: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ClusterInfo {
    #[serde(rename = "ID")]
    id: String,
    spec: Option<swarm_model::ClusterSpec>,
    root_rotation_in_progress: bool,
    feature_level: Option<FeatureLevel>,
    next_feature_level: Option<NextLevel>,
}

/// A level that some nodes speak, and who keeps the swarm from it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NextLevel {
    level: FeatureLevel,
    held_back_by: Vec<String>,
}

/// The id that the node we talk to has in the swarm.
pub(super) async fn own_id(client: &mut Client) -> Result<String, Error> {
    let document = client.node.info(ask(Empty {})).await?.into_inner();
    Ok(json::parse::<NodeInfo>("info", &document.json)?.swarm.node_id)
}

pub(super) async fn show(mut client: Client, flags: &Info) -> Result<(), Error> {
    let document = client.node.info(ask(Empty {})).await?.into_inner();
    if flags.format == Format::Json {
        let value: serde_json::Value = json::parse("info", &document.json)?;
        return output::line(&value.to_string());
    }
    let info: NodeInfo = json::parse("info", &document.json)?;
    output::raw(text(&info).as_bytes())?;
    for warning in info.warnings.unwrap_or_default() {
        output::note(&format!("WARNING: {}", warning.trim_start_matches("WARNING: ")));
    }
    Ok(())
}

fn text(info: &NodeInfo) -> String {
    let mut text = String::new();
    line(&mut text, 0, "Images", info.images);
    line(&mut text, 0, "Server Version", &info.server_version);
    line(&mut text, 0, "Swarm", &info.swarm.local_node_state);
    swarm(&mut text, &info.swarm);
    line(&mut text, 0, "Operating System", &info.operating_system);
    line(&mut text, 0, "Architecture", &info.architecture);
    line(&mut text, 0, "CPUs", info.ncpu);
    line(&mut text, 0, "Total Memory", size::binary(info.mem_total));
    line(&mut text, 0, "Name", &info.name);
    text
}

fn swarm(text: &mut String, swarm: &SwarmInfo) {
    if !swarm.error.is_empty() {
        line(text, 1, "Error", &swarm.error);
    }
    if swarm.node_id.is_empty() {
        return;
    }
    line(text, 1, "NodeID", &swarm.node_id);
    line(text, 1, "Is Manager", swarm.control_available);
    if let Some(cluster) = &swarm.cluster {
        line(text, 1, "ClusterID", &cluster.id);
    }
    if let Some(managers) = swarm.managers.filter(|_| swarm.control_available) {
        line(text, 1, "Managers", managers);
    }
    if let Some(nodes) = swarm.nodes.filter(|_| swarm.control_available) {
        line(text, 1, "Nodes", nodes);
    }
    if let Some(spec) = swarm.cluster.as_ref().and_then(|cluster| cluster.spec.as_ref()) {
        let pools: Vec<_> = spec.default_addr_pool.iter().map(ToString::to_string).collect();
        line(text, 1, "Default Address Pool", pools.join(" "));
        line(text, 1, "SubnetSize", spec.subnet_size);
        line(text, 1, "Data Path Port", spec.data_path_port);
        line(text, 1, "Task History Retention Limit", spec.task_history_retention_limit);
        line(text, 1, "Autolock Managers", spec.encryption_config.auto_lock_managers);
    }
    if let Some(level) = swarm.cluster.as_ref().and_then(|cluster| cluster.feature_level) {
        line(text, 1, "Feature Level", level);
    }
    if let Some(next) = swarm.cluster.as_ref().and_then(|c| c.next_feature_level.as_ref()) {
        line(text, 1, "Next Feature Level", next.level);
        for who in &next.held_back_by {
            line(text, 2, "Held Back By", who);
        }
    }
    if swarm.cluster.as_ref().is_some_and(|cluster| cluster.root_rotation_in_progress) {
        line(text, 1, "Root Rotation In Progress", true);
    }
    line(text, 1, "Node Address", &swarm.node_addr);
    let mut managers: Vec<_> = swarm.remote_managers.iter().flatten().map(|m| &m.addr).collect();
    managers.sort();
    if !managers.is_empty() {
        text.push_str(" Manager Addresses:\n");
    }
    for addr in managers {
        text.push_str(&format!("  {addr}\n"));
    }
}

fn line(text: &mut String, depth: usize, name: &str, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:depth$}{name}: {value}", "");
}

#[cfg(test)]
mod tests {
    use super::{NodeInfo, text};
    use serde_json::json;

    #[test]
    fn a_manager_shows_its_swarm() {
        let info: NodeInfo = serde_json::from_value(json!({
            "Name": "pg-1", "NCPU": 2, "MemTotal": 4_118_873_088u64, "ServerVersion": "0.1.0",
            "OperatingSystem": "Debian", "Architecture": "x86_64", "Images": 3, "Warnings": null,
            "Swarm": {"NodeID": "n1", "NodeAddr": "192.0.2.1", "LocalNodeState": "active", "ControlAvailable": true,
                      "Error": "", "RemoteManagers": [{"NodeID": "n1", "Addr": "192.0.2.1:2377"}],
                      "Nodes": 3, "Managers": 1, "Cluster": {"ID": "c1", "Spec": swarm_model::ClusterSpec::default()}}
        }))
        .unwrap();
        assert_eq!(
            text(&info),
            "Images: 3\nServer Version: 0.1.0\nSwarm: active\n NodeID: n1\n Is Manager: true\n ClusterID: c1\n \
             Managers: 1\n Nodes: 3\n Default Address Pool: 10.0.0.0/8\n SubnetSize: 24\n Data Path Port: 4789\n \
             Task History Retention Limit: 5\n Autolock Managers: false\n Node Address: 192.0.2.1\n Manager Addresses:\n  192.0.2.1:2377\n\
             Operating System: Debian\nArchitecture: x86_64\nCPUs: 2\nTotal Memory: 3.836GiB\nName: pg-1\n"
        );
    }

    #[test]
    fn a_rotation_of_the_root_is_shown_while_it_lasts() {
        let shown = |rotating: bool| {
            let cluster = json!({"ID": "c1", "RootRotationInProgress": rotating});
            let info = json!({"Swarm": {"NodeID": "n1", "Cluster": cluster}});
            text(&serde_json::from_value::<NodeInfo>(info).unwrap())
        };
        assert!(shown(true).contains("\n Root Rotation In Progress: true\n"));
        assert!(!shown(false).contains("Root Rotation"));
    }

    #[test]
    fn who_holds_the_feature_level_back_is_named() {
        let shown = |cluster: serde_json::Value| {
            let info = json!({"Swarm": {"NodeID": "n1", "Cluster": cluster}});
            text(&serde_json::from_value::<NodeInfo>(info).unwrap())
        };
        let next = json!({"Level": 2, "HeldBackBy": ["pg-2 (swarmd 0.1.0, level 1)", "pg-3 (it is not there)"]});
        let held = shown(json!({"ID": "c1", "FeatureLevel": 1, "NextFeatureLevel": next}));
        let expected = " Feature Level: 1\n Next Feature Level: 2\n  Held Back By: pg-2 (swarmd 0.1.0, level 1)\n  Held Back By: pg-3 (it is not there)\n";
        assert!(held.contains(expected), "{held}");
        let level = shown(json!({"ID": "c1", "FeatureLevel": 2}));
        assert!(level.contains(" Feature Level: 2\n") && !level.contains("Next"), "{level}");
    }

    #[test]
    fn a_node_in_no_swarm_says_so() {
        let info = json!({"Name": "a", "Swarm": {"LocalNodeState": "inactive", "Error": ""}});
        let info: NodeInfo = serde_json::from_value(info).unwrap();
        assert!(text(&info).contains("Swarm: inactive\nOperating System:"));
    }
}
