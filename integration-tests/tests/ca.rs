//! `swarmctl ca`: the root is replaced while everything goes on, whoever dies meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;
use swarm_integration_tests::{Client, Cluster, calls_while, containers, eventually, said, swarmd};
use swarm_playground::Node;

/// Everything that a rotation must leave as it is: containers, daemons, sessions. (A busy machine may make a session
/// silent for too long.)
fn undisturbed(cluster: &Cluster) -> Vec<(BTreeSet<i32>, Option<i32>, usize)> {
    let of = |node: &Node| {
        let log = std::fs::read_to_string(node.log_file()).expect("a log");
        let over = |line: &&str| line.contains("is over: ") && !line.contains("is silent");
        let ended = log.lines().filter(over).count();
        (containers(node), node.daemon_pid().expect("a process"), ended)
    };
    cluster.nodes().iter().map(of).collect()
}

fn without_spaces(text: &str) -> String {
    text.split_whitespace().collect()
}

fn node_of(client: &Client, name: &str) -> Value {
    client.inspect(&format!("node inspect {name}"))
}

/// That a host has a certificate of `root` and trusts nothing else: as it says, and on its disk.
#[track_caller]
fn assert_changed_over(client: &Client, node: &Node, root: &str) {
    let known = &node_of(client, node.name())["Description"]["TLSInfo"];
    assert_eq!(known["TrustRoot"].as_str().map(str::trim_end), Some(root), "{}", node.name());
    let pki = node.state_dir().join("pki");
    let read = |file: &str| without_spaces(&std::fs::read_to_string(pki.join(file)).expect(file));
    assert_eq!(read("ca.pem"), without_spaces(root), "{} trusts it alone", node.name());
    assert!(read("node.pem").contains(&without_spaces(root)), "{} has another's", node.name());
}

fn is_rotating(client: &Client) -> Result<bool, String> {
    let output = client.ctl_output("info --format json");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let info: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("{e}: {said}"))?;
    info["Swarm"]["Cluster"]["RootRotationInProgress"].as_bool().ok_or(format!("{info}: {said}"))
}

