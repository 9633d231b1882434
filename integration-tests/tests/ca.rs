//! `swarmctl ca`: the root is replaced while everything goes on, whoever dies meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;
use swarm_integration_tests::{Client, Cluster, calls_while, eventually};
use swarm_playground::Node;

/// Process ids, on the machine, of the containers of `whoami` on a host.
fn containers(node: &Node) -> BTreeSet<i32> {
    let is_whoami = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "whoami")
    };
    node.processes().expect("processes of a host").into_iter().filter(is_whoami).collect()
}

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
    let named = |absent: &[&str]| {
        eventually("the rotation to wait for those that are away, and nobody else", || {
            let said = info(&cluster);
            let waiting = said.split_once("waits for certificates of: ").map_or("", |(_, w)| w);
            let held = |name: &String| waiting.contains(&format!("{name} ("));
            let found: Vec<_> = names.iter().filter(|name| held(name)).collect();
            if found == absent { Ok(()) } else { Err(said) }
        });
    };
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
    eventually("every node to trust the new root alone", || {
        let trusts = |name: &String| {
            let known = &node_of(&cluster, name)["Description"]["TLSInfo"];
            known["TrustRoot"].as_str().is_some_and(|pem| pem.trim_end() == third)
        };
        let late: Vec<_> = names[..4].iter().filter(|name| !trusts(name)).collect();
        if late.is_empty() { Ok(()) } else { Err(format!("{late:?} do not")) }
    });
    for number in 1..=4 {
        assert_changed_over(&cluster, &cluster.node(number), &third);
    }

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
