//! Nodes change what they are while they run: promoted, demoted, drained, labelled. Their containers do not notice.

use std::collections::BTreeSet;

use swarm_integration_tests::{Client, Cluster, calls_while, eventually};
use swarm_playground::Node;

fn field(client: &Client, name: &str, field: &str) -> String {
    let nodes = client.list("node ls");
    let node = nodes.iter().find(|node| node["Hostname"] == name).expect("a node of that name");
    node[field].as_str().unwrap_or_default().to_owned()
}

fn raft_id(client: &Client, name: &str) -> Option<u64> {
    client.inspect(&format!("node inspect {name}"))["ManagerStatus"]["RaftID"].as_u64()
}

/// Process ids, on the machine, of the containers of `whoami` on a host.
fn containers(node: &Node) -> BTreeSet<i32> {
    let is_whoami = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "whoami")
    };
    node.processes().expect("processes of a host").into_iter().filter(is_whoami).collect()
}

fn all_containers(cluster: &Cluster) -> Vec<BTreeSet<i32>> {
    cluster.nodes().iter().map(containers).collect()
}

/// A command that works; what it said on stderr.
#[track_caller]
fn warned(client: &Client, line: &str) -> String {
    let output = client.ctl_output(line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "swarmctl {line}: {said}");
    said
}

#[test]
fn managers_are_promoted_and_demoted_while_services_go_on() {
    let cluster = Cluster::with("roles", |options| options.managers = Some(1));
    cluster.create_network("", "net");
    cluster.create_service("web", "--network net --replicas 6");
    let names: Vec<_> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let (two, three) = (cluster.client_of(2), cluster.client_of(3));
    let before = all_containers(&cluster);

    let last = cluster.refused(&format!("node demote {}", names[0]), 1);
    assert!(last.contains("attempting to demote the last manager of the swarm"), "{last}");
    let even = warned(&cluster, &format!("node promote {}", names[1]));
    assert!(even.contains("odd number"), "{even}");
    assert_eq!(warned(&cluster, &format!("node promote {}", names[2])), "");
    let again = cluster.ctl(&format!("node promote {}", names[2]));
    assert!(again.contains("is already a manager"), "{again}");
    for name in &names[1..] {
        assert_eq!(field(&cluster, name, "ManagerStatus"), "Reachable", "{name}");
    }
    two.ctl("service scale web=7");
    two.ctl("service scale web=6");

    // The leader itself, asked of itself: it hands over first.
    let former = raft_id(&cluster, &names[0]);
    let said = warned(&cluster, "node demote self");
    assert!(said.contains("odd number"), "two are left: {said}");
    assert_eq!(raft_id(&three, &names[0]), None);
    assert!(["Leader", "Reachable"].contains(&&*field(&three, &names[2], "ManagerStatus")));
    let raft = cluster.node(1).state_dir().join("raft");
    eventually("a worker without Raft", || {
        let said = cluster.ctl_output("node ls");
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        let left = cluster.node(1).exec(["test", "-e", &raft.to_string_lossy()]);
        let gone = left.is_ok_and(|output| !output.status.success());
        if said.contains("worker") && gone { Ok(()) } else { Err(said) }
    });
    assert!(two.ctl(&format!("node demote {}", names[0])).contains("is already a worker"));
    three.ctl("service scale web=6");

    // Back again: under another id, and it leads nobody astray after a restart.
    three.ctl(&format!("node promote {}", names[0]));
    let now = raft_id(&three, &names[0]);
    assert!(now > former && former.is_some(), "{former:?}, then {now:?}");
    cluster.node(1).restart_daemon().expect("swarmd starts again");
    eventually("the restarted manager's answer", || {
        let output = cluster.ctl_output("node ls");
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    });
    let kept: Vec<BTreeSet<i32>> = all_containers(&cluster);
    for (before, now) in before.iter().zip(&kept) {
        assert!(before.is_subset(now) || now.is_subset(before), "{before:?} became {now:?}");
    }
    assert_eq!(kept.iter().map(BTreeSet::len).sum::<usize>(), 6);

    // What would end all changes is refused; what repairs is not.
    cluster.node(3).kill_daemon().expect("kill -9");
    eventually("the dead manager to be missed", || {
        let info = warned(&cluster, "info");
        if info.contains("at risk") && info.contains(&names[2]) { Ok(()) } else { Err(info) }
    });
    let refused = cluster.refused(&format!("node demote {}", names[1]), 1);
    assert!(refused.contains("would lose the quorum"), "{refused}");
    cluster.ctl(&format!("node demote {}", names[2]));
    cluster.node(3).start_daemon().expect("start swarmd again");
    eventually("the one that was away to be a worker", || {
        let said = three.ctl_output("node ls");
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        if said.contains("worker") { Ok(()) } else { Err(said) }
    });
    cluster.ctl(&format!("node demote {}", names[1]));
    cluster.ctl("service scale web=3");
    assert_eq!(cluster.tasks("web").len(), 3);
}

