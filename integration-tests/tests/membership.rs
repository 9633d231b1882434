//! Nodes that join, leave and are removed; tokens that are wrong.

use swarm_integration_tests::{Client, Cluster, eventually};

/// Hosts without a swarm.
fn hosts(test: &str, nodes: usize) -> Cluster {
    let cluster = Cluster::with(test, |options| {
        options.nodes = nodes;
        options.form_swarm = false;
        options.whoami = None;
    });
    for node in cluster.nodes() {
        node.wait_for_daemon().expect("swarmd answers");
    }
    cluster
}

fn token(client: &Client, role: &str) -> String {
    client.ctl(&format!("join-token -q {role}")).trim().to_owned()
}

/// A column of `node ls`, by host name.
fn node_field(client: &Client, name: &str, field: &str) -> Option<String> {
    let nodes = client.list("node ls");
    let node = nodes.iter().find(|node| node["Hostname"] == name)?;
    Some(node[field].as_str().unwrap_or_default().to_owned())
}

fn wait_field(client: &Client, name: &str, field: &str, value: &str) {
    eventually(&format!("{field} of {name} to be {value}"), || {
        match node_field(client, name, field) {
            Some(found) if found == value => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
}

#[track_caller]
fn assert_says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
}

#[test]
fn outside_a_swarm_commands_say_how_to_get_into_one() {
    let cluster = hosts("outside", 1);
    assert_says(&cluster.refused("leave", 1), &["not part of a swarm"]);
    for line in [
        "node ls",
        "service ls",
        "network ls",
        "task ls",
        "service create whoami",
        "network create net",
        "join-token worker",
        "service logs web",
        "service ps web",
        "task exec web.1 ls",
    ] {
        assert_says(&cluster.refused(line, 1), &["not part of a swarm", "swarmctl init"]);
    }
    assert_says(&cluster.ctl("info"), &["Swarm: inactive"]);
}

#[test]
fn bad_options_of_init_change_nothing() {
    let cluster = hosts("badinit", 1);
    for (flags, parts) in [
        ("--advertise-addr 192.0.2.77", ["192.0.2.77", "not an address of this host"]),
        ("--advertise-addr nope0", ["nope0", "interface"]),
        ("--listen-addr 192.0.2.77:2377", ["192.0.2.77:2377", "cannot listen"]),
        ("--data-path-port 80", ["--data-path-port", "1024"]),
        ("--default-addr-pool 10.0.0.0/30", ["10.0.0.0/30", "smaller"]),
        (
            "--default-addr-pool 10.20.0.0/16 --default-addr-pool-mask-length 8",
            ["10.20.0.0/16", "smaller"],
        ),
    ] {
        assert_says(&cluster.refused(&format!("init {flags}"), 1), &parts);
        assert_says(&cluster.ctl("info"), &["Swarm: inactive"]);
    }
    cluster.refused("init --data-path-port 70000", 2);
    cluster.ctl("init");
    let id = cluster.ctl("info");
    assert_says(&cluster.refused("init", 1), &["already part of a swarm", "swarmctl leave"]);
    assert_eq!(cluster.ctl("info"), id, "the second init changed something");
    assert_says(&cluster.refused("leave", 1), &["last one", "--force"]);
    cluster.ctl("leave --force");
    assert_says(&cluster.ctl("info"), &["Swarm: inactive"]);
    cluster.ctl("init");
}

#[test]
fn a_port_in_use_is_named_at_init() {
    let cluster = hosts("ports", 1);
    let node = cluster.node(1);
    let whoami = swarm_playground::Binaries::locate().expect("built programs").whoami;
    for (port, sockets) in [("4789", "-Hlun"), ("2377", "-Hltn")] {
        let mut command = node.command(&whoami).expect("a command");
        let mut listener =
            command.args(["serve", "--port", port]).spawn().expect("a server on both protocols");
        let filter = format!("sport = :{port}");
        eventually("a server on that port", || {
            let found = node.run(["ss", sockets, &filter]).map_err(|e| e.to_string())?;
            if found.contains(port) { Ok(()) } else { Err(found) }
        });
        assert_says(&cluster.refused("init", 1), &[port, "in use"]);
        assert_says(&cluster.ctl("info"), &["Swarm: inactive"]);
        listener.kill().expect("the server's end");
        listener.wait().expect("the server's end");
    }
    eventually("init with free ports", || {
        let output = cluster.ctl_output("init");
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    });
}

#[test]
fn joins_that_cannot_be_are_refused() {
    let cluster = hosts("badjoin", 3);
    cluster.ctl("init");
    let manager = format!("{}:2377", cluster.node(1).address());
    let (two, three) = (cluster.client_of(2), cluster.client_of(3));
    let worker = token(&cluster, "worker");
    let refused = |client: &Client, token: &str, address: &str, parts: &[&str]| {
        let line = client.refused(&format!("join --token {token} {address}"), 1);
        assert_says(&line, parts);
        assert_says(&client.ctl("info"), &["Swarm: inactive"]);
    };

    refused(&two, "rubbish", &manager, &["invalid join token"]);
    let mut wrong = worker.clone();
    let last = if wrong.pop() == Some('0') { '1' } else { '0' };
    wrong.push(last);
    refused(&two, &wrong, &manager, &["invalid join token"]);
    two.refused(&format!("join {manager}"), 2);
    refused(&two, &worker, &format!("{}:9999", cluster.node(1).address()), &["refused"]);
    refused(&two, &worker, &format!("{}:2377", cluster.node(3).address()), &["refused"]);
    refused(&two, &worker, "no-such-host.invalid:2377", &["no-such-host.invalid"]);
    refused(&two, &worker, "not:an:address", &["not:an:address"]);

    // The CA of another swarm does not have the digest that is in the token.
    three.ctl("init");
    let other = format!("{}:2377", cluster.node(3).address());
    refused(&two, &worker, &other, &["CA"]);
    refused(&two, &token(&three, "worker"), &manager, &["CA"]);
    three.ctl("leave --force");

    let rotated = cluster.ctl("join-token -q --rotate worker").trim().to_owned();
    assert_ne!(rotated, worker);
    assert_eq!(rotated, token(&cluster, "worker"));
    refused(&two, &worker, &manager, &["invalid join token", "rotated"]);
    two.ctl(&format!("join --token {rotated} {manager}"));
    let again = two.refused(&format!("join --token {rotated} {manager}"), 1);
    assert_says(&again, &["already part of a swarm"]);
    assert_says(&two.refused("init", 1), &["already part of a swarm"]);

    // A worker is no manager: neither to be joined nor to be asked.
    let two_address = format!("{}:2377", cluster.node(2).address());
    refused(&three, &rotated, &two_address, &["worker", "not a manager"]);
    for line in ["node ls", "service ls", "join-token worker", "network create x"] {
        assert_says(&two.refused(line, 1), &["worker", "managers"]);
    }
    assert_eq!(cluster.list("node ls").len(), 2, "a refused join left a node");
}

#[test]
fn a_host_that_is_joining_says_so_at_once() {
    let cluster = hosts("joining", 2);
    let (one, two) = (cluster.node(1), cluster.client_of(2));
    cluster.ctl("init");
    let token = token(&cluster, "worker");
    // A manager that takes connections and is silent.
    let pid = one.daemon_pid().expect("a process").expect("one that runs").to_string();
    one.run(["kill", "-STOP", &pid]).expect("SIGSTOP");
    let join = format!("join --token {token} {}:2377", one.address());
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| two.refused(&join, 1));
        eventually("the host to be joining", || {
            let info = two.ctl("info");
            if info.contains("Swarm: pending") { Ok(()) } else { Err(info) }
        });
        for line in ["leave --force", "node ls"] {
            assert_says(&two.refused(line, 1), &["is joining a swarm"]);
        }
        joining.join().expect("an end of the joining");
    });
    assert_says(&two.ctl("info"), &["Swarm: inactive"]);
    one.run(["kill", "-CONT", &pid]).expect("SIGCONT");
}

