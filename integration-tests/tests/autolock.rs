//! Autolock: a manager that restarts does nothing but keep its containers going until it is given the unlock key.

use std::process::Command;

use swarm_integration_tests::{Client, Cluster, containers, eventually, said};
use swarm_playground::{Binaries, Node};

const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used.";

/// `swarmctl unlock` with a key on its standard input; what it said if it failed.
fn unlock(node: &Node, key: &str) -> Result<(), String> {
    let swarmctl = Binaries::locate().expect("built programs").swarmctl;
    let line = format!("echo '{key}' | {} unlock", swarmctl.display());
    let output = node.exec(["sh", "-c", &line]).expect("a shell");
    if output.status.success() { Ok(()) } else { Err(said(&output)) }
}

fn key_of(text: &str) -> String {
    let mut words = text.split_whitespace();
    let key = words.find(|word| word.starts_with("SWMKEY-1-"));
    key.unwrap_or_else(|| panic!("no unlock key: {text}")).to_owned()
}

/// Whether the secrets of a manager's disk are as they must be.
fn wait_sealed(node: &Node, sealed: bool) {
    let dir = node.state_dir();
    eventually(&format!("files of {} that are sealed: {sealed}", node.name()), || {
        let read =
            |file| std::fs::read_to_string(dir.join(file)).map_err(|e| format!("{file}: {e}"));
        let (key, identity) = (read("raft/key")?, read("pki/node.pem")?);
        let locked = key.contains("\"Locked\":true");
        let clear = identity.contains("BEGIN PRIVATE KEY");
        if locked == sealed && clear != sealed { Ok(()) } else { Err(format!("{locked} {clear}")) }
    });
}

fn revision(node: &Node) -> u64 {
    let text = std::fs::read_to_string(node.state_dir().join("raft/key")).unwrap_or_default();
    let key: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    key["Revision"].as_u64().unwrap_or_default()
}

fn wait_locked(client: &Client) {
    eventually("a locked manager", || {
        let text = client.ctl_output("info");
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        if text.contains("Swarm: locked") { Ok(()) } else { Err(text) }
    });
}

fn wait_answers(client: &Client) {
    eventually("a manager that answers", || {
        let output = client.ctl_output("node ls");
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    });
}

/// Whether any file below a directory has this text.
fn found(dir: &std::path::Path, text: &str) -> bool {
    let grep = Command::new("grep").args(["-r", "-q", "-a", "-F", text]).arg(dir).status();
    grep.expect("grep").success()
}

/// Three managers in a swarm with autolock; its unlock key.
fn locked_swarm(test: &str) -> (Cluster, String) {
    let cluster = Cluster::with(test, |options| options.form_swarm = false);
    let key = key_of(&cluster.ctl("init --autolock"));
    let token = cluster.ctl("join-token -q manager");
    let address = cluster.node(1).address();
    for number in [2, 3] {
        cluster.client_of(number).ctl(&format!("join --token {} {address}:2377", token.trim()));
    }
    (cluster, key)
}

/// A new key while a manager is down: that needs the old one once more, and is named. Ends with it locked.
fn rotate_key_without(cluster: &Cluster, away: &Node, first: &str) -> String {
    let client = Client::of(away.clone());
    away.stop_daemon().expect("SIGTERM");
    let output = cluster.ctl_output("unlock-key --rotate");
    assert!(output.status.success(), "{}", said(&output));
    let second = key_of(&String::from_utf8_lossy(&output.stdout));
    assert_ne!(second, first);
    let warned = said(&output);
    for node in cluster.nodes() {
        let named = warned.contains(&format!("{} at ", node.name()));
        assert_eq!(named, node.name() == away.name(), "{}: {warned}", node.name());
    }
    assert!(warned.contains("former unlock key") && warned.lines().count() == 1, "{warned}");
    away.start_daemon().expect("swarmd starts again");
    wait_locked(&client);
    assert_eq!(unlock(away, &second).expect_err("it has not heard of it"), "error: invalid key");
    unlock(away, first).expect("the key it knows");

    let rotated = revision(&cluster.node(1));
    for node in cluster.nodes() {
        eventually("the new unlock key everywhere", || match revision(&node) {
            found if found == rotated => Ok(()),
            found => Err(format!("{} is at {found}, not {rotated}", node.name())),
        });
    }
    away.restart_daemon().expect("swarmd starts again");
    wait_locked(&client);
    assert_eq!(unlock(away, first).expect_err("the old key"), "error: invalid key");
    second
}

