//! What happens when the kernel and the balancer's memory part ways.

use std::path::Path;

use swarm_balancer::{Error, Repaired};

use super::{
    Subject,
    lab::{Segment, VIP},
    talk::{Call, Flow, Server, ask, tcp_servers},
};

pub(crate) async fn a_wrecked_state_is_repaired_by_the_audit(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a] = segment.tasks([10, 11]);
    let _server = Server::tcp(&a, 80);
    let network = segment.web(vec![a.backend()]);
    let balancer = (subject.start)();
    balancer.program(&network).await.unwrap();
    let held = (subject.held)(&segment.ns);
    (subject.wreck)(&segment.ns);
    assert!(ask(&client, VIP, 80).is_err(), "wrecked indeed");

    let repaired = balancer.audit(&network).await.unwrap();
    assert!(repaired.drift.is_some() && repaired.changes.rebuilt, "{repaired:?}");
    assert_eq!((subject.held)(&segment.ns), held);
    assert_eq!(ask(&client, VIP, 80).unwrap().from, a.addr);
    assert_eq!(balancer.audit(&network).await.unwrap(), Repaired::default());
}

pub(crate) async fn a_wrecked_state_is_repaired_by_the_next_change(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _servers = tcp_servers(&[&a, &b], 80);
    let balancer = (subject.start)();
    balancer.program(&segment.web(vec![a.backend()])).await.unwrap();
    (subject.wreck)(&segment.ns);
    assert!(balancer.program(&segment.web(vec![b.backend()])).await.unwrap().rebuilt);
    assert_eq!(ask(&client, VIP, 80).unwrap().from, b.addr);
}

pub(crate) async fn a_quiet_audit_changes_nothing(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _servers = (Server::tcp(&a, 80), Server::udp(&a, 53));
    let network = segment.web(vec![a.backend()]);
    let balancer = (subject.start)();
    assert_eq!(balancer.audit(&network).await.unwrap().drift, None, "never programmed is no drift");
    balancer.program(&segment.web(vec![a.backend(), b.draining()])).await.unwrap();
    balancer.program(&network).await.unwrap();
    let (mut call, _) = Call::open(&client, VIP, 80).unwrap();
    let flow = Flow::open(&client, VIP, 53);
    flow.ask().unwrap();
    for _ in 0..3 {
        assert_eq!(balancer.audit(&network).await.unwrap(), Repaired::default());
    }
    assert_eq!(call.talk().unwrap().from, a.addr);
    assert_eq!(flow.ask().unwrap().from, a.addr);
}

pub(crate) async fn a_restarted_daemon_keeps_connections(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _servers = tcp_servers(&[&a, &b], 80);
    let network = segment.web(vec![a.backend(), b.backend()]);
    (subject.start)().program(&network).await.unwrap();
    let held = (subject.held)(&segment.ns);
    let (mut call, before) = Call::open(&client, VIP, 80).unwrap();
    ask(&client, VIP, 80).expect("balanced without a daemon");
    (subject.start)().program(&network).await.unwrap();
    assert_eq!(call.talk().unwrap().from, before.from);
    assert_eq!((subject.held)(&segment.ns), held);
}

pub(crate) async fn a_restarted_daemon_ends_what_ended_meanwhile(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a, b] = segment.tasks([10, 11, 12]);
    let _udp = [&a, &b].map(|task| Server::udp(task, 53));
    (subject.start)().program(&segment.web(vec![a.backend()])).await.unwrap();
    let flow = Flow::open(&client, VIP, 53);
    assert_eq!(flow.ask().unwrap().from, a.addr);
    (subject.start)().program(&segment.web(vec![b.backend()])).await.unwrap();
    assert_eq!(flow.ask().unwrap().from, b.addr);
}

pub(crate) async fn a_new_namespace_at_the_same_path_is_programmed(subject: &Subject) {
    let (old, new) = (Segment::new("old"), Segment::new("new"));
    let [client, a] = new.tasks([10, 11]);
    let _server = Server::tcp(&a, 80);
    let balancer = (subject.start)();
    let mut network = old.web(vec![a.backend()]);
    balancer.program(&network).await.unwrap();
    network.netns = new.ns.path();
    assert!(balancer.program(&network).await.unwrap().rebuilt);
    assert_eq!(ask(&client, VIP, 80).unwrap().from, a.addr);
}

pub(crate) async fn removal_leaves_nothing(subject: &Subject) {
    let segment = Segment::new("n");
    let [client, a] = segment.tasks([10, 11]);
    let _udp = Server::udp(&a, 53);
    let network = segment.web(vec![a.backend()]);
    let balancer = (subject.start)();
    balancer.program(&network).await.unwrap();
    let flow = Flow::open(&client, VIP, 53);
    flow.ask().unwrap();
    assert_ne!((subject.held)(&segment.ns), "");

    balancer.remove(&network.id, &network.netns).await.unwrap();
    assert_eq!((subject.held)(&segment.ns), "");
    flow.ask().expect_err("no flow is left either");
    balancer.remove(&network.id, &network.netns).await.expect("removing twice is fine");
    assert!(balancer.program(&network).await.unwrap().rebuilt, "and it can come back");
    assert_eq!(flow.ask().unwrap().from, a.addr);
}

pub(crate) async fn a_missing_namespace_is_an_error_but_for_removal(subject: &Subject) {
    let segment = Segment::new("n");
    let mut network = segment.web(vec![]);
    network.netns = "/run/netns/balancer-no-such-namespace".into();
    let balancer = (subject.start)();
    let error = balancer.program(&network).await.unwrap_err();
    assert!(matches!(&error, Error::Namespace(missing) if missing.is_missing()), "{error}");
    balancer.remove(&network.id, Path::new(&network.netns)).await.unwrap();
}