#[test]
fn nodes_come_and_go() {
    let cluster = hosts("comego", 3);
    cluster.ctl("init");
    let manager = format!("{}:2377", cluster.node(1).address());
    let (two, three) = (cluster.client_of(2), cluster.client_of(3));
    let names: Vec<_> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let (worker, managers) = (token(&cluster, "worker"), token(&cluster, "manager"));
    two.ctl(&format!("join --token {worker} {manager}"));
    three.ctl(&format!("join --token {managers} {manager}"));
    wait_field(&cluster, &names[2], "ManagerStatus", "Reachable");
    assert_eq!(node_field(&cluster, &names[1], "ManagerStatus").as_deref(), Some(""));
    assert_eq!(three.list("node ls").len(), 3);

    assert_says(&cluster.refused(&format!("node rm {}", names[1]), 1), &["not down", "--force"]);
    assert_says(&cluster.refused(&format!("node rm {}", names[2]), 1), &["manager"]);
    assert_says(&cluster.refused(&format!("node rm --force {}", names[2]), 1), &["manager"]);
    two.ctl("leave");
    wait_field(&cluster, &names[1], "Status", "Down");
    assert_says(&two.refused("leave", 1), &["not part of a swarm"]);
    cluster.ctl(&format!("node rm {}", names[1]));
    assert_eq!(cluster.list("node ls").len(), 2);

    // Removed while it is up: its session ends, it may leave and join again.
    two.ctl(&format!("join --token {worker} {manager}"));
    wait_field(&cluster, &names[1], "Status", "Ready");
    cluster.ctl(&format!("node rm --force {}", names[1]));
    assert_eq!(cluster.list("node ls").len(), 2);
    two.ctl("leave");
    two.ctl(&format!("join --token {worker} {manager}"));
    wait_field(&cluster, &names[1], "Status", "Ready");

    // A manager leaves the quorum, not only the list: the other can change things alone.
    assert_says(&three.refused("leave", 1), &["manager", "--force"]);
    three.ctl("leave --force");
    cluster.create_network("", "alone");
    wait_field(&cluster, &names[2], "Status", "Down");
    cluster.ctl(&format!("node rm {}", names[2]));
    three.ctl(&format!("join --token {managers} {manager}"));
    wait_field(&cluster, &names[2], "ManagerStatus", "Reachable");
    assert_eq!(three.list("network ls").len(), cluster.list("network ls").len());
}

