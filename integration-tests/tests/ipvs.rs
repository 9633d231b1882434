//! A swarm whose nodes balance with IPVS, on a kernel that has it: `cargo xtask vm test playground` runs it in the VM.
//!
//! One cluster for all, and few processes: there the CPU is emulated. The checks build on one another, so one that fails
//! is the last.

use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use swarm_integration_tests::kernel::{self, Destination, in_netns};
use swarm_integration_tests::outage::{named, whoami_in};
use swarm_integration_tests::{Calls, Cluster, Task, calls_while, eventually};
use swarm_playground::Node;

/// A check of the one swarm.
type Step = fn(&Lab);

#[test]
#[ignore = "needs a kernel with IPVS: cargo xtask vm test"]
fn playground() {
    let lab = Lab::up();
    let steps: [(&str, Step); 9] = [
        ("every node balances with ipvs and says why", every_node_balances_with_ipvs_and_says_why),
        ("ipvsadm shows one service per service", ipvsadm_shows_one_service_per_service),
        ("names and vips work on every node", names_and_vips_work_on_every_node),
        ("a backend is served by all, itself included", a_backend_is_served_by_all),
        ("scaling loses no call", scaling_loses_no_call),
        ("a task that stops ends its connections first", a_task_that_stops_drains),
        ("drift is repaired and logged", drift_is_repaired_and_logged),
        ("a killed daemon changes nothing", a_killed_daemon_changes_nothing),
        ("a dead node leaves names and balancers", a_dead_node_leaves_names_and_balancers),
    ];
    for (name, step) in steps {
        let started = std::time::Instant::now();
        eprintln!("check {name}");
        step(&lab);
        eprintln!("check {name}: ok ({:.1} s)", started.elapsed().as_secs_f64());
    }
}

/// A manager and two workers; `client` and `web` have a task on each.
struct Lab {
    cluster: Cluster,
    network: String,
    client: Vec<Task>,
    vip: Ipv4Addr,
}

impl Lab {
    fn up() -> Self {
        let cluster = Cluster::with("ipvs", |options| options.managers = Some(1));
        let network = cluster.create_network("", "net");
        cluster.create_service("client", "--network net --replicas 3");
        cluster.create_service("web", "--network net --replicas 3 --stop-grace-period 60s");
        let (client, vip) = (cluster.tasks("client"), cluster.vip("web"));
        Self { cluster, network, client, vip }
    }

    fn web(&self) -> Vec<Task> {
        self.cluster.tasks("web")
    }

    fn node_of(&self, task: &Task) -> Node {
        let found = self.cluster.nodes().into_iter().find(|node| node.name() == task.node);
        found.unwrap_or_else(|| panic!("{} is on no node", task.name))
    }

    /// Calls from the namespace of a task, past `task exec`.
    #[track_caller]
    fn call(&self, from: &Task, line: &str) -> Calls {
        let said = whoami_in(&self.node_of(from), from, line);
        let said = said.unwrap_or_else(|e| panic!("{line} from {}: {e}", from.name));
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{line}: {e}: {said}"))
    }

    /// To the VIP of `web`, over TCP and UDP. By its address: what is not run in a task has the node's resolver.
    fn thirty_calls(&self) -> [String; 2] {
        let vip = self.vip;
        [format!("get --summary -n 30 http://{vip}/"), format!("udp --summary -n 30 {vip}:80")]
    }

    /// What IPVS of a node has for `web`.
    #[track_caller]
    fn ipvs_web(&self, node: &Node) -> BTreeMap<Ipv4Addr, Destination> {
        let mark = u32::from(self.vip.octets()[3]);
        let services = kernel::ipvs(node, &self.network);
        services.get(&mark).unwrap_or_else(|| panic!("no FWM {mark}: {services:?}")).clone()
    }

    /// That a node balances `web` over exactly these tasks.
    fn balances(&self, node: &Node, tasks: &[Task]) -> Result<(), String> {
        let wanted = addresses(tasks);
        match kernel::balancer(node, &self.network).remove(&self.vip) {
            Some(backends) if backends == wanted => Ok(()),
            other => Err(format!("{other:?} on {}, not {wanted:?}", node.name())),
        }
    }

