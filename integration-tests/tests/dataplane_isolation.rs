//! What a task cannot reach: other networks; and what it can: the outside, unless all its networks are internal.

use std::net::{Ipv4Addr, SocketAddr};
use swarm_integration_tests::{Cluster, Task, checks, eventually, kernel, outside};

/// Of the machine beside the swarm, for documentation (RFC 5737).
const OUTSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

#[test]
fn isolation() {
    let cluster = Cluster::up("isolation");
    outside::dns(&cluster, OUTSIDE_ADDRESS);
    wait_until_ready(&cluster);
    for (network, flags) in [("a", ""), ("b", ""), ("inner", "--internal")] {
        cluster.create_network(flags, network);
    }
    for network in ["a", "b", "inner"] {
        let flags = format!("--network {network} --replicas 3");
        cluster.create_service(&format!("on{network}"), &flags);
    }
    checks!(
        &cluster,
        tasks_do_not_resolve_names_of_other_networks,
        tasks_do_not_reach_other_networks,
        tasks_do_not_reach_each_other_by_the_way_out,
        overlapping_subnets_are_refused,
        subnets_from_the_pool_are_disjoint,
        a_task_reaches_the_outside_through_its_node,
        a_task_of_internal_networks_reaches_nothing_outside,
        one_network_that_is_not_internal_opens_the_way_out,
    );
}

fn wait_until_ready(c: &Cluster) {
    eventually("readiness of all nodes", || {
        let output = c.ctl_output("node ls --format json");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let ready = text.matches("\"Status\":\"Ready\"").count();
        let leads = text.contains("Leader");
        if ready == c.nodes().len() && leads { Ok(()) } else { Err(text) }
    });
}

/// Nothing answers there, neither TCP nor UDP nor ping.
fn assert_unreachable(c: &Cluster, from: &Task, host: Ipv4Addr) {
    let line = format!("/whoami get --summary --timeout 1 http://{host}/");
    let calls = c.calls(from, &line);
    assert_eq!(calls.failed, 1, "{} on {} reaches {host}", from.name, from.node);
    let calls = c.calls(from, &format!("/whoami udp --summary --timeout 0.5 {host}:80"));
    assert_eq!(calls.failed, 1, "{} on {} reaches {host} by UDP", from.name, from.node);
    let ping = c.exec(from, &format!("/whoami ping --timeout 0.5 {host}"));
    assert!(!ping.status.success(), "{} on {} can ping {host}", from.name, from.node);
}

fn tasks_do_not_resolve_names_of_other_networks(c: &Cluster) {
    for from in c.tasks("ona") {
        let there = &c.tasks("onb")[0];
        let task_name = format!("{}.{}", there.name, there.id);
        for name in ["onb", "tasks.onb", "oninner", task_name.as_str()] {
            let answer = c.resolve(&from, name);
            // The question went outside, where every name means this.
            assert_eq!(answer.data, [OUTSIDE_ADDRESS.to_string()], "{name} on {}", from.node);
        }
        assert_eq!(c.resolve(&from, "ona").data, [c.vip("ona").to_string()]);
    }
}

fn tasks_do_not_reach_other_networks(c: &Cluster) {
    let there = c.tasks("onb");
    // What is not reached from A is there.
    let neighbour = &there[0];
    c.call(neighbour, "http://onb/", 9);
    let gateway = c.inspect("network inspect b")["IPAM"]["Config"][0]["Gateway"].clone();
    let gateway: Ipv4Addr = gateway.as_str().unwrap().parse().unwrap();
    assert!(c.pings(neighbour, &gateway.to_string()));
    for from in [&c.tasks("ona")[0], &c.tasks("oninner")[0]] {
        assert_unreachable(c, from, c.vip("onb"));
        assert_unreachable(c, from, gateway);
        for task in &there {
            assert_unreachable(c, from, task.address());
        }
    }
}

