//! What a change does to connections, and what it costs.

use std::{
    future::Future,
    io,
    net::Ipv4Addr,
    pin::pin,
    task::{Context, Waker},
};

use swarm_balancer::Changes;

use super::{
    Subject,
    lab::{Segment, VIP, many_services, service},
    talk::{Call, Flow, Server, ask, tcp_servers},
};

pub(crate) async fn a_draining_backend_keeps_its_connections_only(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _servers = tcp_servers(&[&a, &b], 80);
    let _udp = [&a, &b].map(|task| Server::udp(task, 53));
    let balancer = (subject.start)();
    balancer.program(&segment.web(vec![a.backend()])).await.unwrap();
    let (mut call, _) = Call::open(&client, VIP, 80).unwrap();
    let flow = Flow::open(&client, VIP, 53);
    flow.ask().unwrap();

    balancer.program(&segment.web(vec![a.draining(), b.backend()])).await.unwrap();
    for _ in 0..10 {
        assert_eq!(ask(&client, VIP, 80).unwrap().from, b.addr, "a new connection");
        assert_eq!(Flow::open(&client, VIP, 53).ask().unwrap().from, b.addr, "a new flow");
    }
    assert_eq!(call.talk().unwrap().from, a.addr, "the established connection");
    assert_eq!(flow.ask().unwrap().from, a.addr, "the established flow");
}

pub(crate) async fn only_draining_backends_refuse_new_connections(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a] = segment.tasks([10, 11]);
    let _server = Server::tcp(&a, 80);
    let balancer = (subject.start)();
    balancer.program(&segment.web(vec![a.backend()])).await.unwrap();
    let (mut call, _) = Call::open(&client, VIP, 80).unwrap();
    balancer.program(&segment.web(vec![a.draining()])).await.unwrap();
    assert_eq!(ask(&client, VIP, 80).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(call.talk().unwrap().from, a.addr);
    balancer.program(&segment.web(vec![a.backend()])).await.unwrap();
    assert_eq!(ask(&client, VIP, 80).unwrap().from, a.addr, "taken back");
}

pub(crate) async fn a_removed_backend_loses_its_udp_flows(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _udp = [&a, &b].map(|task| Server::udp(task, 53));
    let balancer = (subject.start)();
    balancer.program(&segment.web(vec![a.backend()])).await.unwrap();
    let flow = Flow::open(&client, VIP, 53);
    let direct = Flow::open(&client, a.addr, 53);
    assert_eq!(flow.ask().unwrap().from, a.addr);
    assert_eq!(direct.ask().unwrap().from, a.addr);

    let changes = balancer.program(&segment.web(vec![b.backend()])).await.unwrap();
    assert_eq!(flow.ask().unwrap().from, b.addr, "the very next datagram");
    assert_eq!(direct.ask().unwrap().from, a.addr, "what does not use the VIP is left alone");
    assert_eq!(changes.connections, 1);

    balancer.program(&segment.network(vec![])).await.unwrap();
    assert!(flow.ask().is_err(), "the service is gone");
}

pub(crate) async fn a_removed_backend_loses_its_tcp_connections(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _servers = tcp_servers(&[&a, &b], 80);
    let balancer = (subject.start)();
    balancer.program(&segment.web(vec![a.draining(), b.backend()])).await.unwrap();
    let (mut kept, answer) = Call::open(&client, VIP, 80).unwrap();
    assert_eq!(answer.from, b.addr);
    balancer.program(&segment.web(vec![a.backend(), b.draining()])).await.unwrap();
    let (mut lost, answer) = Call::open(&client, VIP, 80).unwrap();
    assert_eq!(answer.from, a.addr);

    balancer.program(&segment.web(vec![b.backend()])).await.unwrap();
    lost.assert_ended("its backend is gone");
    assert_eq!(kept.talk().unwrap().from, b.addr);
}

