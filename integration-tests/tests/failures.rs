//! Nodes die, are cut off, hang; daemons are killed. What the others see, how fast, and what stays as it was.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use swarm_integration_tests::outage::{named, watch_loss, whoami_in};
use swarm_integration_tests::{Calls, Client, Cluster, Task, eventually};
use swarm_playground::{Cut, Node};

/// Three managers and a worker, `web` with two tasks on each.
fn cluster(test: &str) -> Cluster {
    let cluster = Cluster::with(test, |options| {
        options.nodes = 4;
        options.managers = Some(3);
    });
    cluster.create_network("", "net");
    cluster.create_service("web", "--network net --replicas 8");
    cluster
}

/// The leader as that node sees it.
fn leader(cluster: &Cluster, asked: &Client) -> Node {
    cluster.node_called(&eventually("a leader", || asked.leader()))
}

fn wait_status(asked: &Client, name: &str, status: &str) {
    eventually(&format!("{name} to be {status}"), || {
        let output = asked.ctl_output("node ls --format json");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut nodes =
            text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        if nodes.any(|node| node["Hostname"] == name && node["Status"] == status) {
            Ok(())
        } else {
            Err(text)
        }
    });
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

/// All tasks, by id; those that ended included.
fn ids(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().map(|task| task.id.clone()).collect()
}

fn on(tasks: &[Task], node: &Node) -> Task {
    let found = tasks.iter().find(|task| task.node == node.name());
    found.unwrap_or_else(|| panic!("no task on {} among {tasks:#?}", node.name())).clone()
}

/// From the network namespace of a task on every node: the name, and calls to the VIP that all tasks answer.
fn assert_serving(cluster: &Cluster, tasks: &[Task], vip: Ipv4Addr, names: bool) {
    let wanted: BTreeSet<_> = tasks.iter().map(Task::address).collect();
    for node in cluster.nodes() {
        let task = on(tasks, &node);
        if names {
            eventually(&format!("all tasks in the DNS of {}", node.name()), || {
                let found = named(&node, &task, "")?;
                if found == wanted { Ok(()) } else { Err(format!("{found:?}, not {wanted:?}")) }
            });
        }
        let line = format!("get --summary -n {} http://{vip}/", 3 * tasks.len());
        let summary =
            whoami_in(&node, &task, &line).unwrap_or_else(|e| panic!("{}: {e}", node.name()));
        let calls: Calls = serde_json::from_str(&summary).expect("a summary");
        // All in turn; the caller, which is a backend itself, included.
        assert_eq!(
            (calls.failed, calls.hosts.len()),
            (0, tasks.len()),
            "{}: {calls:?}",
            node.name()
        );
        assert!(calls.hosts.values().all(|count| (2..=4).contains(count)), "{calls:?}");
    }
}

#[test]
fn a_worker_that_dies_is_out_of_use_and_replaced() {
    let cluster = cluster("workerdies");
    let vip = cluster.vip("web");
    let victim = cluster.node(4);
    let recovery = watch_loss(&cluster, &victim, "web", || victim.kill().expect("power cut"));
    recovery.assert_prompt("dead worker");
    wait_status(&cluster, victim.name(), "Down");
    let tasks = cluster.tasks("web");
    victim.start().expect("boot");
    wait_status(&cluster, victim.name(), "Ready");
    cluster.ctl("service scale web=12");
    let after = cluster.tasks("web");
    assert!(ids(&tasks).is_subset(&ids(&after)), "tasks moved when the node came back");
    assert!(after.iter().any(|task| task.node == victim.name()), "the node is not used again");
    assert_serving(&cluster, &after, vip, true);
}

#[test]
fn a_leader_that_dies_is_out_of_use_and_replaced() {
    let cluster = cluster("leaderdies");
    let vip = cluster.vip("web");
    let victim = leader(&cluster, &cluster);
    let asked = cluster.client_beside(&victim);
    let recovery = watch_loss(&cluster, &victim, "web", || victim.kill().expect("power cut"));
    recovery.assert_prompt("dead leader");
    assert_ne!(leader(&cluster, &asked).name(), victim.name());
    asked.ctl("service scale web=9");
    victim.start().expect("boot");
    wait_status(&asked, victim.name(), "Ready");
    eventually("a manager that is part of the quorum again", || {
        let text = asked.ctl("node ls --format json");
        if text.contains("Unreachable") { Err(text) } else { Ok(()) }
    });
    Client::of(victim).ctl("service scale web=12");
    assert_serving(&cluster, &cluster.tasks("web"), vip, true);
}

#[test]
fn a_leader_cut_off_changes_nothing_and_steps_down() {
    let cluster = cluster("leadercut");
    let vip = cluster.vip("web");
    let victim = leader(&cluster, &cluster);
    let (asked, alone) = (cluster.client_beside(&victim), Client::of(victim.clone()));
    let recovery =
        watch_loss(&cluster, &victim, "web", || victim.cut(Cut::Both).expect("cut the cable"));
    recovery.assert_prompt("leader cut off");
    // The minority takes no change; the majority does.
    for line in ["service scale web=1", "network create minority"] {
        let said = alone.refused(line, 1);
        assert!(said.contains("managers"), "{line}: {said}");
    }
    asked.ctl("service scale web=9");
    asked.create_network("", "majority");
    let wanted = ids(&asked.tasks("web"));

    victim.heal().expect("heal the cable");
    wait_status(&asked, victim.name(), "Ready");
    eventually("the end of what was replaced", || {
        let left = containers(&victim);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} run")) }
    });
    assert_eq!(ids(&asked.tasks("web")), wanted, "something else was restarted");
    let networks = alone.ctl("network ls");
    assert!(networks.contains("majority") && !networks.contains("minority"), "{networks}");
    assert_eq!(leader(&cluster, &alone).name(), leader(&cluster, &asked).name());
    alone.ctl("service scale web=12");
    assert_serving(&cluster, &cluster.tasks("web"), vip, true);
}

