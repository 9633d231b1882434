//! A manager whose disk is full.

use swarm_integration_tests::{Client, Cluster, eventually};
use swarm_playground::Node;

fn shell(node: &Node, line: &str) {
    node.run(["sh", "-c", line]).unwrap_or_else(|e| panic!("{e}"));
}

fn wait_manager(asked: &Client, name: &str, status: &str) {
    eventually(&format!("{name} to be {status}"), || {
        let nodes = asked.list("node ls");
        let node = nodes.iter().find(|node| node["Hostname"] == name).expect("a node");
        if node["ManagerStatus"] == status { Ok(()) } else { Err(node.to_string()) }
    });
}

#[test]
fn a_manager_with_a_full_disk_stops_voting_says_so_and_comes_back() {
    let cluster = Cluster::up("fulldisk");
    let full = cluster.node(3);
    let (asked, there) = (cluster.client_of(1), cluster.client_of(3));
    // Its log moves to a small disk of its own.
    let raft = full.state_dir().join("raft").display().to_string();
    full.stop_daemon().expect("SIGTERM");
    shell(&full, &format!("cp -a {raft} {raft}.was"));
    shell(&full, &format!("mount -t tmpfs -o size=64m tmpfs {raft} && cp -a {raft}.was/. {raft}/"));
    full.start_daemon().expect("start swarmd again");
    // The others may not have missed it yet: it says itself when its log is open. Its worker has a session when it runs what
    // came meanwhile.
    eventually("its replica", || there.leader());
    wait_manager(&there, full.name(), "Reachable");
    asked.ctl("service create -q --name before --replicas 3 whoami");
    assert!(asked.tasks("before").iter().any(|task| task.node == full.name()));

    // dd ends when there is no space left.
    shell(&full, &format!("! dd if=/dev/zero of={raft}/filler bs=64k 2>/dev/null"));
    let label = "x".repeat(100_000);
    let mut made = 0;
    eventually("an end of its voting", || {
        asked.ctl(&format!("network create --label big={label} net-{made}"));
        made += 1;
        let info = there.ctl("info");
        if info.contains("No space left on device") { Ok(()) } else { Err(info) }
    });
    let info = there.ctl("info");
    assert!(info.contains("restart swarmd") && !info.contains("no quorum"), "{info}");
    let refused = there.refused("network create through-it", 1);
    assert!(refused.contains("No space left on device"), "{refused}");
    // All see it: those that lead and follow, and itself.
    for number in 1..=3 {
        wait_manager(&cluster.client_of(number), full.name(), "Unreachable");
    }
    let log = std::fs::read_to_string(full.log_file()).expect("a log");
    let repeated = log.lines().filter(|line| line.contains("failed to send RaftMsg")).count();
    assert!(repeated < 10, "a full disk's log grows with every heartbeat: {repeated}");
    // The others go on, and so does its worker.
    asked.ctl("service create -q --name web --replicas 3 whoami");
    assert!(asked.tasks("web").iter().any(|task| task.node == full.name()));

    shell(&full, &format!("rm {raft}/filler"));
    full.stop_daemon().expect("SIGTERM");
    full.start_daemon().expect("start swarmd again");
    wait_manager(&asked, full.name(), "Reachable");
    let networks = there.list("network ls");
    let big =
        networks.iter().filter(|net| net["Name"].as_str().is_some_and(|n| n.starts_with("net-")));
    assert_eq!(big.count(), made);
}
