//! Five managers: two may be lost, the third is one too many, and one that is stopped hands over what it leads.

use swarm_integration_tests::{Client, Cluster, eventually};
use swarm_playground::Node;

/// All others, those that may be asked first.
fn others<'a>(nodes: &'a [Node], name: &str) -> Vec<&'a Node> {
    nodes.iter().filter(|node| node.name() != name).collect()
}

fn eventually_scales(asked: &Client, replicas: usize) {
    let line = format!("service scale web={replicas}");
    eventually("a majority of managers", || {
        let output = asked.ctl_output(&line);
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    });
    assert_eq!(asked.tasks("web").len(), replicas);
}

#[test]
fn five_managers_survive_two() {
    let cluster = Cluster::with("five", |options| {
        options.nodes = 5;
        options.managers = Some(5);
    });
    cluster.create_network("", "net");
    cluster.create_service("web", "--network net --replicas 5");
    let nodes = cluster.nodes();

    // Stopped with SIGTERM, the leader hands over first: nobody has to notice its silence.
    let first = cluster.leader().expect("a leader");
    let asked = Client::of(others(&nodes, &first)[0].clone());
    cluster.node_called(&first).stop_daemon().expect("SIGTERM");
    let log = std::fs::read_to_string(cluster.node_called(&first).log_file()).expect("its log");
    assert!(log.contains("handed over leadership"), "the leader stopped without handing over");
    asked.ctl("service scale web=6");
    assert_ne!(asked.leader().expect("another leader"), first);

    // It is one of two that are lost, the other is the leader; both with their tasks.
    let second = asked.leader().expect("a leader");
    let left = others(&nodes, &second);
    let asked = left.iter().find(|node| node.name() != first).expect("another");
    let (asked_name, asked) = (asked.name(), Client::of((*asked).clone()));
    cluster.node_called(&first).kill().expect("power cut");
    cluster.node_called(&second).kill().expect("power cut");
    eventually_scales(&asked, 7);
    let gone = [&*first, &*second];
    assert!(asked.tasks("web").iter().all(|task| !gone.contains(&&*task.node)));

    // The third is one too many: the rest says so, and takes no change.
    let asks = |node: &&&Node| node.name() != first && node.name() != asked_name;
    let third = left.iter().find(asks).expect("a third");
    third.kill().expect("power cut");
    eventually("managers that miss a quorum", || {
        let info = asked.ctl("info");
        let parts = ["no quorum for", &*first, &*second, third.name()];
        if parts.iter().all(|part| info.contains(part)) { Ok(()) } else { Err(info) }
    });
    asked.refused("service scale web=8", 1);

    // Any one of them back is enough.
    third.start().expect("boot");
    eventually_scales(&asked, 8);
    for name in gone {
        cluster.node_called(name).start().expect("boot");
    }
    eventually("five managers", || {
        let listed = asked.list("node ls");
        let reachable = |status: &str| ["Leader", "Reachable"].contains(&status);
        let votes = |node: &&serde_json::Value| {
            node["ManagerStatus"].as_str().is_some_and(reachable) && node["Status"] == "Ready"
        };
        if listed.iter().filter(votes).count() == 5 { Ok(()) } else { Err(format!("{listed:?}")) }
    });

    // All at once: the state is on the disks.
    let known = asked.vip("web");
    for node in &nodes {
        node.kill_daemon().expect("kill -9");
    }
    let began = std::time::Instant::now();
    for node in &nodes {
        node.start_daemon().expect("start swarmd again");
    }
    eventually_scales(&asked, 9);
    eprintln!("scaled {:.2?} after the first of five managers was started", began.elapsed());
    assert_eq!(asked.vip("web"), known);
}