#[test]
fn a_leader_that_hears_nobody_is_replaced_though_all_hear_it() {
    let cluster = cluster("leaderdeaf");
    let vip = cluster.vip("web");
    let victim = leader(&cluster, &cluster);
    let asked = cluster.client_beside(&victim);
    victim.cut(Cut::ToHost).expect("cut what is sent to it");
    eventually("another leader", || {
        let output = asked.ctl_output("service scale web=9");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    });
    assert_ne!(leader(&cluster, &asked).name(), victim.name());
    victim.heal().expect("heal the cable");
    wait_status(&asked, victim.name(), "Ready");
    Client::of(victim).ctl("service scale web=12");
    assert_serving(&cluster, &asked.tasks("web"), vip, true);
}

#[test]
fn a_worker_cut_off_gives_up_only_what_was_replaced() {
    let cluster = cluster("cutoff");
    let vip = cluster.vip("web");
    let victim = cluster.node(4);
    let before = cluster.tasks("web");
    let there = on(&before, &victim);
    let processes = all_containers(&cluster);
    let recovery =
        watch_loss(&cluster, &victim, "web", || victim.cut(Cut::Both).expect("cut the cable"));
    recovery.assert_prompt("worker cut off");
    assert_eq!(containers(&victim), processes[3], "containers on the far side go on");
    assert_eq!(named(&victim, &there, "").expect("DNS of the far side").len(), 8);
    let replaced = cluster.tasks("web");

    victim.heal().expect("heal the cable");
    wait_status(&cluster, victim.name(), "Ready");
    eventually("the end of what was replaced", || {
        let left = containers(&victim);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} run")) }
    });
    assert_eq!(ids(&cluster.tasks("web")), ids(&replaced), "something else was restarted");
    for (index, before) in processes.iter().take(3).enumerate() {
        let now = containers(&cluster.node(index + 1));
        assert!(before.is_subset(&now), "containers of node {} were restarted", index + 1);
    }
    cluster.ctl("service scale web=12");
    assert_serving(&cluster, &cluster.tasks("web"), vip, true);
}

