//! The last resorts: a manager that goes on without the others, and a swarm that begins anew from a backup.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use swarm_integration_tests::{Client, Cluster, containers, eventually, said, swarmd};

fn wait_field(client: &Client, name: &str, field: &str, value: &str) {
    eventually(&format!("{field} of {name} to be {value}"), || {
        let output = client.ctl_output("node ls --format json");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut nodes =
            text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        match nodes.any(|node| node["Hostname"] == name && node[field] == value) {
            true => Ok(()),
            false => Err(format!("{text}{}", said(&output))),
        }
    });
}

fn join(node: &Client, via: &Client, role: &str, address: &str) {
    let token = via.ctl(&format!("join-token -q {role}"));
    node.ctl(&format!("join --token {} {address}:2377", token.trim()));
}

#[test]
fn a_survivor_goes_on_alone_with_all_state_and_all_containers() {
    let cluster = Cluster::up("alone");
    cluster.create_network("", "net");
    cluster.create_service("web", "--network net --replicas 6");
    let names: Vec<_> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let survivor = cluster.client_of(3);
    let refused = survivor.refused("init --force-new-cluster", 1);
    assert!(refused.contains("has a quorum"), "{refused}");
    let (network, own) = (survivor.network_id("net"), containers(&cluster.node(3)));
    assert_eq!(own.len(), 2);

    for number in [1, 2] {
        cluster.node(number).kill().expect("power cut");
    }
    eventually("a swarm without a quorum", || {
        let info = survivor.ctl("info");
        let parts = ["no quorum for", &*names[0], &*names[1], "--force-new-cluster"];
        if parts.iter().all(|part| info.contains(part)) { Ok(()) } else { Err(info) }
    });
    let listed = survivor.ctl_output("node ls");
    assert!(listed.status.success(), "{}", said(&listed));
    assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), 4, "all nodes");
    assert!(said(&listed).contains("may be out of date: the swarm has had no quorum for"));
    survivor.refused("service scale web=7", 1);

    // It also moves to another address of its host.
    let [a, b, c, _] = cluster.node(3).address().octets();
    let moved = format!("{a}.{b}.{c}.253");
    let address = format!("{moved}/24");
    cluster.node(3).run(["ip", "address", "add", &address, "dev", "eth0"]).expect("an address");
    let absent = survivor.refused("init --force-new-cluster --advertise-addr 192.0.2.77", 1);
    assert!(absent.contains("192.0.2.77"), "{absent}");
    let joining = survivor.ctl(&format!("init --force-new-cluster --advertise-addr {moved}"));
    assert!(joining.contains(&format!("{moved}:2377")), "{joining}");
    let own_node = survivor.inspect("node inspect self");
    assert_eq!(own_node["ManagerStatus"]["Addr"], format!("{moved}:2377"));
    assert_eq!(survivor.network_id("net"), network);
    eventually("all tasks on the survivor", || {
        let tasks = survivor.tasks("web");
        let here = tasks.iter().filter(|task| task.node == names[2]).count();
        if here == 6 { Ok(()) } else { Err(format!("{here} of {tasks:?}")) }
    });
    let now = containers(&cluster.node(3));
    assert!(own.is_subset(&now), "containers were restarted: {own:?}, then {now:?}");
    for name in &names[..2] {
        wait_field(&survivor, name, "ManagerStatus", "");
        wait_field(&survivor, name, "Status", "Down");
    }

    // One of the lost comes back: it is told that it is a worker now, and can be promoted.
    cluster.node(2).start().expect("boot");
    wait_field(&survivor, &names[1], "Status", "Ready");
    eventually("the former manager to be a worker", || {
        let said = said(&cluster.client_of(2).ctl_output("node ls"));
        if said.contains("worker") { Ok(()) } else { Err(said) }
    });
    survivor.ctl(&format!("node promote {}", names[1]));
    wait_field(&cluster.client_of(2), &names[1], "ManagerStatus", "Reachable");
    // The other one lost its disk and joins as a new node.
    survivor.ctl(&format!("node rm {}", names[0]));
    cluster.client_of(2).ctl("service scale web=8");
    assert_eq!(survivor.tasks("web").len(), 8);
}

