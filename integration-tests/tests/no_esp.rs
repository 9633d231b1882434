//! Encrypted networks on kernels without IPsec ESP: nothing of them runs or is programmed, and it is said why. On kernels
//! with it they run; more of that in `esp.rs`, in the VM.

use std::os::unix::fs::PermissionsExt;
use swarm_integration_tests::{Cluster, eventually};

#[test]
fn without_esp() {
    let cluster = Cluster::with("noesp", |options| {
        options.nodes = 2;
        options.managers = Some(1);
    });
    let encryption = cluster.inspect("node inspect self")["Description"]["Encryption"].clone();
    if encryption["Cipher"] != "" {
        encrypted_networks_run(&cluster);
        return;
    }
    assert!(encryption["Reason"].as_str().unwrap().contains("IPsec"), "{encryption}");
    keys_are_rotated_only_where_something_is_encrypted(&cluster);
    a_task_waits_and_says_which_kernels_lack_esp(&cluster);
    nothing_is_programmed(&cluster);
    other_networks_work(&cluster);
    files_with_keys_are_for_root_only(&cluster);
}

/// What a kernel with ESP is said to have, it has.
fn encrypted_networks_run(c: &Cluster) {
    let created = c.ctl_output("network create --opt encrypted safe");
    assert!(created.status.success() && created.stderr.is_empty(), "{created:?}");
    c.create_service("web", "--network safe --replicas 2");
    let answer = c.call(&c.tasks("web")[0], "http://web/", 4);
    answer.assert_balanced(&c.tasks("web"), c.tasks("web")[0].address());
}

fn keys_are_rotated_only_where_something_is_encrypted(c: &Cluster) {
    let said = c.refused("ca --rotate-network-keys", 1);
    assert!(said.contains("no network was encrypted"), "{said}");
    let created = c.ctl_output("network create --opt encrypted safe");
    assert!(created.status.success(), "{created:?}");
    let warned = String::from_utf8_lossy(&created.stderr).into_owned();
    for node in c.nodes() {
        let part = format!("will not run on {}, whose kernel lacks IPsec ESP", node.name());
        assert!(warned.contains(&part), "{warned}");
    }
    let generation = |wanted: u64| {
        eventually("a generation of keys", || {
            let shown = c.inspect("network inspect safe");
            assert_eq!(shown["Options"]["encrypted"], "");
            assert_eq!(shown["Encryption"]["Cipher"], "rfc4106(gcm(aes))");
            match shown["Encryption"]["KeyGeneration"].as_u64() {
                Some(generation) if generation == wanted => Ok(()),
                _ => Err(shown["Encryption"].to_string()),
            }
        });
    };
    generation(1);
    c.ctl("ca --rotate-network-keys");
    generation(2);
}

fn a_task_waits_and_says_which_kernels_lack_esp(c: &Cluster) {
    c.ctl("service create -d --name web --network safe --replicas 1 whoami");
    let (one, two) = (c.node(1), c.node(2));
    let waits = |why: &str| {
        let wanted = format!("no suitable node ({why})");
        eventually("the reason why a task waits", || {
            let task = c.all_tasks("web").into_iter().next().ok_or("no task")?;
            let as_wanted = (task.state.as_str(), task.error.as_str()) == ("pending", &*wanted);
            if as_wanted { Ok(()) } else { Err(format!("{}: {}", task.state, task.error)) }
        });
    };
    let (a, b) = (one.name(), two.name());
    waits(&format!("needs IPsec ESP, which the kernels of {a} and {b} lack"));
    two.kill_daemon().unwrap();
    waits(&format!("1 node down; needs IPsec ESP, which {a}'s kernel lacks"));
    two.start_daemon().unwrap();
    two.wait_for_daemon().unwrap();
    waits(&format!("needs IPsec ESP, which the kernels of {a} and {b} lack"));
    let shown = c.ctl("service ps --no-trunc web");
    assert!(shown.contains("needs IPsec ESP, which"), "{shown}");
}

fn nothing_is_programmed(c: &Cluster) {
    let id = c.network_id("safe");
    for node in c.nodes() {
        let there = node.run(["ls", "/run/swarmd/netns"]).unwrap();
        assert!(!there.contains(&id), "{}: {there}", node.name());
    }
}

fn other_networks_work(c: &Cluster) {
    c.create_network("", "plain");
    c.create_service("open", "--network plain --replicas 2");
    let tasks = c.tasks("open");
    c.call(&tasks[0], "http://open/", 8).assert_shared(&tasks);
}

fn files_with_keys_are_for_root_only(c: &Cluster) {
    for (path, mode) in [("view.bin", 0o600), ("raft", 0o700)] {
        let path = c.node(1).state_dir().join(path);
        let found = std::fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(found.permissions().mode() & 0o777, mode, "{}", path.display());
    }
}