#[test]
fn containers_outlive_a_killed_daemon() {
    let cluster = cluster("daemon");
    let vip = cluster.vip("web");
    let (tasks, known) = (cluster.tasks("web"), ids(&cluster.all_tasks("web")));
    let processes = all_containers(&cluster);
    for number in [4, 1] {
        let node = cluster.node(number);
        node.kill_daemon().expect("kill -9");
        assert_eq!(containers(&node), processes[number - 1], "containers end with swarmd");
        let began = Instant::now();
        node.start_daemon().expect("start swarmd again");
        let task = on(&tasks, &node);
        eventually("names again", || named(&node, &task, ""));
        eprintln!("names again {:.2?} after swarmd was started", began.elapsed());
        wait_status(&cluster.client_of(2), node.name(), "Ready");
        assert_serving(&cluster, &tasks, vip, true);
        assert_eq!(all_containers(&cluster), processes, "a container was restarted");
    }
    let asked = cluster.client_of(2);
    assert_eq!(ids(&asked.all_tasks("web")), known, "a task was replaced");
    // Adopted containers are under control: exec, and an end that is noticed.
    let adopted = on(&tasks, &cluster.node(4));
    assert!(asked.exec(&adopted, "/whoami resolve --short web").status.success());
    asked.ctl("service scale web=0");
    assert!(all_containers(&cluster).iter().all(BTreeSet::is_empty), "adopted containers run on");
}

#[test]
fn data_plane_and_names_outlive_all_managers() {
    let cluster = cluster("allmanagers");
    let vip = cluster.vip("web");
    let (tasks, known) = (cluster.tasks("web"), ids(&cluster.all_tasks("web")));
    let processes = all_containers(&cluster);
    for number in 1..=3 {
        cluster.node(number).kill_daemon().expect("kill -9");
    }
    assert_serving(&cluster, &tasks, vip, false);
    let worker = cluster.node(4);
    assert_eq!(named(&worker, &on(&tasks, &worker), "").expect("DNS without managers").len(), 8);
    // For longer than a node may be silent.
    std::thread::sleep(Duration::from_secs(4));
    assert_serving(&cluster, &tasks, vip, false);

    for number in 1..=3 {
        cluster.node(number).start_daemon().expect("start swarmd again");
    }
    for node in cluster.nodes() {
        wait_status(&cluster, node.name(), "Ready");
    }
    assert_serving(&cluster, &tasks, vip, true);
    assert_eq!(all_containers(&cluster), processes, "a container was restarted");
    assert_eq!(ids(&cluster.all_tasks("web")), known, "a task was replaced");
    cluster.ctl("service scale web=12");
    assert_serving(&cluster, &cluster.tasks("web"), vip, true);
}

#[test]
fn a_node_that_hangs_is_replaced_and_comes_back() {
    let cluster = cluster("hang");
    let vip = cluster.vip("web");
    let victim = cluster.node(4);
    let recovery = watch_loss(&cluster, &victim, "web", || victim.pause().expect("freeze"));
    recovery.assert_prompt("hanging worker");
    let replaced = ids(&cluster.tasks("web"));
    victim.resume().expect("thaw");
    wait_status(&cluster, victim.name(), "Ready");
    eventually("the end of what was replaced", || {
        let left = containers(&victim);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} run")) }
    });
    assert_eq!(ids(&cluster.tasks("web")), replaced, "something else was restarted");
    cluster.ctl("service scale web=12");
    assert_serving(&cluster, &cluster.tasks("web"), vip, true);
}

#[test]
fn a_lone_manager_that_hangs_blames_nobody() {
    let cluster = Cluster::with("hangmanager", |options| options.managers = Some(1));
    cluster.create_network("", "net");
    cluster.create_service("web", "--network net --replicas 6");
    let vip = cluster.vip("web");
    let (known, processes) = (ids(&cluster.all_tasks("web")), all_containers(&cluster));
    let manager = cluster.node(1);
    manager.pause().expect("freeze");
    // For longer than nodes may be silent.
    std::thread::sleep(Duration::from_secs(5));
    manager.resume().expect("thaw");
    // For long enough to have called nodes dead.
    for _ in 0..20 {
        let nodes = cluster.list("node ls");
        assert!(nodes.iter().all(|node| node["Status"] == "Ready"), "{nodes:?}");
        std::thread::sleep(Duration::from_millis(100)); // before the nodes are looked at again
    }
    assert_eq!(ids(&cluster.all_tasks("web")), known, "a task was replaced");
    assert_eq!(all_containers(&cluster), processes, "a container was restarted");
    cluster.ctl("service scale web=9");
    assert_serving(&cluster, &cluster.tasks("web"), vip, true);
}

