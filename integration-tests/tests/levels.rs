//! A manager whose version is too old for what its swarm has written.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use swarm_integration_tests::{Client, Cluster, containers, eventually};
use swarm_model::{EngineDescription, FeatureLevel};
use swarm_playground::Node;
use swarm_raft::SealKey;
use swarm_state::{Envelope, State};

fn wait_manager(asked: &Client, name: &str, status: &str) {
    eventually(&format!("{name} to be {status}"), || {
        let nodes = asked.list("node ls");
        let node = nodes.iter().find(|node| node["Hostname"] == name).expect("a node");
        if node["ManagerStatus"] == status { Ok(()) } else { Err(node.to_string()) }
    });
}

fn shell(node: &Node, line: &str) {
    node.run(["sh", "-c", line]).unwrap_or_else(|e| panic!("{e}"));
}

/// The key of a manager's Raft files.
fn key(file: &Path) -> SealKey {
    let content: Value =
        serde_json::from_slice(&std::fs::read(file).expect("a key")).expect("JSON");
    let key = STANDARD.decode(content["Key"].as_str().expect("a key")).expect("base64");
    SealKey::new(key.try_into().expect("32 bytes"), file.display().to_string())
}

#[test]
fn a_manager_that_is_too_old_says_what_it_needs_and_its_containers_go_on() {
    let cluster = Cluster::up("old");
    cluster.create_service("web", "--replicas 3");
    let old = cluster.node(3);
    let (asked, there) = (cluster.client_of(1), cluster.client_of(3));
    let shown = asked.ctl("info");
    assert!(shown.contains(" Feature Level: 1\n") && !shown.contains("Next"), "{shown}");
    let running = containers(&old);
    assert_eq!(running.len(), 1);

    // Its state, as a later version would have written it.
    let file = cluster.node(1).state_dir().join("backup-of-test");
    asked.ctl(&format!("backup {}", file.display()));
    let bytes = std::fs::read(&file).expect("a backup");
    let sealed = Envelope::read(&bytes[32..bytes.len() - 4]).expect("an envelope");
    let state = State::open(&bytes[32..bytes.len() - 4], &EngineDescription::of_this_build());
    let revision = state.expect("a state").revision();
    let later = FeatureLevel::new(FeatureLevel::NEWEST.number() + 1).expect("a level");
    let newer = Envelope::seal(later, "9.9.9", sealed.content);

    let raft = old.state_dir().join("raft");
    let shown = raft.display();
    old.stop_daemon().expect("SIGTERM");
    shell(
        &old,
        &format!(
            "mv {shown} {shown}.was && mkdir -m 700 {shown} && cp -p {shown}.was/key {shown}/"
        ),
    );
    let addr = format!("{}:2377", old.address());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let key = key(&raft.join("key"));
    let made = swarm_raft::begin_with(&raft, &key, 3, addr, revision, newer.into());
    runtime.block_on(made).expect("Raft's files");
    old.start_daemon().expect("start swarmd again");

    let needs = format!(
        "this manager speaks feature level {}, the swarm's snapshot needs {later} (written by swarmd 9.9.9): upgrade swarmd on this node",
        FeatureLevel::NEWEST
    );
    eventually("the reason in info", || {
        let info = there.ctl("info");
        if info.contains(&needs) { Ok(()) } else { Err(info) }
    });
    for command in ["service ls", "node ls", "service scale web=4", "init --force-new-cluster"] {
        let refused = there.refused(command, 1);
        assert!(refused.contains(&needs), "{command}: {refused}");
    }
    wait_manager(&asked, old.name(), "Unreachable");
    // The others go on, and so do its worker and its containers.
    asked.ctl("service scale web=6");
    let on_it = asked.tasks("web").iter().filter(|task| task.node == old.name()).count();
    assert_eq!(on_it, 2);
    assert!(containers(&old).is_superset(&running), "{running:?} were replaced");

    // As with the version that it needs: all is there.
    old.stop_daemon().expect("SIGTERM");
    shell(&old, &format!("rm -r {shown} && mv {shown}.was {shown}"));
    old.start_daemon().expect("start swarmd again");
    wait_manager(&asked, old.name(), "Reachable");
    there.ctl("service scale web=3");
}