/// The root is rotated while a manager is locked. The unlock key stays, also for the keys of the new certificates.
fn rotate_root_with_a_locked_manager(cluster: &Cluster, locked: &Node, key: &str) {
    let client = Client::of(locked.clone());
    cluster.ctl("ca --rotate --detach");
    let root = cluster.ctl("ca");
    eventually("a rotation that waits for the locked manager alone", || {
        let info = said(&cluster.ctl_output("info"));
        let waiting = info.split_once("waits for certificates of: ").map_or("", |(_, names)| names);
        let held = |node: &Node| waiting.contains(&format!("{} (", node.name()));
        match cluster.nodes().iter().all(|node| held(node) == (node.name() == locked.name())) {
            true => Ok(()),
            false => Err(info),
        }
    });
    unlock(locked, key).expect("the key");
    wait_answers(&client);
    eventually("the end of the rotation", || {
        let info = cluster.ctl("info");
        if info.contains("Root Rotation In Progress: true") { Err(info) } else { Ok(()) }
    });
    for node in cluster.nodes() {
        wait_sealed(&node, true);
        let identity = std::fs::read_to_string(node.state_dir().join("pki/node.pem"));
        let identity = identity.expect("a certificate").replace('\r', "");
        assert!(identity.contains(root.trim()), "{} has another root's", node.name());
    }
    locked.restart_daemon().expect("swarmd starts again");
    wait_locked(&client);
    unlock(locked, key).expect("the same key");
    wait_answers(&client);
    client.ctl(&format!("node update --label-add after=rotation {}", locked.name()));
}

