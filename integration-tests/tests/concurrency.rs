//! Many clients at once: nothing is handed out twice, and what was acknowledged is there, also when the leader dies.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde_json::Value;
use swarm_integration_tests::{Client, Cluster, eventually};
use swarm_playground::Node;

const CLIENTS: usize = 20;
const SERVICES_EACH: usize = 10;
const NETWORKS: usize = 5;

/// What clients were told: ids by name.
type Acknowledged = Mutex<BTreeMap<String, String>>;

/// Every tenth service has a task.
fn create_line(number: usize) -> String {
    let replicas = usize::from(number.is_multiple_of(10));
    format!(
        "service create -d --name s{number} --network n{} --replicas {replicas} whoami",
        number % NETWORKS
    )
}

/// Tries the nodes in turn until one acknowledges, or says that the name is taken by a try before that was not
/// acknowledged.
fn create(nodes: &[Node], first: usize, name: &str, line: &str, acknowledged: &Acknowledged) {
    eventually(&format!("swarmctl {line}"), || {
        let mut said = String::new();
        for node in nodes.iter().cycle().skip(first).take(nodes.len()) {
            let output = match node.swarmctl_output(line.split_whitespace()) {
                Ok(output) => output,
                Err(error) => {
                    said += &error.to_string();
                    continue;
                }
            };
            if output.status.success() {
                let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                let mut all = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(name.to_owned(), id);
                return Ok(());
            }
            said += &String::from_utf8_lossy(&output.stderr);
        }
        if said.contains("already exists") { Ok(()) } else { Err(said) }
    });
}

/// All networks and services by clients at once; `at_half` is called when half the services are acknowledged.
fn create_all(nodes: &[Node], at_half: impl FnOnce() + Send) -> (Acknowledged, Acknowledged) {
    let (networks, services) = (Acknowledged::default(), Acknowledged::default());
    thread::scope(|scope| {
        for number in 0..NETWORKS {
            let networks = &networks;
            scope.spawn(move || {
                let name = format!("n{number}");
                create(nodes, number, &name, &format!("network create {name}"), networks);
            });
        }
    });
    let done = AtomicUsize::new(0);
    let at_half = Mutex::new(Some(at_half));
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (services, done, at_half) = (&services, &done, &at_half);
            scope.spawn(move || {
                for number in (0..SERVICES_EACH).map(|n| client * SERVICES_EACH + n) {
                    create(nodes, client, &format!("s{number}"), &create_line(number), services);
                    if done.fetch_add(1, Ordering::SeqCst) == CLIENTS * SERVICES_EACH / 2 {
                        let call = at_half.lock().unwrap_or_else(PoisonError::into_inner).take();
                        call.into_iter().for_each(|call| call());
                    }
                }
            });
        }
    });
    (networks, services)
}

