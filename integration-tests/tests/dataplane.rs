//! The data plane with three nodes and a task of each service on each: names, balancing, addresses, sizes.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use swarm_integration_tests::{Capture, Cluster, Task, checks, kernel};

#[test]
fn dataplane() {
    let cluster = Cluster::up("dataplane");
    cluster.create_network("", "net");
    cluster.create_service("client", "--network net --replicas 3");
    cluster.create_service("web", "--network net --replicas 3");
    checks!(
        &cluster,
        tasks_are_spread_one_on_each_node,
        names_mean_the_same_on_every_node,
        the_vip_balances_evenly_and_keeps_the_clients_address,
        a_backend_is_served_by_all_backends,
        vip_and_tasks_answer_pings,
        any_port_works_over_tcp_and_udp,
        a_megabyte_each_way_arrives_intact,
        on_the_underlay_only_vxlan_carries_it,
        inspect_shows_peers_services_and_tasks,
        packets_are_as_large_as_the_underlay_allows,
        an_mtu_option_is_respected,
    );
}

fn addresses(tasks: &[Task]) -> BTreeSet<Ipv4Addr> {
    tasks.iter().map(Task::address).collect()
}

fn tasks_are_spread_one_on_each_node(c: &Cluster) {
    for service in ["client", "web"] {
        let nodes: BTreeSet<String> = c.tasks(service).into_iter().map(|task| task.node).collect();
        assert_eq!(nodes, c.nodes().iter().map(|node| node.name().to_owned()).collect());
    }
}

fn names_mean_the_same_on_every_node(c: &Cluster) {
    let web = c.tasks("web");
    for client in c.tasks("client") {
        assert_eq!(c.resolve(&client, "web").addresses(), BTreeSet::from([c.vip("web")]));
        assert_eq!(c.resolve(&client, "tasks.web").addresses(), addresses(&web));
    }
}

fn the_vip_balances_evenly_and_keeps_the_clients_address(c: &Cluster) {
    let web = c.tasks("web");
    for client in c.tasks("client") {
        c.call(&client, "http://web/", 30).assert_balanced(&web, client.address());
        c.call_udp(&client, "web:80", 30).assert_balanced(&web, client.address());
    }
}

/// Also by itself, which sees the gateway's address then: a packet from its own address would never leave it.
fn a_backend_is_served_by_all_backends(c: &Cluster) {
    let web = c.tasks("web");
    let gateway = c.inspect("network inspect net")["IPAM"]["Config"][0]["Gateway"].clone();
    for backend in &web {
        for calls in [c.call(backend, "http://web/", 30), c.call_udp(backend, "web:80", 30)] {
            calls.assert_shared(&web);
            let own = calls.hosts[backend.hostname()];
            assert_eq!(calls.clients[gateway.as_str().unwrap()], own, "{calls:?}");
            assert_eq!(calls.clients[&backend.address().to_string()], 30 - own, "{calls:?}");
        }
    }
}

fn vip_and_tasks_answer_pings(c: &Cluster) {
    let web = c.tasks("web");
    for client in c.tasks("client") {
        assert!(c.pings(&client, "web"), "{} cannot ping the VIP", client.node);
        for task in &web {
            let address = task.address().to_string();
            assert!(c.pings(&client, &address), "{} cannot ping {}", client.node, task.node);
        }
    }
}

/// But 53 on all addresses of a task, as the swarm's DNS has it on 127.0.0.11.
fn any_port_works_over_tcp_and_udp(c: &Cluster) {
    let client = &c.tasks("client")[0];
    for port in [1, 5353, 4789, 65535] {
        let name = format!("port{port}");
        let flags = format!("service create -q --name {name} --network net --replicas 3 whoami");
        c.ctl(&format!("{flags} serve --port {port}"));
        let tasks = c.tasks(&name);
        let own = client.address();
        c.call(client, &format!("http://{name}:{port}/"), 6).assert_balanced(&tasks, own);
        c.call_udp(client, &format!("{name}:{port}"), 6).assert_balanced(&tasks, own);
    }
}