#[test]
fn managers_that_restart_need_the_unlock_key() {
    let (cluster, first) = locked_swarm("autolock");
    assert_eq!(cluster.ctl("unlock-key -q").trim(), first);
    assert!(cluster.ctl("info").contains("Autolock Managers: true"));
    cluster.create_network("", "net");
    cluster.create_service("web", "--network net --replicas 3");
    cluster.nodes().iter().for_each(|node| wait_sealed(node, true));
    let (three, client) = (cluster.node(3), cluster.client_of(3));
    assert!(unlock(&three, &first).expect_err("it is unlocked").contains("swarm is not locked"));

    // The disk tells nothing, neither running nor at rest.
    let dir = three.state_dir();
    let token = cluster.ctl("join-token -q manager");
    let secrets = [token.trim(), "BEGIN PRIVATE KEY", "\"web\"", first.as_str()];
    for secret in secrets {
        assert!(!found(&dir.join("raft"), secret), "{secret}");
    }
    assert!(!found(&dir.join("pki"), "BEGIN PRIVATE KEY"));

    let before = containers(&three);
    assert_eq!(before.len(), 1);
    three.restart_daemon().expect("swarmd starts again");
    wait_locked(&client);
    for line in [
        "node ls",
        "service ls",
        "service scale web=5",
        "unlock-key -q",
        "init",
        "init --force-new-cluster",
        "update --autolock=false",
        "backup /tmp/never",
    ] {
        let refused = client.refused(line, 1);
        assert!(
            refused.contains(LOCKED) && refused.contains("swarmctl unlock"),
            "{line}: {refused}"
        );
    }
    assert!(client.refused("leave", 1).contains("encrypted and locked"));
    assert_eq!(containers(&three), before, "containers go on");
    let pid = before.first().expect("a container").to_string();
    let resolve = ["-t", &pid, "-n", "-m", "/whoami", "resolve", "web"];
    eventually("DNS of a locked node's task", || {
        let output = Command::new("nsenter").args(resolve).output().expect("nsenter");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("NOERROR") { Ok(()) } else { Err(text + &said(&output)) }
    });
    // The others go on without it, and then with it.
    cluster.ctl("service create -q --name while-locked --network net whoami");
    for wrong in ["SWMKEY-1-WuYH/IX284+lRcXuoVf38viIDK3HJEKY13MIHX+tTt8", "hunter2", ""] {
        let error = unlock(&three, wrong).expect_err("a wrong key");
        assert_eq!(error, "error: invalid key", "{wrong}");
    }
    wait_locked(&client);
    unlock(&three, &first).expect("the right key");
    wait_answers(&client);
    assert!(client.ctl("service ls").contains("while-locked"), "it has caught up");
    wait_sealed(&three, true);

    let second = rotate_key_without(&cluster, &three, &first);
    rotate_root_with_a_locked_manager(&cluster, &three, &second);

    // A worker has nothing to lock.
    cluster.ctl(&format!("node demote {}", three.name()));
    eventually("a worker without keys", || {
        if dir.join("raft").exists() { Err("raft is there".to_owned()) } else { Ok(()) }
    });
    three.restart_daemon().expect("swarmd starts again");
    assert!(client.ctl("info").contains("Swarm: active"));
    cluster.ctl(&format!("node promote {}", three.name()));
    wait_sealed(&three, true);

    client.ctl("update --autolock=false");
    cluster.nodes().iter().for_each(|node| wait_sealed(node, false));
    // The key of its certificate has been in clear: locked again, it gets another one.
    let certificate = || {
        let text = std::fs::read_to_string(dir.join("pki/node.pem")).expect("a certificate");
        let end = text.find("-----END CERTIFICATE").expect("its end");
        text[..end].to_owned()
    };
    let exposed = certificate();
    client.ctl("update --autolock");
    wait_sealed(&three, true);
    eventually("another certificate", || match certificate() {
        found if found == exposed => Err(found),
        _ => Ok(()),
    });
    client.ctl("update --autolock=false");
    cluster.nodes().iter().for_each(|node| wait_sealed(node, false));
    assert!(client.refused("unlock-key", 1).contains("no unlock key is set"));
    assert!(client.refused("unlock-key --rotate", 1).contains("autolock is not turned on"));
    three.restart_daemon().expect("swarmd starts again");
    wait_answers(&client);
}

#[test]
fn a_swarm_whose_managers_are_all_locked_comes_back_and_a_survivor_goes_on_alone() {
    let (cluster, key) = locked_swarm("alllocked");
    cluster.ctl("service create -q --name kept whoami");
    cluster.nodes().iter().for_each(|node| wait_sealed(node, true));
    for node in cluster.nodes() {
        node.kill().expect("power cut");
    }
    for node in cluster.nodes() {
        node.start().expect("boot");
    }
    for number in 1..=3 {
        wait_locked(&cluster.client_of(number));
    }
    unlock(&cluster.node(1), &key).expect("the key");
    let alone = cluster.client_of(1);
    assert!(alone.refused("service scale kept=2", 1).contains("managers are reachable"));
    unlock(&cluster.node(2), &key).expect("the key");
    eventually("a quorum of unlocked managers", || {
        let output = alone.ctl_output("service scale -d kept=2");
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    });

    // The one that is locked may go on alone once it has the key, or give up.
    cluster.node(1).kill().expect("power cut");
    cluster.node(2).kill().expect("power cut");
    let survivor = cluster.client_of(3);
    assert!(survivor.refused("init --force-new-cluster", 1).contains(LOCKED));
    unlock(&cluster.node(3), &key).expect("the key");
    eventually("a swarm without a quorum", || {
        let info = survivor.ctl("info");
        if info.contains("no quorum for") { Ok(()) } else { Err(info) }
    });
    survivor.ctl("init --force-new-cluster");
    assert!(survivor.ctl("service ls").contains("kept"));
    cluster.node(3).restart_daemon().expect("swarmd starts again");
    wait_locked(&survivor);
    survivor.ctl("leave --force");
    assert!(survivor.ctl("info").contains("Swarm: inactive"));
    assert!(!cluster.node(3).state_dir().join("raft").exists());
}