/// As when a DHCP server gives it another one.
fn renumber(node: &Node, host: u8) -> String {
    let old = node.address();
    let [a, b, c, _] = old.octets();
    let new = Ipv4Addr::new(a, b, c, host);
    for (action, address) in [("del", old), ("add", new)] {
        let address = format!("{address}/24");
        node.run(["ip", "address", action, &address, "dev", "eth0"]).expect("ip address");
    }
    new.to_string()
}

#[test]
fn a_host_with_a_new_address_goes_on_under_it() {
    let cluster = cluster("renumber");
    let vip = cluster.vip("web");
    let leader = leader(&cluster, &cluster);
    let asked = cluster.client_beside(&leader);
    // While it runs, and before it starts.
    let worker = cluster.node(4);
    for node in [&worker, &leader] {
        let new = if node.name() == worker.name() {
            renumber(node, 201)
        } else {
            node.stop_daemon().expect("SIGTERM");
            let new = renumber(node, 202);
            node.start_daemon().expect("start swarmd again");
            new
        };
        eventually(&format!("{} to be known at {new}", node.name()), || {
            let document = asked.inspect(&format!("node inspect {}", node.name()));
            let manager = document["ManagerStatus"]["Addr"].as_str().unwrap_or(&new).to_owned();
            let known = (document["Status"]["Addr"].clone(), document["Status"]["State"].clone());
            let moved = known == (new.clone().into(), "ready".into()) && manager.contains(&new);
            if moved { Ok(()) } else { Err(document.to_string()) }
        });
        eventually("managers that reach each other", || {
            let text = asked.ctl("node ls --format json");
            if text.contains("Unreachable") { Err(text) } else { Ok(()) }
        });
        // Its tasks were replaced if that took longer than a node may be silent.
        asked.ctl("service scale web=16");
        asked.ctl("service scale web=8");
        assert_serving(&cluster, &asked.tasks("web"), vip, true);
    }
    Client::of(leader).ctl("service scale web=12");
    assert_serving(&cluster, &asked.tasks("web"), vip, true);
}

#[test]
fn the_original_of_a_copy_that_was_started_first_is_kept_out() {
    let cluster = cluster("copyfirst");
    let leader = leader(&cluster, &cluster);
    let original = (1..=3).map(|n| cluster.node(n)).find(|node| node.name() != leader.name());
    let original = original.expect("a follower");
    let (asked, other) = (Client::of(leader), cluster.node(4));
    original.stop_daemon().expect("SIGTERM");
    other.stop_daemon().expect("SIGTERM");
    for part in ["node.json", "pki", "raft"] {
        let to = other.state_dir().join(part).display().to_string();
        let from = original.state_dir().join(part).display().to_string();
        original.run(["sh", "-c", &format!("rm -rf {to} && cp -a {from} {to}")]).expect("a copy");
    }
    let id = asked.inspect(&format!("node inspect {}", original.name()))["ID"].clone();
    let id = id.as_str().expect("an id");
    let place = other.address().to_string();
    let wait_copy_in_use = || {
        eventually(&format!("the node at {place}"), || {
            let node = asked.inspect(&format!("node inspect {id}"));
            let manager = &node["ManagerStatus"];
            let there = node["Status"]["Addr"] == place.as_str()
                && node["Status"]["State"] == "ready"
                && manager["Addr"] == format!("{place}:2377")
                && manager["Reachability"] == "reachable";
            if there { Ok(()) } else { Err(node.to_string()) }
        });
    };
    other.start_daemon().expect("start swarmd on the copy");
    wait_copy_in_use();

    original.start_daemon().expect("start swarmd again");
    let said = format!("this manager stops: node {id} runs already");
    eventually("the original's end as a manager", || {
        let log = std::fs::read_to_string(original.log_file()).expect("a log");
        if log.contains(&said) { Ok(()) } else { Err(log) }
    });
    wait_copy_in_use();
    asked.ctl("service scale web=4");
}
