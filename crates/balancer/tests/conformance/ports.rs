//! Services that name their ports.

use std::{
    io,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use swarm_balancer::{
    Backend, Network, Ports,
    Protocol::{Tcp, Udp},
};

use super::{
    Subject,
    lab::{GATEWAY, Segment, Task, VIP, only},
    talk::{Call, Flow, Server, ask, tcp_servers},
};

/// Far more than a refusal needs, far less than a client's own time-out.
const AT_ONCE: Duration = Duration::from_secs(1);

/// One service at the VIP.
fn web(segment: &Segment, ports: &Ports, backends: Vec<Backend>) -> Network {
    let mut network = segment.web(backends);
    network.services[0].ports = ports.clone();
    network
}

/// Two ports of TCP and one of UDP, all led to others.
fn named() -> Ports {
    only(&[(Tcp, 80, 8080), (Tcp, 443, 8443), (Udp, 53, 5353)])
}

/// Servers of a task on all that [`named`] leads to, and on ports that are not named.
fn servers(task: &Task) -> Vec<Server> {
    let mut servers: Vec<_> = [8080, 8443, 53].map(|port| Server::tcp(task, port)).into();
    servers.extend([5353, 80].map(|port| Server::udp(task, port)));
    servers
}

fn assert_refused(what: &str, call: impl FnOnce() -> Option<io::ErrorKind>) {
    let started = Instant::now();
    assert_eq!(call(), Some(io::ErrorKind::ConnectionRefused), "{what}");
    assert!(started.elapsed() < AT_ONCE, "{what}: {:?}", started.elapsed());
}

/// What [`named`] does not name, though backends listen there. Few are of UDP: the kernel sends a client six refusals in
/// a row, then one each second.
fn assert_others_refused(client: &Task) {
    for port in [8080, 53, 1, 65_535] {
        let tcp = || ask(client, VIP, port).err().map(|error| error.kind());
        assert_refused(&format!("TCP {port}"), tcp);
    }
    for port in [80, 5353] {
        let udp = || Flow::open(client, VIP, port).ask().err().map(|error| error.kind());
        assert_refused(&format!("UDP {port}"), udp);
    }
}

/// Who answers calls to a port of the VIP, from which port.
fn answers(client: &Task, port: u16, calls: usize) -> Vec<(Ipv4Addr, u16)> {
    let answer = |_| ask(client, VIP, port).expect("it is balanced");
    let mut answers: Vec<_> =
        (0..calls).map(answer).map(|answer| (answer.from, answer.port)).collect();
    answers.sort_unstable();
    answers
}

pub(crate) async fn named_ports_are_balanced_and_the_others_refused(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _servers = [&a, &b].map(servers);
    let network = web(&segment, &named(), vec![a.backend(), b.backend()]);
    (subject.start)().program(&network).await.unwrap();

    for (port, target) in [(80, 8080), (443, 8443)] {
        let fair = [(a.addr, target), (a.addr, target), (b.addr, target), (b.addr, target)];
        assert_eq!(answers(&client, port, 4), fair, "in turn");
    }
    let flows = [(); 2].map(|()| Flow::open(&client, VIP, 53));
    let mut by_udp = flows.map(|flow| flow.ask().map(|answer| (answer.from, answer.port)).unwrap());
    by_udp.sort_unstable();
    assert_eq!(by_udp, [(a.addr, 5353), (b.addr, 5353)]);
    assert_others_refused(&client);

    assert_eq!(ask(&client, VIP, 80).unwrap().seen, client.addr);
    for _ in 0..2 {
        let own = ask(&a, VIP, 80).unwrap();
        assert_eq!(own.seen, if own.from == a.addr { GATEWAY } else { a.addr }, "{own:?}");
    }
    let printed = client.ns.command(&["busybox", "ping", "-c", "1", "-W", "5", &VIP.to_string()]);
    assert!(printed.contains("1 packets received"), "{printed}");
}

pub(crate) async fn a_draining_backend_keeps_its_named_ports(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _servers = [&a, &b].map(servers);
    let balancer = (subject.start)();
    balancer.program(&web(&segment, &named(), vec![a.backend()])).await.unwrap();
    let mut calls = [80, 443].map(|port| Call::open(&client, VIP, port).unwrap().0);
    let flow = Flow::open(&client, VIP, 53);
    flow.ask().unwrap();

    let draining = web(&segment, &named(), vec![a.draining(), b.backend()]);
    assert!(!balancer.program(&draining).await.unwrap().rebuilt);
    assert_eq!(answers(&client, 80, 4), [(b.addr, 8080); 4], "new connections");
    assert_eq!(answers(&client, 443, 4), [(b.addr, 8443); 4], "new connections");
    assert_eq!(Flow::open(&client, VIP, 53).ask().unwrap().from, b.addr, "a new flow");
    assert_others_refused(&client);
    let mut talk = || calls.each_mut().map(|call| call.talk().map(|a| (a.from, a.port)).unwrap());
    assert_eq!(talk(), [(a.addr, 8080), (a.addr, 8443)], "the established connections");
    assert_eq!(flow.ask().unwrap().from, a.addr, "the established flow");

    balancer.program(&web(&segment, &named(), vec![a.draining()])).await.unwrap();
    for port in [80, 443] {
        let tcp = || ask(&client, VIP, port).err().map(|error| error.kind());
        assert_refused("only a draining backend is left", tcp);
    }
    assert_others_refused(&client);
    assert_eq!(talk(), [(a.addr, 8080), (a.addr, 8443)], "the established connections");
}

pub(crate) async fn named_ports_change_one_by_one(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a] = segment.tasks([10, 11]);
    let _servers = servers(&a);
    let balancer = (subject.start)();
    let state = |ports: &[_]| web(&segment, &only(ports), vec![a.backend()]);
    balancer.program(&state(&[(Tcp, 80, 8080)])).await.unwrap();
    let (mut kept, _) = Call::open(&client, VIP, 80).unwrap();
    let early = Flow::open(&client, VIP, 53);
    early.ask().expect_err("not named yet");

    let more =
        balancer.program(&state(&[(Tcp, 80, 8080), (Tcp, 443, 8443), (Udp, 53, 5353)])).await;
    assert!(!more.unwrap().rebuilt);
    let (mut moved, _) = Call::open(&client, VIP, 443).unwrap();
    assert_eq!(early.ask().unwrap().port, 5353, "a flow older than its port");

    let other = balancer.program(&state(&[(Tcp, 80, 8080), (Tcp, 443, 8080)])).await.unwrap();
    assert!(!other.rebuilt && other.connections >= 2, "{other:?}");
    moved.assert_ended("its port leads elsewhere");
    early.ask().expect_err("no longer named");
    assert_eq!(answers(&client, 443, 1), [(a.addr, 8080)]);
    assert_eq!(kept.talk().unwrap().port, 8080, "what did not change");
}

