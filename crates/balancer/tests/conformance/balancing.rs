//! Where connections go.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use swarm_balancer::Backend;

use super::{
    Subject,
    lab::{ENDPOINT_A, ENDPOINT_B, GATEWAY, Segment, TwoNodes, VIP, service},
    talk::{Flow, Server, ask, tcp_servers},
};

/// Far more than a refusal needs, far less than a client's own time-out.
const AT_ONCE: Duration = Duration::from_secs(1);

type Tally = BTreeMap<Ipv4Addr, usize>;

fn tally(answers: impl IntoIterator<Item = Ipv4Addr>) -> Tally {
    let mut tally = Tally::new();
    for from in answers {
        *tally.entry(from).or_default() += 1;
    }
    tally
}

pub(crate) async fn round_robin_is_exact(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b, c] = segment.tasks([10, 11, 12, 13]);
    let _servers = tcp_servers(&[&a, &b, &c], 80);
    let _udp = [&a, &b, &c].map(|task| Server::udp(task, 53));
    (subject.start)()
        .program(&segment.web(vec![a.backend(), b.backend(), c.backend()]))
        .await
        .unwrap();

    let fair = Tally::from([(a.addr, 10), (b.addr, 10), (c.addr, 10)]);
    assert_eq!(tally((0..30).map(|_| ask(&client, VIP, 80).unwrap().from)), fair);
    // All open at once: a source port used twice would be the same flow, which keeps its backend.
    let flows: Vec<Flow> = (0..30).map(|_| Flow::open(&client, VIP, 53)).collect();
    assert_eq!(tally(flows.iter().map(|flow| flow.ask().unwrap().from)), fair);
}

pub(crate) async fn weights_are_shares(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _servers = tcp_servers(&[&a, &b], 80);
    let heavy = Backend { weight: 20, ..a.backend() };
    let light = Backend { weight: 10, ..b.backend() };
    (subject.start)().program(&segment.web(vec![heavy, light])).await.unwrap();
    assert_eq!(
        tally((0..12).map(|_| ask(&client, VIP, 80).unwrap().from)),
        Tally::from([(a.addr, 8), (b.addr, 4)])
    );
}

pub(crate) async fn the_client_address_is_kept(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a] = segment.tasks([10, 11]);
    let _servers = (Server::tcp(&a, 80), Server::udp(&a, 80));
    (subject.start)().program(&segment.web(vec![a.backend()])).await.unwrap();
    assert_eq!(ask(&client, VIP, 80).unwrap().seen, client.addr);
    assert_eq!(Flow::open(&client, VIP, 80).ask().unwrap().seen, client.addr);
    assert_eq!(ask(&client, a.addr, 80).unwrap().seen, client.addr, "not through the VIP");
}

pub(crate) async fn a_backend_reaches_itself_and_the_others(subject: &Subject) {
    let segment = Segment::new("n");
    let [a, b] = segment.tasks([11, 12]);
    let _servers = tcp_servers(&[&a, &b], 80);
    let _udp = [&a, &b].map(|task| Server::udp(task, 53));
    (subject.start)().program(&segment.web(vec![a.backend(), b.backend()])).await.unwrap();

    let tcp: Vec<_> = (0..6).map(|_| ask(&a, VIP, 80).unwrap()).collect();
    let udp: Vec<_> = (0..6).map(|_| Flow::open(&a, VIP, 53).ask().unwrap()).collect();
    for answers in [tcp, udp] {
        assert_eq!(
            tally(answers.iter().map(|answer| answer.from)),
            Tally::from([(a.addr, 3), (b.addr, 3)])
        );
        for answer in answers {
            let expected = if answer.from == a.addr { GATEWAY } else { a.addr };
            assert_eq!(answer.seen, expected, "{answer:?}");
        }
    }
}

pub(crate) async fn any_port_of_tcp_and_udp(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a] = segment.tasks([10, 11]);
    (subject.start)().program(&segment.web(vec![a.backend()])).await.unwrap();
    for port in [1, 53, 6379, 30_000, 65_535] {
        let _servers = (Server::tcp(&a, port), Server::udp(&a, port));
        assert_eq!(ask(&client, VIP, port).unwrap().from, a.addr, "TCP {port}");
        assert_eq!(Flow::open(&client, VIP, port).ask().unwrap().from, a.addr, "UDP {port}");
    }
}