fn a_megabyte_each_way_arrives_intact(c: &Cluster) {
    let web = c.tasks("web");
    for client in c.tasks("client") {
        let direct = web.iter().map(|task| task.address().to_string());
        for host in direct.chain(["web".to_owned()]) {
            let output = c.exec(&client, &format!("/whoami echo http://{host}/ 1000000"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{} to {host}: {said}", client.node);
        }
    }
}

fn on_the_underlay_only_vxlan_carries_it(c: &Cluster) {
    let client = &c.tasks("client")[0];
    let web = c.tasks("web");
    let other = web.iter().find(|task| task.node != client.node).expect("a task on another node");
    let node = c.nodes().into_iter().find(|node| node.name() == client.node).unwrap();
    let peer = c.nodes().into_iter().find(|node| node.name() == other.node).unwrap();
    let capture = Capture::start(&node);
    let host = other.address();
    let output = c.exec(client, &format!("/whoami echo http://{host}/ 1000000"));
    assert!(output.status.success(), "{output:?}");
    c.call(client, "http://web/", 9).assert_balanced(&web, client.address());
    c.call_udp(client, "web:80", 9).assert_balanced(&web, client.address());
    assert!(c.pings(client, &host.to_string()));
    capture.flush(&peer);

    let pair = format!("host {} and host {}", node.address(), peer.address());
    let carried = capture.packets(&format!("udp dst port 4789 and {pair}"));
    let sent: usize = carried.iter().filter_map(|packet| bytes_to(packet, host)).sum();
    assert!(sent > 1_000_000, "{sent} bytes to {host} in {} packets", carried.len());
    // What else there is: the swarm's own talk, ARP of the nodes, and the ping that ends the capture.
    let control = format!("tcp port 2377 or (icmp and {pair} and greater 100)");
    let other = capture
        .packets(&format!("not arp and not ip6 and not udp dst port 4789 and not ({control})"));
    assert_eq!(other, Vec::<String>::new());
    let in_clear = capture.packets("net 10.0.0.0/16 or net 172.31.0.0/16 or arp net 10.0.0.0/16");
    assert_eq!(in_clear, Vec::<String>::new());
}

/// The payload of an encapsulated packet to `host`, of `IP 10.0.1.3.40000 > 10.0.1.8.80: Flags [.], ..., length 1398`.
fn bytes_to(packet: &str, host: Ipv4Addr) -> Option<usize> {
    let (_, inner) = packet.split_once('\n').filter(|(outer, _)| outer.contains("VXLAN"))?;
    let (_, length) = inner.split_once(&format!("> {host}."))?.1.rsplit_once("length ")?;
    length.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn inspect_shows_peers_services_and_tasks(c: &Cluster) {
    let document = c.inspect("network inspect --verbose net");
    let peers: BTreeSet<(String, String)> = list(&document["Peers"])
        .iter()
        .map(|peer| (peer["Name"].as_str().unwrap().into(), peer["IP"].as_str().unwrap().into()))
        .collect();
    let nodes = c.nodes();
    assert_eq!(peers, nodes.iter().map(|n| (n.name().into(), n.address().to_string())).collect());
    for service in ["web", "client"] {
        let shown = &document["Services"][service];
        assert_eq!(shown["VIP"], json!(c.vip(service).to_string()));
        let tasks: BTreeSet<(String, String, String)> = list(&shown["Tasks"])
            .iter()
            .map(|task| {
                let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (field(&task["Name"]), field(&task["EndpointIP"]), field(&task["Info"]["Host IP"]))
            })
            .collect();
        let host = |task: &Task| nodes.iter().find(|n| n.name() == task.node).unwrap().address();
        let expected = c.tasks(service);
        let expected = expected.iter().map(|task| {
            let name = format!("{}.{}", task.name, task.id);
            (name, task.address().to_string(), host(task).to_string())
        });
        assert_eq!(tasks, expected.collect());
    }
    assert!(c.inspect("network inspect net")["Services"].is_null(), "without --verbose");
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The playground's LAN has 1500; VXLAN over IPv4 takes 50.
fn packets_are_as_large_as_the_underlay_allows(c: &Cluster) {
    assert_mtu(c, "client", "web", 1450);
}

fn an_mtu_option_is_respected(c: &Cluster) {
    c.create_network("--opt com.docker.network.driver.mtu=1200", "small");
    c.create_service("smallweb", "--network small --replicas 3");
    assert_mtu(c, "smallweb", "smallweb", 1200);
}

/// That interfaces have it, and that a packet of that size passes whole between nodes, one byte more not.
fn assert_mtu(c: &Cluster, from: &str, to: &str, mtu: usize) {
    let from = &c.tasks(from)[0];
    let node = c.nodes().into_iter().find(|node| node.name() == from.node).unwrap();
    let link = kernel::in_netns(&node, &format!("t-{}", from.id), "ip -o link show eth0");
    assert!(link.contains(&format!(" mtu {mtu} ")), "{link}");
    let to = c.tasks(to).into_iter().find(|task| task.node != from.node).unwrap().address();
    let ping = |size: usize| {
        let line = format!("/whoami ping --dont-fragment --size {size} {to}");
        c.exec(from, &line).status.success()
    };
    // IPv4 and ICMP headers have 28 bytes.
    assert!(ping(mtu - 28), "{mtu} bytes do not pass");
    assert!(!ping(mtu - 27), "{} bytes pass", mtu + 1);
}