    /// Runs `work` for every client at once.
    fn on_every_node(&self, work: impl Fn(&Task, Node) + Sync) {
        thread::scope(|scope| {
            for client in &self.client {
                let work = &work;
                scope.spawn(move || work(client, self.node_of(client)));
            }
        });
    }
}

fn addresses(tasks: &[Task]) -> BTreeSet<Ipv4Addr> {
    tasks.iter().map(Task::address).collect()
}

/// A check of calls to tasks.
type Fair = fn(&Calls, &[Task]);

/// What must hold of each of [`Lab::thirty_calls`].
const FAIR: [Fair; 2] = [assert_ten_each, assert_about_ten_each];

/// 30 calls, exactly 10 to each of three.
#[track_caller]
fn assert_ten_each(calls: &Calls, tasks: &[Task]) {
    calls.assert_shared(tasks);
    assert_eq!((tasks.len(), calls.calls), (3, 30), "{calls:?}");
    assert!(calls.hosts.values().all(|count| *count == 10), "{calls:?}");
}

/// The same over UDP: a source port that chance picks twice is one flow, which stays where it is.
#[track_caller]
fn assert_about_ten_each(calls: &Calls, tasks: &[Task]) {
    calls.assert_shared(tasks);
    assert_eq!((tasks.len(), calls.calls), (3, 30), "{calls:?}");
    assert!(calls.hosts.values().all(|count| (8..=12).contains(count)), "{calls:?}");
}

fn every_node_balances_with_ipvs_and_says_why(lab: &Lab) {
    let names: Vec<String> = lab.cluster.nodes().iter().map(|node| node.name().into()).collect();
    let nodes = lab.cluster.inspect_all(&format!("node inspect {}", names.join(" ")));
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        let balancer = &node["Description"]["Balancer"];
        assert_eq!(*balancer, json!("ipvs (the kernel has it)"), "{node}");
    }
}

/// By a number that people know again: the last one of the VIP.
fn ipvsadm_shows_one_service_per_service(lab: &Lab) {
    let (web, client) = (lab.web(), &lab.client);
    let number = |vip: Ipv4Addr| u32::from(vip.octets()[3]);
    let marks = BTreeSet::from([number(lab.vip), number(lab.cluster.vip("client"))]);
    lab.on_every_node(|_, node| {
        let services = kernel::ipvs(&node, &lab.network);
        assert_eq!(services.keys().copied().collect::<BTreeSet<_>>(), marks);
        for (mark, destinations) in services {
            let tasks = if mark == number(lab.vip) { &web } else { client };
            assert_eq!(destinations.keys().copied().collect::<BTreeSet<_>>(), addresses(tasks));
            assert!(destinations.values().all(|d| d.weight == 1), "{destinations:?}");
        }
    });
    let node = lab.cluster.node(1);
    eprintln!("{}", in_netns(&node, &format!("n-{}", lab.network), "ipvsadm -Ln"));
}

fn names_and_vips_work_on_every_node(lab: &Lab) {
    let web = lab.web();
    let nodes: BTreeSet<&str> = web.iter().map(|task| task.node.as_str()).collect();
    assert_eq!(nodes.len(), 3, "one task on each node");
    lab.on_every_node(|client, node| {
        let resolve = "resolve --server 127.0.0.11 --short web tasks.web";
        let answer = whoami_in(&node, client, resolve).unwrap_or_else(|e| panic!("{e}"));
        let named: BTreeSet<Ipv4Addr> = answer.lines().filter_map(|l| l.parse().ok()).collect();
        let expected = addresses(&web).into_iter().chain([lab.vip]).collect();
        assert_eq!(named, expected, "{answer}");
        for (line, assert_fair) in lab.thirty_calls().into_iter().zip(FAIR) {
            let calls = lab.call(client, &line);
            assert_fair(&calls, &web);
            calls.assert_balanced(&web, client.address());
        }
    });
    // As a user does it.
    let calls = lab.cluster.call(&lab.client[0], "http://web/", 30);
    assert_ten_each(&calls, &web);
}