/// What `info` says on stdout and stderr.
fn info(client: &Client) -> String {
    let output = client.ctl_output("info");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn wait_for_end(client: &Client) {
    eventually("the end of the rotation", || match is_rotating(client)? {
        true => Err(info(client)),
        false => Ok(()),
    });
}

fn wait_until_it_waits_for(client: &Client, names: &[String], absent: &[&str]) {
    eventually("the rotation to wait for those that are away, and nobody else", || {
        let said = info(client);
        let waiting = said.split_once("waits for certificates of: ").map_or("", |(_, w)| w);
        let held = |name: &String| waiting.contains(&format!("{name} ("));
        let found: Vec<_> = names.iter().filter(|name| held(name)).collect();
        if found == absent { Ok(()) } else { Err(said) }
    });
}

#[track_caller]
fn wait_changed_over(client: &Client, nodes: &[Node], root: &str) {
    eventually("every node to trust the new root alone", || {
        let trusts = |node: &&Node| {
            let known = &node_of(client, node.name())["Description"]["TLSInfo"];
            known["TrustRoot"].as_str().is_some_and(|pem| pem.trim_end() == root)
        };
        let late: Vec<_> = nodes.iter().filter(|node| !trusts(node)).map(Node::name).collect();
        if late.is_empty() { Ok(()) } else { Err(format!("{late:?} do not")) }
    });
    nodes.iter().for_each(|node| assert_changed_over(client, node, root));
}

fn root(client: &Client) -> String {
    client.ctl("ca").trim_end().to_owned()
}

fn token(client: &Client, role: &str) -> String {
    client.ctl(&format!("join-token -q {role}")).trim().to_owned()
}

#[test]
fn the_root_is_replaced_and_nobody_notices() {
    let cluster = Cluster::with("ca", |options| {
        options.nodes = 5;
        options.managers = Some(3);
    });
    cluster.create_network("", "net");
    cluster.create_service("client", "--network net --replicas 1");
    cluster.create_service("web", "--network net --replicas 5");
    let client = cluster.task("client");
    let (first, former_token) = (root(&cluster), token(&cluster, "worker"));
    assert!(first.starts_with("-----BEGIN CERTIFICATE-----"), "{first}");
    let before = undisturbed(&cluster);

    let rotated = AtomicBool::new(false);
    let other = cluster.client_of(2);
    let line = "/whoami get --summary -n 40 -c 2 --interval 10 http://web/";
    let made = calls_while(&cluster, &[client], &[line], || {
        thread::scope(|scope| {
            let writes = scope.spawn(|| {
                let mut written = 0;
                while !rotated.load(Ordering::Acquire) {
                    other.ctl(&format!("node update --label-add write={written} self"));
                    written += 1;
                }
                written
            });
            let output = cluster.ctl_output("ca --rotate");
            rotated.store(true, Ordering::Release);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), root(&cluster));
            for part in
                ["desired root digest: sha256:", "TLS certificates: 5/5", "CA certificates:  5/5"]
            {
                assert!(said.contains(part), "{said}");
            }
            assert!(writes.join().expect("writes") > 0);
        });
    });
    for calls in &made {
        assert_eq!(calls.failed, 0, "{calls:?}");
    }
    assert_eq!(undisturbed(&cluster), before, "containers, daemons or sessions began anew");
    let second = root(&cluster);
    assert_ne!(second, first);
    for node in cluster.nodes() {
        assert_changed_over(&cluster, &node, &second);
    }

    // The tokens are others: the former ones let nobody in.
    let (joining, name) = (cluster.client_of(5), cluster.node(5).name().to_owned());
    let address = cluster.node(1).address();
    joining.ctl("leave");
    cluster.ctl(&format!("node rm --force {name}"));
    let refused = joining.refused(&format!("join --token {former_token} {address}:2377"), 1);
    assert!(refused.contains("does not match the join token"), "{refused}");
    assert!(refused.contains("rotated") && refused.trim_end().lines().count() == 1, "{refused}");
    joining.ctl(&format!("join --token {} {address}:2377", token(&cluster, "worker")));
    cluster.ctl("service scale web=6");

    // Also after a restart everybody is known by the new certificates.
    for number in [1, 4] {
        cluster.node(number).restart_daemon().expect("swarmd starts again");
    }
    eventually("the restarted manager", || {
        let output = cluster.ctl_output("service scale web=5");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    });
}

#[test]
fn a_rotation_waits_for_every_node_and_outlives_its_leader() {
    let cluster = Cluster::with("ca-held", |options| {
        options.nodes = 5;
        options.managers = Some(3);
    });
    let names: Vec<_> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let (away, lost) = (cluster.node(4), cluster.node(5));
    let first = root(&cluster);
    for node in [&away, &lost] {
        node.kill_daemon().expect("kill -9");
    }
    cluster.ctl("ca --rotate --detach");
    let second = root(&cluster);
    let named = |absent: &[&str]| wait_until_it_waits_for(&cluster, &names, absent);
    named(&[&names[3], &names[4]]);
    assert!(info(&cluster).contains("Root Rotation In Progress: true"));

    // A second rotation replaces the target of the first; the tokens are others again.
    let outdated = token(&cluster, "worker");
    cluster.ctl("ca --rotate --detach");
    let third = root(&cluster);
    assert!(third != second && third != first && token(&cluster, "worker") != outdated);

    // The leader dies: another one goes on.
    let nodes = cluster.list("node ls");
    let leads =
        |name: &str| nodes.iter().any(|n| n["Hostname"] == name && n["ManagerStatus"] == "Leader");
    let leader = names.iter().position(|name| leads(name)).expect("a leader") + 1;
    cluster.node(leader).kill_daemon().expect("kill -9");
    let survivor = cluster.client_of(leader % 3 + 1);
    eventually("another leader", || {
        let output = survivor.ctl_output("node update --label-add after=death self");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    });
    cluster.node(leader).start_daemon().expect("swarmd starts again");
    cluster.node(leader).wait_for_daemon().expect("swarmd answers");
    named(&[&names[3], &names[4]]);

    // Who was away for all of that comes back with its first certificate, and who is lost is removed.
    away.start_daemon().expect("swarmd starts again");
    named(&[&names[4]]);
    assert!(is_rotating(&cluster).expect("info"));
    cluster.ctl(&format!("node rm --force {}", names[4]));
    wait_for_end(&cluster);
    assert_eq!(root(&cluster), third);
    wait_changed_over(&cluster, &cluster.nodes()[..4], &third);

    // The one that was removed is told what to do when it comes back.
    lost.start_daemon().expect("swarmd starts again");
    let removed = cluster.client_of(5);
    eventually("the removed node to know", || {
        let said = info(&removed);
        if said.contains("swarmctl leave --force") { Ok(()) } else { Err(said) }
    });
    removed.ctl("leave --force");
    let address = cluster.node(2).address();
    removed.ctl(&format!("join --token {} {address}:2377", token(&cluster, "manager")));
    assert_eq!(root(&removed), third);
}