pub(crate) async fn the_vip_answers_echo(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a] = segment.tasks([10, 11]);
    let balancer = (subject.start)();
    for backends in [vec![a.backend()], vec![]] {
        balancer.program(&segment.web(backends)).await.unwrap();
        let printed =
            client.ns.command(&["busybox", "ping", "-c", "1", "-W", "5", &VIP.to_string()]);
        assert!(printed.contains("1 packets received"), "{printed}");
    }
}

pub(crate) async fn no_backend_is_refused_at_once(subject: &Subject) {
    let segment = Segment::new("n");
    let client = segment.task(10);
    (subject.start)().program(&segment.web(vec![])).await.unwrap();
    let started = Instant::now();
    let tcp = ask(&client, VIP, 80).expect_err("no backend answers TCP");
    let udp = Flow::open(&client, VIP, 80).ask().expect_err("no backend answers UDP");
    assert_eq!(
        (tcp.kind(), udp.kind()),
        (io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionRefused)
    );
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}

pub(crate) async fn two_nodes_over_vxlan(subject: &Subject) {
    let nodes = TwoNodes::new();
    let [client, a] = nodes.a.tasks([10, 11]);
    let [b, c] = nodes.b.tasks([12, 13]);
    [&b, &c].iter().for_each(|task| nodes.a.remote(task, ENDPOINT_B));
    [&client, &a].iter().for_each(|task| nodes.b.remote(task, ENDPOINT_A));
    client.wait_for(c.addr);
    let _servers = tcp_servers(&[&a, &b, &c], 80);

    let far = |backend: Backend| Backend { local: false, ..backend };
    let balancers = [(subject.start)(), (subject.start)()];
    let seen_from_a = vec![a.backend(), far(b.backend()), far(c.backend())];
    let seen_from_b = vec![far(a.backend()), b.backend(), c.backend()];
    balancers[0].program(&nodes.a.web(seen_from_a)).await.unwrap();
    balancers[1].program(&nodes.b.web(seen_from_b)).await.unwrap();

    let fair = Tally::from([(a.addr, 10), (b.addr, 10), (c.addr, 10)]);
    for caller in [&client, &a, &c] {
        let answers: Vec<_> = (0..30).map(|_| ask(caller, VIP, 80).unwrap()).collect();
        assert_eq!(tally(answers.iter().map(|answer| answer.from)), fair);
        for answer in answers {
            let expected = if answer.from == caller.addr { GATEWAY } else { caller.addr };
            assert_eq!(answer.seen, expected, "{answer:?}");
        }
    }
}

pub(crate) async fn networks_do_not_disturb_each_other(subject: &Subject) {
    let (one, two) = (Segment::new("one"), Segment::new("two"));
    // The same addresses on purpose.
    let [client_one, a_one] = one.tasks([10, 11]);
    let [client_two, a_two, b_two] = two.tasks([10, 11, 12]);
    let _servers = tcp_servers(&[&a_one, &a_two, &b_two], 80);
    let balancer = (subject.start)();
    balancer.program(&one.web(vec![a_one.backend()])).await.unwrap();
    let other_vip = Ipv4Addr::new(10, 0, 1, 3);
    two.vip(other_vip);
    let services =
        vec![service(0, VIP, vec![b_two.backend()]), service(1, other_vip, vec![a_two.backend()])];
    balancer.program(&two.network(services)).await.unwrap();

    assert_eq!(ask(&client_one, VIP, 80).unwrap().from, a_one.addr);
    assert_eq!(ask(&client_two, VIP, 80).unwrap().from, b_two.addr);
    assert_eq!(ask(&client_two, other_vip, 80).unwrap().from, a_two.addr);

    balancer.remove(&two.web(vec![]).id, &two.ns.path()).await.unwrap();
    assert_eq!(ask(&client_one, VIP, 80).unwrap().from, a_one.addr);
    assert!(ask(&client_two, VIP, 80).is_err());
}