#[test]
fn a_node_that_demotes_itself_first_says_that_it_is_a_worker() {
    let cluster = Cluster::up("demoted");
    let names: Vec<_> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let output = cluster.ctl_output(&format!("node demote {}", names.join(" ")));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let done = format!("Manager {} demoted in the swarm.\n", names[0]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), done, "the first one, and no other");
    let failed: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(failed.len(), 2, "{said}");
    for (line, name) in failed.iter().zip(&names[1..]) {
        assert!(line.starts_with(&format!("error: node {name} was not demoted: ")), "{said}");
        assert!(line.ends_with("the swarm can be seen and changed on its managers only"), "{said}");
    }
    let two = cluster.client_of(2);
    assert_eq!(raft_id(&two, &names[0]), None);
    for name in &names[1..] {
        assert!(raft_id(&two, name).is_some(), "{name} is a manager as before");
    }
}

#[test]
fn drained_nodes_hand_over_and_paused_ones_keep_what_they_have() {
    let cluster = Cluster::with("drain", |options| options.managers = Some(1));
    cluster.create_network("", "net");
    cluster.create_service("client", "--network net --replicas 1");
    cluster.create_service("web", "--network net --replicas 6");
    let client = cluster.task("client");
    let names: Vec<_> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let drained = names.iter().find(|name| **name != client.node).expect("another node");
    let on = |name: &str| cluster.tasks("web").iter().filter(|task| task.node == name).count();

    let line = "/whoami get --summary -n 40 -c 2 --interval 10 http://web/";
    let made = calls_while(&cluster, &[client], &[line], || {
        assert_eq!(
            cluster.ctl(&format!("node update --availability drain {drained}")).trim(),
            drained
        );
        eventually("a drained node without tasks", || {
            match (on(drained), cluster.tasks("web").len()) {
                (0, 6) => Ok(()),
                found => Err(format!("{found:?}")),
            }
        });
    });
    for calls in &made {
        calls.assert_none_failed();
    }
    assert_eq!(field(&cluster, drained, "Availability"), "Drain");
    cluster.ctl("service scale web=8");
    assert_eq!(on(drained), 0);
    cluster.ctl(&format!("node update --availability active {drained}"));
    cluster.ctl("service scale web=10");
    assert_eq!(on(drained), 2, "it takes tasks again");
    cluster.ctl(&format!("node update --availability pause {drained}"));
    cluster.ctl("service scale web=12");
    assert_eq!(on(drained), 2, "it keeps them and takes none");

    cluster.ctl(&format!("node update --label-add zone=a --label-add rack {drained}"));
    let filtered = cluster.ctl("node ls -q --filter node.label=zone=a --filter label=rack");
    assert_eq!(filtered.lines().count(), 1);
    cluster.ctl(&format!("node update --label-rm rack --label-add zone=b {drained}"));
    assert_eq!(cluster.ctl("node ls -q --filter label=rack"), "");
    let refused = cluster.refused(&format!("node update --label-rm rack {drained}"), 1);
    assert!(refused.contains("label rack of node"), "{refused}");
}