/// By itself it is called from the gateway's address: a packet from its own would never leave it.
fn a_backend_is_served_by_all(lab: &Lab) {
    let web = lab.web();
    let gateway = Ipv4Addr::from(u32::from(lab.vip) & 0xffff_ff00 | 1).to_string();
    for (line, assert_fair) in lab.thirty_calls().into_iter().zip(FAIR) {
        for backend in &web {
            let calls = lab.call(backend, &line);
            assert_fair(&calls, &web);
            let own = backend.address().to_string();
            assert_eq!(calls.clients, BTreeMap::from([(gateway.clone(), 10), (own, 20)]));
        }
    }
}

fn scaling_loses_no_call(lab: &Lab) {
    let from = [lab.client[1].clone()];
    let line = "/whoami get --summary -n 40 --interval 20 http://web/";
    let up = calls_while(&lab.cluster, &from, &[line], || {
        lab.cluster.ctl("service scale -q web=5");
    });
    up.iter().for_each(Calls::assert_none_failed);
    for node in lab.cluster.nodes() {
        lab.balances(&node, &lab.web()).expect("in force when the command returns");
    }
    let down = calls_while(&lab.cluster, &from, &[line], || {
        lab.cluster.ctl("service scale -q web=3");
    });
    for calls in &down {
        assert_eq!(calls.failed, 0, "{calls:?}");
    }
    for node in lab.cluster.nodes() {
        lab.balances(&node, &lab.web()).expect("in force when the command returns");
    }
}

/// Answers are under way from all three while two are to stop: their weight is 0 then, and every answer arrives whole.
fn a_task_that_stops_drains(lab: &Lab) {
    let client = &lab.client[0];
    let node = lab.node_of(client);
    let before = addresses(&lab.web());
    thread::scope(|scope| {
        let line = format!("get --summary -n 3 -c 3 --timeout 60 http://{}/slow?ms=25000", lab.vip);
        let slow = scope.spawn(move || lab.call(client, &line));
        eventually("a connection to each task", || {
            let active = lab.ipvs_web(&node);
            if active.values().all(|d| d.active >= 1) { Ok(()) } else { Err(format!("{active:?}")) }
        });
        lab.cluster.ctl("service scale -d web=1");
        let draining = eventually("two that drain", || {
            let all = lab.ipvs_web(&node);
            let draining: Vec<_> = all.iter().filter(|(_, d)| d.weight == 0).collect();
            if draining.len() == 2 { Ok(draining.len()) } else { Err(format!("{all:?}")) }
        });
        assert!(!slow.is_finished(), "the answers came before the tasks were to stop");
        let calls = slow.join().expect("a summary");
        assert_eq!((calls.failed, calls.hosts.len(), draining), (0, 3, 2), "{calls:?}");
    });
    eventually("only the task that stays", || {
        let left: BTreeSet<_> = lab.ipvs_web(&node).into_keys().collect();
        if left.len() == 1 && left.is_subset(&before) { Ok(()) } else { Err(format!("{left:?}")) }
    });
    lab.cluster.ctl("service scale -q web=3");
}

/// By the audit, which comes every half minute: one node loses its IPVS, another its nftables.
fn drift_is_repaired_and_logged(lab: &Lab) {
    let web = lab.web();
    let netns = format!("n-{}", lab.network);
    let harm =
        [(2, "ipvsadm -C", "was gone"), (3, "nft flush ruleset", "the table ip swarm was gone")];
    for (number, meddling, _) in harm {
        in_netns(&lab.cluster.node(number), &netns, meddling);
    }
    for (number, meddling, words) in harm {
        let node = lab.cluster.node(number);
        let log = eventually(&format!("the repair of {meddling}"), || {
            let log = fs::read_to_string(node.log_file()).map_err(|e| e.to_string())?;
            let repaired = log.lines().find(|line| line.contains("repaired the balancer"));
            repaired.map(str::to_owned).ok_or_else(|| "nothing in the log".to_owned())
        });
        assert!(log.contains(words), "{meddling}: {log}");
        lab.balances(&node, &web).unwrap_or_else(|e| panic!("{meddling}: {e}"));
        let client = lab.client.iter().find(|task| task.node == node.name()).expect("a client");
        let calls = lab.call(client, &lab.thirty_calls()[0]);
        assert_ten_each(&calls, &web);
    }
}