#[test]
fn a_node_removed_by_force_gives_up_its_tasks() {
    let cluster = Cluster::with("rmforce", |options| options.managers = Some(1));
    cluster.create_network("", "net");
    cluster.create_service("web", "--network net --replicas 6");
    let node = cluster.node(2);
    cluster.ctl(&format!("node rm --force {}", node.name()));
    eventually("all tasks on the other nodes", || {
        let tasks = cluster.tasks("web");
        if tasks.len() == 6 && tasks.iter().all(|task| task.node != node.name()) {
            Ok(())
        } else {
            Err(format!("{tasks:?}"))
        }
    });
    eventually("no namespace on the removed node", || {
        let left = node.run(["ls", "/run/swarmd/netns"]).map_err(|e| e.to_string())?;
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_node_that_cannot_start_is_kept_and_tried_again() {
    let cluster = hosts("bringback", 2);
    let (client, two) = (cluster.client_of(2), cluster.node(2));
    cluster.ctl("init");
    let join =
        format!("join --token {} {}:2377", token(&cluster, "worker"), cluster.node(1).address());
    client.ctl(&join);
    wait_field(&cluster, two.name(), "Status", "Ready");
    // As after a change of address that the node could not start with, but for good.
    let shell = |line: &str| {
        let dir = two.state_dir();
        two.run(["sh", "-c", &format!("cd {} && {line}", dir.display())]).expect(line);
    };
    shell("mkdir kept && cp -a node.json pki kept");
    client.ctl("leave");
    wait_field(&cluster, two.name(), "Status", "Down");
    shell("cp kept/node.json .");
    for line in ["init", &join] {
        assert_says(&client.refused(line, 1), &["part of a swarm", "cannot start"]);
    }
    eventually("words in the log", || {
        let log = std::fs::read_to_string(two.log_file()).expect("a log");
        if log.contains("cannot start: this node has lost its certificate") {
            Ok(())
        } else {
            Err(log)
        }
    });
    shell("rm -rf pki && cp -a kept/pki .");
    wait_field(&cluster, two.name(), "Status", "Ready");
    assert_says(&client.refused("init", 1), &["already part of a swarm"]);
}