pub(crate) async fn a_refused_flow_finds_the_first_backend(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a] = segment.tasks([10, 11]);
    let _udp = Server::udp(&a, 53);
    let balancer = (subject.start)();
    let other = service(1, Ipv4Addr::new(10, 0, 1, 3), vec![a.backend()]);
    balancer.program(&segment.network(vec![other.clone()])).await.unwrap();
    // The client is earlier than the service: the bridge's own address refuses, and its flow is tracked as such.
    let early = Flow::open(&client, VIP, 53);
    early.ask().expect_err("the service is not programmed");
    balancer.program(&segment.network(vec![other.clone(), service(0, VIP, vec![])])).await.unwrap();
    let later = Flow::open(&client, VIP, 53);
    later.ask().expect_err("no backend");

    balancer
        .program(&segment.network(vec![other, service(0, VIP, vec![a.backend()])]))
        .await
        .unwrap();
    assert_eq!(early.ask().unwrap().from, a.addr);
    assert_eq!(later.ask().unwrap().from, a.addr);
}

pub(crate) async fn a_vip_changes_hands(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _servers = tcp_servers(&[&a, &b], 80);
    let other = Ipv4Addr::new(10, 0, 1, 3);
    segment.vip(other);
    let balancer = (subject.start)();
    let states = [(VIP, other), (other, VIP)].map(|(first, second)| {
        segment.network(vec![
            service(1, first, vec![a.backend()]),
            service(2, second, vec![b.backend()]),
        ])
    });
    for (network, expected) in [(&states[0], &a), (&states[1], &b), (&states[0], &a)] {
        balancer.program(network).await.unwrap();
        assert_eq!(ask(&client, VIP, 80).unwrap().from, expected.addr);
    }
}

pub(crate) async fn programming_twice_changes_nothing(subject: &Subject) {
    let segment = Segment::new("n");
    let mut network = many_services(&segment, 5);
    let balancer = (subject.start)();
    assert!(balancer.program(&network).await.unwrap().rebuilt);
    let held = (subject.held)(&segment.ns);
    assert_eq!(balancer.program(&network).await.unwrap(), Changes::default());
    network.services.reverse();
    network.services[0].backends.reverse();
    assert_eq!(
        balancer.program(&network).await.unwrap(),
        Changes::default(),
        "the order means nothing"
    );
    assert_eq!((subject.held)(&segment.ns), held);
}

pub(crate) async fn one_change_among_a_thousand_services_is_small(subject: &Subject) {
    let segment = Segment::new("n");
    let mut network = many_services(&segment, 1000);
    let balancer = (subject.start)();
    let first = balancer.program(&network).await.unwrap();
    assert!(first.operations >= 1000, "{first:?}");

    network.services[500].backends.pop();
    let change = balancer.program(&network).await.unwrap();
    assert!((1..=3).contains(&change.operations) && !change.rebuilt, "{change:?}");
    network.services.remove(500);
    let change = balancer.program(&network).await.unwrap();
    assert!((1..=12).contains(&change.operations) && !change.rebuilt, "{change:?}");
}

pub(crate) async fn networks_are_programmed_side_by_side(subject: &Subject) {
    let segments: Vec<_> = (0..6).map(|n| Segment::new(&format!("n{n}"))).collect();
    let balancer = (subject.start)();
    let tasks: Vec<_> = segments
        .iter()
        .map(|segment| {
            let (balancer, mut network) = (balancer.clone(), many_services(segment, 20));
            tokio::spawn(async move {
                for _ in 0..10 {
                    network.services.pop();
                    balancer.program(&network).await.unwrap();
                }
                network
            })
        })
        .collect();
    for task in tasks {
        let network = task.await.unwrap();
        assert_eq!(balancer.audit(&network).await.unwrap(), swarm_balancer::Repaired::default());
    }
    let held: Vec<_> = segments.iter().map(|segment| (subject.held)(&segment.ns)).collect();
    assert!(held.iter().all(|one| *one == held[0] && !one.is_empty()), "all ended alike");
}

pub(crate) async fn a_dropped_call_is_carried_out(subject: &Subject) {
    let segment = Segment::new("n");
    let balancer = (subject.start)();
    {
        let network = many_services(&segment, 20);
        let call = pin!(balancer.program(&network));
        assert!(call.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let wanted = many_services(&segment, 3);
    let changes = balancer.program(&wanted).await.unwrap();
    assert!(!changes.rebuilt, "the dropped call was carried out and remembered: {changes:?}");
    assert_eq!(balancer.audit(&wanted).await.unwrap(), swarm_balancer::Repaired::default());
}