/// That everything acknowledged is there under its id, everything wanted is there once, and no VNI, subnet, VIP or task
/// address twice.
fn assert_sound(asked: &Client, networks: Acknowledged, services: Acknowledged) {
    let found = ids_by_name(&asked.list("service ls --no-trunc"));
    assert_eq!(found.len(), CLIENTS * SERVICES_EACH);
    for (name, id) in services.into_inner().expect("no client panicked") {
        assert_eq!(found.get(&name), Some(&id), "{name} was acknowledged");
    }
    let found = ids_by_name(&asked.list("network ls --no-trunc --filter driver=overlay"));
    assert_eq!(found.len(), NETWORKS);
    for (name, id) in networks.into_inner().expect("no client panicked") {
        assert_eq!(found.get(&name), Some(&id), "{name} was acknowledged");
    }

    let names: Vec<_> = (0..NETWORKS).map(|n| format!("n{n}")).collect();
    let documents = asked.inspect_all(&format!("network inspect {}", names.join(" ")));
    let distinct = |pointer: &str| {
        let values = documents.iter().map(|d| d.pointer(pointer).expect("a field").to_string());
        assert_eq!(values.collect::<BTreeSet<_>>().len(), NETWORKS, "{pointer}: {documents:?}");
    };
    distinct("/Options/com.docker.network.driver.overlay.vxlanid_list");
    distinct("/IPAM/Config/0/Subnet");

    let mut used: BTreeMap<Ipv4Addr, String> = BTreeMap::new();
    let mut take = |address: Ipv4Addr, user: String| {
        if let Some(other) = used.insert(address, user.clone()) {
            panic!("{address} is of {other} and of {user}");
        }
    };
    let names: Vec<_> = (0..CLIENTS * SERVICES_EACH).map(|n| format!("s{n}")).collect();
    for document in asked.inspect_all(&format!("service inspect {}", names.join(" "))) {
        let vips = document["Endpoint"]["VirtualIPs"].as_array().expect("VIPs");
        assert_eq!(vips.len(), 1, "{document}");
        take(address(&vips[0]["Addr"]), format!("VIP of {}", document["Spec"]["Name"]));
    }
    let ids = asked.ctl("task ls -q --no-trunc");
    let ids: Vec<_> = ids.split_whitespace().collect();
    for task in asked.inspect_all(&format!("task inspect {}", ids.join(" "))) {
        for attachment in task["NetworksAttachments"].as_array().into_iter().flatten() {
            take(address(&attachment["Addresses"][0]), format!("task {}", task["ID"]));
        }
    }
}

fn ids_by_name(list: &[Value]) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list.iter().map(|item| (text(&item["Name"]), text(&item["ID"]))).collect()
}

fn address(value: &Value) -> Ipv4Addr {
    let text = value.as_str().and_then(|text| text.split('/').next());
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no address"))
}

/// One task of every tenth service runs.
fn wait_tasks(asked: &Client) {
    eventually("all tasks running", || {
        let output = asked.ctl_output("task ls --format json --filter desired-state=running");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let running = text.lines().filter(|line| line.contains("\"CurrentState\":\"Running"));
        let (running, wanted) = (running.count(), CLIENTS * SERVICES_EACH / 10);
        if running == wanted { Ok(()) } else { Err(format!("{running} of {wanted} run: {text}")) }
    });
}

#[test]
fn nothing_is_handed_out_twice() {
    let cluster = Cluster::up("many");
    let (networks, services) = create_all(&cluster.nodes(), || ());
    assert_eq!(services.lock().expect("no client panicked").len(), CLIENTS * SERVICES_EACH);
    wait_tasks(&cluster);
    assert_sound(&cluster, networks, services);
}

#[test]
fn what_was_acknowledged_outlives_the_leader() {
    let cluster = Cluster::up("manykill");
    let nodes = cluster.nodes();
    let leaders = cluster.list("node ls");
    let leader = leaders.iter().find(|node| node["ManagerStatus"] == "Leader").expect("a leader");
    let is_leader = |node: &&Node| leader["Hostname"] == node.name();
    let victim = nodes.iter().find(is_leader).expect("the leader's host").clone();
    let survivor = nodes.iter().find(|node| !is_leader(node)).expect("another manager").clone();
    let (networks, services) = create_all(&nodes, || victim.kill().expect("power cut"));
    let acknowledged = services.lock().expect("no client panicked").len();
    eprintln!("{acknowledged} of {} creates were acknowledged", CLIENTS * SERVICES_EACH);
    let asked = Client::of(survivor);
    wait_tasks(&asked);
    assert_sound(&asked, networks, services);
    victim.start().expect("boot");
    let back = Client::of(victim);
    eventually("the same on the manager that came back", || {
        let output = back.ctl_output("service ls -q");
        let count = String::from_utf8_lossy(&output.stdout).lines().count();
        if output.status.success() && count == CLIENTS * SERVICES_EACH {
            Ok(())
        } else {
            Err(format!("{count} services: {}", String::from_utf8_lossy(&output.stderr)))
        }
    });
}