/// The bridge of a node that leads outside has tasks of all networks on it.
fn tasks_do_not_reach_each_other_by_the_way_out(c: &Cluster) {
    for from in c.tasks("ona") {
        let node = c.nodes().into_iter().find(|node| node.name() == from.node).unwrap();
        let there = c.tasks("onb").into_iter().find(|task| task.node == from.node).unwrap();
        let netns = format!("t-{}", there.id);
        let line = kernel::in_netns(&node, &netns, "ip -4 -o addr show eth1");
        let address = line.split_whitespace().nth(3).and_then(|word| word.split('/').next());
        assert_unreachable(c, &from, address.unwrap().parse().unwrap());
    }
}

/// ADR 3.
fn overlapping_subnets_are_refused(c: &Cluster) {
    c.create_network("--subnet 10.200.0.0/24", "first");
    for subnet in ["10.200.0.0/24", "10.200.0.128/25", "10.200.0.0/16"] {
        let said = c.refused(&format!("network create --subnet {subnet} second"), 1);
        assert!(said.contains("first") && said.contains(subnet), "{said}");
    }
    assert!(c.list("network ls").iter().all(|network| network["Name"] != "second"));
    c.create_network("--subnet 10.200.1.0/24", "second");
}

fn subnets_from_the_pool_are_disjoint(c: &Cluster) {
    c.create_network("--subnet 10.0.5.0/24", "chosen");
    let names: Vec<String> = (0..8).map(|number| format!("pool{number}")).collect();
    for name in &names {
        c.create_network("", name);
    }
    let subnet = |name: &str| {
        let document = c.inspect(&format!("network inspect {name}"));
        document["IPAM"]["Config"][0]["Subnet"].as_str().unwrap().to_owned()
    };
    let mut subnets: Vec<String> = names.iter().map(|name| subnet(name)).collect();
    subnets.push(subnet("chosen"));
    subnets.sort();
    subnets.dedup();
    assert_eq!(subnets.len(), names.len() + 1, "{subnets:?}");
}

fn a_task_reaches_the_outside_through_its_node(c: &Cluster) {
    let server = outside::http(c);
    for from in c.tasks("ona") {
        assert_reaches_outside(c, &from, server);
        let node = c.nodes().into_iter().find(|node| node.name() == from.node).unwrap();
        let calls = c.call(&from, &format!("http://{server}/"), 3);
        assert_eq!(calls.clients.keys().collect::<Vec<_>>(), [&node.address().to_string()]);
        assert_eq!(c.resolve(&from, "www.example.org").data, [OUTSIDE_ADDRESS.to_string()]);
    }
}

fn assert_reaches_outside(c: &Cluster, from: &Task, server: SocketAddr) {
    let calls = c.call(from, &format!("http://{server}/"), 3);
    assert_eq!(calls.failed, 0, "{} on {}: {calls:?}", from.name, from.node);
    assert_eq!(calls.hosts.get(outside::HOSTNAME), Some(&3), "{calls:?}");
}

fn a_task_of_internal_networks_reaches_nothing_outside(c: &Cluster) {
    let server = outside::http(c);
    for from in c.tasks("oninner") {
        let line = format!("/whoami get --summary --timeout 1 http://{server}/");
        assert_eq!(c.calls(&from, &line).failed, 1, "{} reaches the outside", from.node);
        for node in c.nodes() {
            assert_unreachable(c, &from, node.address());
        }
        let answer = c.resolve(&from, "www.example.org");
        assert_eq!(answer.data, Vec::<String>::new(), "names are relayed");
        // Inside all is well.
        c.call(&from, "http://oninner/", 9).assert_shared(&c.tasks("oninner"));
    }
}

fn one_network_that_is_not_internal_opens_the_way_out(c: &Cluster) {
    let server = outside::http(c);
    c.create_service("both", "--network inner --network a");
    assert_reaches_outside(c, &c.task("both"), server);
}