#[test]
fn a_swarm_begins_anew_from_a_backup() {
    let cluster = Cluster::with("backup", |options| {
        options.nodes = 2;
        options.managers = Some(1);
    });
    let (one, two) = (cluster.node(1), cluster.node(2));
    let worker = cluster.client_of(2);
    cluster.create_network("--subnet 10.99.0.0/24", "net");
    cluster.create_service("web", "--network net --replicas 2");
    let (vip, network) = (cluster.vip("web"), cluster.network_id("net"));
    let dir = one.state_dir().join("..").canonicalize().expect("a directory of the playground");
    let file = dir.join("backup-of-test");
    let path = file.to_string_lossy().into_owned();
    cluster.ctl(&format!("backup {path}"));
    assert!(cluster.refused(&format!("backup {path}"), 1).contains("exists already"));
    let bytes = std::fs::read(&file).expect("the backup");
    cluster.ctl("service create -q --name later whoami");

    // What is no sound backup leaves nothing behind; nor may a node be overwritten.
    let fresh = dir.join("fresh").to_string_lossy().into_owned();
    let address = two.address().to_string();
    let restore = |file: &str, state_dir: &str| {
        let words = ["restore", file, "--state-dir", state_dir, "--advertise-addr", &address];
        swarmd(&two, &words)
    };
    let running = restore(&path, &fresh);
    assert!(said(&running).contains("while swarmd runs"), "{running:?}");
    worker.ctl("leave");
    two.stop_daemon().expect("SIGTERM");
    let bad = file.with_extension("bad");
    let flipped: Vec<u8> = bytes.iter().enumerate().map(|(n, b)| b ^ u8::from(n == 99)).collect();
    for (content, part) in [(&bytes[..bytes.len() / 2], "cut off"), (&flipped, "damaged")] {
        std::fs::write(&bad, content).expect("a bad backup");
        let output = restore(&bad.to_string_lossy(), &fresh);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(part) && said(&output).lines().count() == 1, "{output:?}");
    }
    let occupied = restore(&path, &one.state_dir().to_string_lossy());
    assert!(said(&occupied).contains("state of a node"), "{occupied:?}");

    // The only manager is gone with its disk; its worker becomes the first manager of the same swarm.
    one.kill().expect("power cut");
    let output = restore(&path, &two.state_dir().to_string_lossy());
    assert!(output.status.success(), "{}", said(&output));
    two.start_daemon().expect("swarmd on the restored state");
    eventually("the restored swarm", || {
        let tasks = worker.ctl_output("service ps web");
        let here = worker.tasks("web").iter().filter(|task| task.node == two.name()).count();
        if here == 2 { Ok(()) } else { Err(format!("{here} run: {tasks:?}")) }
    });
    assert_eq!((worker.vip("web"), worker.network_id("net")), (vip, network));
    assert!(!worker.ctl("service ls").contains("later"), "younger than the backup");
    let again = restore(&path, &two.state_dir().to_string_lossy());
    assert!(said(&again).contains("while swarmd runs"), "{again:?}");

    // Others join the restored swarm.
    one.start().expect("boot");
    let client = cluster.client_of(1);
    eventually("the former manager's daemon", || {
        let output = client.ctl_output("info");
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    });
    client.ctl("leave --force");
    join(&client, &worker, "manager", &address);
    worker.ctl("service scale web=4");
    assert_eq!(client.tasks("web").len(), 4);

    // Nor does a copy of a node that runs: there would be two of one name.
    let copy = dir.join("copy");
    std::fs::create_dir(&copy).expect("a directory for the copy");
    for part in ["node.json", "pki", "raft"] {
        let mut cp = std::process::Command::new("cp");
        let copied = cp.arg("-a").arg(two.state_dir().join(part)).arg(&copy).status();
        let copied = copied.expect("cp runs");
        assert!(copied.success(), "{part} is not copied");
    }
    let (state, run) = (copy.to_string_lossy(), copy.join("run"));
    let output = swarmd(&one, &["--state-dir", &state, "--run-dir", &run.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let address = format!("runs already, at {address}:2377");
    for part in [&*address, "is a copy", "node.json", "swarmctl join"] {
        assert!(said(&output).contains(part), "{}", said(&output));
    }
    assert_eq!(client.tasks("web").len(), 4, "the one that runs goes on");

    // A manager whose log is gone does not start: it would vote on what it does not know.
    one.stop_daemon().expect("SIGTERM");
    std::fs::remove_dir_all(one.state_dir().join("raft")).expect("a wiped disk");
    let state_dir = one.state_dir().to_string_lossy().into_owned();
    let output = swarmd(&one, &["--state-dir", &state_dir]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for part in ["has lost", "node.json", "node rm --force"] {
        assert!(said(&output).contains(part), "{}", said(&output));
    }
}

#[test]
fn a_task_whose_container_is_gone_is_replaced_and_not_started_again() {
    // On the only manager: it does not take itself for dead meanwhile.
    let cluster = Cluster::with("gone", |options| options.nodes = 1);
    cluster.create_service("web", "--replicas 1");
    let (node, lost) = (cluster.node(1), cluster.task("web"));
    node.stop_daemon().expect("SIGTERM");
    for pid in containers(&node) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("SIGKILL");
    }
    for dir in [node.state_dir().display().to_string(), "/run/swarmd".to_owned()] {
        let folder = format!("{dir}/tasks/{}", lost.id);
        eventually("the shim's end", || {
            node.run(["rm", "-r", &folder]).map(drop).map_err(|e| e.to_string())
        });
    }
    node.start_daemon().expect("swarmd starts again");
    let ended = eventually("the end of the lost task", || {
        let tasks = cluster.all_tasks("web");
        let ended = tasks.iter().find(|task| task.id == lost.id && task.desired != "running");
        ended.cloned().ok_or(format!("{tasks:?}"))
    });
    assert_eq!((&*ended.state, &*ended.error), ("failed", "the container is gone"));
    eventually("another task in its place", || {
        let tasks = cluster.all_tasks("web");
        let runs = tasks.iter().any(|task| task.is_up() && task.id != lost.id);
        if runs { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
}