pub(crate) async fn a_port_that_is_no_longer_named_ends_its_connections(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _servers = [&a, &b].map(servers);
    let balancer = (subject.start)();
    balancer.program(&web(&segment, &named(), vec![a.backend()])).await.unwrap();
    let [mut kept, mut lost] = [80, 443].map(|port| Call::open(&client, VIP, port).unwrap().0);
    let draining = vec![a.draining(), b.backend()];
    balancer.program(&web(&segment, &named(), draining.clone())).await.unwrap();
    assert_eq!(lost.talk().unwrap().from, a.addr, "a draining backend");

    let fewer = web(&segment, &only(&[(Tcp, 80, 8080)]), draining);
    let changes = balancer.program(&fewer).await.unwrap();
    assert!(!changes.rebuilt && changes.connections >= 1, "{changes:?}");
    lost.assert_ended("no longer named");
    assert_eq!(kept.talk().unwrap().from, a.addr, "what did not change");
}

pub(crate) async fn a_service_comes_to_name_its_ports(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a] = segment.tasks([10, 11]);
    let (_servers, _more) = (servers(&a), tcp_servers(&[&a], 80));
    let balancer = (subject.start)();
    let held = |ports: &Ports| (web(&segment, ports, vec![a.backend()]), ports.clone());
    for (network, ports) in [held(&Ports::All), held(&named()), held(&Ports::All)] {
        balancer.program(&network).await.unwrap();
        let all = ports == Ports::All;
        assert_eq!(answers(&client, 80, 1), [(a.addr, if all { 80 } else { 8080 })]);
        assert_eq!(ask(&client, VIP, 8080).is_ok(), all, "{ports:?}");
        assert_eq!(balancer.audit(&network).await.unwrap().drift, None);
    }
}