/// A manager that goes on alone, and a swarm that begins anew from a backup, both in the middle of a rotation.
#[test]
fn a_rotation_goes_on_after_the_last_resorts() {
    let cluster = Cluster::with("ca-last", |options| {
        options.nodes = 3;
        options.managers = Some(2);
    });
    let names: Vec<_> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let [one, two, three] = [1, 2, 3].map(|number| cluster.node(number));
    three.kill_daemon().expect("kill -9");
    let first = root(&cluster);
    cluster.ctl("ca --rotate --detach");
    let next = root(&cluster);
    assert_ne!(next, first);
    wait_until_it_waits_for(&cluster, &names, &[&names[2]]);
    let backup = one.state_dir().with_file_name("backup-of-test").to_string_lossy().into_owned();
    cluster.ctl(&format!("backup {backup}"));

    // The other manager is lost; the survivor goes on, and gives up who is away.
    two.kill().expect("power cut");
    eventually("a swarm without a quorum", || {
        let said = info(&cluster);
        if said.contains("no quorum for") { Ok(()) } else { Err(said) }
    });
    cluster.ctl("init --force-new-cluster");
    wait_until_it_waits_for(&cluster, &names, &[&names[2]]);
    assert_eq!(root(&cluster), next);
    cluster.ctl(&format!("node rm --force {}", names[2]));
    wait_for_end(&cluster);
    wait_changed_over(&cluster, std::slice::from_ref(&one), &next);

    // The survivor is lost too: a host without a state begins anew at its address.
    cluster.ctl("leave --force");
    one.stop_daemon().expect("SIGTERM");
    let (state_dir, address) = (one.state_dir(), one.address().to_string());
    let state_dir = state_dir.to_string_lossy();
    let words = ["restore", &backup, "--state-dir", &state_dir, "--advertise-addr", &address];
    let restored = swarmd(&one, &words);
    assert!(restored.status.success(), "{}", said(&restored));
    one.start_daemon().expect("swarmd on the restored state");
    one.wait_for_daemon().expect("swarmd answers");
    wait_until_it_waits_for(&cluster, &names, &[&names[2]]);
    assert_eq!(root(&cluster), next);
    let is_former = |node: &&Value| node["Hostname"] == names[0] && node["ManagerStatus"] == "";
    let nodes = cluster.list("node ls");
    let former = nodes.iter().find(is_former).expect("the node that this host was");
    cluster.ctl(&format!("node rm --force {}", former["ID"].as_str().expect("an id")));

    // Who was away for all of that knows the first root only, and where the managers were.
    three.start_daemon().expect("swarmd starts again");
    wait_for_end(&cluster);
    two.start().expect("boot");
    eventually("the former manager to be a node of the restored swarm", || {
        let nodes = cluster.list("node ls");
        let is_back = |node: &Value| node["Hostname"] == names[1] && node["Status"] == "Ready";
        if nodes.iter().any(is_back) { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
    wait_changed_over(&cluster, &cluster.nodes(), &next);
    cluster.create_service("web", "--replicas 3");
    one.restart_daemon().expect("swarmd starts again");
    eventually("the restarted manager", || {
        let output = cluster.ctl_output("service scale web=4");
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    });
}