/// Containers, balancing and an open connection go on without a `swarmd`, and the next one takes them over.
fn a_killed_daemon_changes_nothing(lab: &Lab) {
    let web = lab.web();
    // The one of the only manager: nobody takes its node for dead, however long it is down.
    let node = lab.cluster.node(1);
    let here = |task: &&Task| task.node == node.name();
    let client = lab.client.iter().find(here).expect("a client there");
    let containers = whoami_processes(&node);
    assert!(containers.len() >= 2, "{containers:?}");
    thread::scope(|scope| {
        let line =
            format!("get --summary --keep-alive --interval 100 --duration 25 http://{}/", lab.vip);
        let open = scope.spawn(move || lab.call(client, &line));
        eventually("the connection", || {
            let active = lab.ipvs_web(&node);
            if active.values().any(|d| d.active > 0) { Ok(()) } else { Err(format!("{active:?}")) }
        });
        node.kill_daemon().expect("kill -9");
        let calls = lab.call(client, &lab.thirty_calls()[0]);
        assert_ten_each(&calls, &web);
        assert_eq!(whoami_processes(&node), containers, "containers ended with swarmd");
        node.start_daemon().expect("start swarmd again");
        assert!(!open.is_finished(), "the connection was no longer open when swarmd came back");
        let calls = open.join().expect("a summary");
        assert_eq!((calls.failed, calls.hosts.len()), (0, 1), "the connection was cut: {calls:?}");
    });
    // It is in control of what it found.
    lab.cluster.ctl("service scale -q web=4");
    let ids = |tasks: Vec<Task>| tasks.into_iter().map(|task| task.id).collect::<BTreeSet<_>>();
    assert!(ids(lab.web()).is_superset(&ids(web)), "a task was replaced");
    lab.cluster.ctl("service scale -q web=3");
    lab.balances(&node, &lab.web()).unwrap();
    assert!(whoami_processes(&node).len() <= containers.len() + 1);
}

/// Process ids of the containers of the sample image on a node.
fn whoami_processes(node: &Node) -> BTreeSet<i32> {
    let is_whoami = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with("/whoami\0") || line == "/whoami")
    };
    node.processes().expect("processes of a host").into_iter().filter(is_whoami).collect()
}

fn a_dead_node_leaves_names_and_balancers(lab: &Lab) {
    let victim = lab.cluster.node(3);
    let (there, elsewhere): (Vec<Task>, Vec<Task>) =
        lab.web().into_iter().partition(|task| task.node == victim.name());
    let there = addresses(&there);
    victim.kill().expect("power cut");
    for task in &elsewhere {
        let node = lab.node_of(task);
        eventually(&format!("{} without the dead node's tasks", node.name()), || {
            let named = named(&node, task, "")?;
            let balanced: BTreeSet<Ipv4Addr> = lab.ipvs_web(&node).into_keys().collect();
            let used = |set: &BTreeSet<Ipv4Addr>| !set.is_disjoint(&there);
            if used(&balanced) || used(&named) {
                Err(format!("{named:?} {balanced:?}"))
            } else {
                Ok(())
            }
        });
    }
    let tasks = eventually("replacements", || {
        let tasks = lab.web();
        let well = tasks.iter().filter(|task| task.node != victim.name()).count();
        if well == 3 && tasks.len() == 3 { Ok(tasks) } else { Err(format!("{tasks:?}")) }
    });
    let client = lab.client.iter().find(|task| task.node != victim.name()).expect("a client");
    eventually("balancing over the replacements", || lab.balances(&lab.node_of(client), &tasks));
    assert_ten_each(&lab.call(client, &lab.thirty_calls()[0]), &tasks);
}
