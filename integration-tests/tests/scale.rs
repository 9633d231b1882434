//! Scaling: when the command returns, the result is in force; and no call is lost on the way.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use swarm_integration_tests::{Calls, Cluster, Task, calls_while, checks, kernel};

#[test]
fn scale() {
    let cluster = Cluster::up("scale");
    cluster.create_network("", "net");
    cluster.create_service("client", "--network net --replicas 3");
    checks!(
        &cluster,
        when_scale_returns_dns_and_balancers_hold_exactly_the_running_tasks,
        several_services_scale_at_once,
        no_call_fails_during_a_scale_down,
        no_call_fails_during_a_scale_up,
    );
}

fn when_scale_returns_dns_and_balancers_hold_exactly_the_running_tasks(c: &Cluster) {
    c.create_service("web", "--network net --replicas 3");
    assert_in_force(c, "web", 3);
    for replicas in [10, 1, 0, 3] {
        c.ctl(&format!("service scale -q web={replicas}"));
        assert_in_force(c, "web", replicas);
    }
}

fn several_services_scale_at_once(c: &Cluster) {
    c.create_service("a", "--network net --replicas 2");
    c.create_service("b", "--network net --replicas 0");
    c.ctl("service scale -q a=5 b=4");
    assert_in_force(c, "a", 5);
    assert_in_force(c, "b", 4);
}

/// Looks once: what is not in force now was not when the command returned.
fn assert_in_force(c: &Cluster, service: &str, replicas: usize) {
    let vip = c.vip(service);
    let network = c.network_id("net");
    let clients = c.tasks("client");
    // First what may still change if the command returned too early.
    let balancers: Vec<_> = c.nodes().iter().map(|n| kernel::balancer(n, &network)).collect();
    let name = format!("tasks.{service}");
    let named: Vec<_> = clients.iter().map(|task| c.resolve(task, &name).addresses()).collect();
    let tasks = c.tasks(service);
    assert_eq!(tasks.len(), replicas, "{tasks:?}");
    let expected: BTreeSet<Ipv4Addr> = tasks.iter().map(Task::address).collect();
    assert_eq!(expected.len(), replicas, "two tasks have one address: {tasks:?}");
    for (node, balancer) in c.nodes().iter().zip(&balancers) {
        assert_eq!(balancer.get(&vip), Some(&expected), "balancer of {}", node.name());
    }
    for (client, named) in clients.iter().zip(&named) {
        assert_eq!(*named, expected, "DNS of {}", client.node);
        assert_eq!(c.resolve(client, service).addresses(), BTreeSet::from([vip]));
        assert_served(c, client, service, &tasks);
    }
}

fn assert_served(c: &Cluster, client: &Task, service: &str, tasks: &[Task]) {
    if !tasks.is_empty() {
        let calls = u32::try_from(3 * tasks.len()).unwrap();
        let made = c.call(client, &format!("http://{service}/"), calls);
        return made.assert_balanced(tasks, client.address());
    }
    let made = c.calls(client, &format!("/whoami get --summary --timeout 10 http://{service}/"));
    // Refused at once, not timed out.
    assert!(made.errors.keys().all(|error| error.contains("refused")), "{made:?}");
    assert_eq!(made.failed, 1, "{made:?}");
}

fn no_call_fails_during_a_scale_down(c: &Cluster) {
    c.create_service("web", "--network net --replicas 10");
    for calls in calls_during(c, "web=1") {
        calls.assert_none_failed();
    }
    assert_in_force(c, "web", 1);
}

fn no_call_fails_during_a_scale_up(c: &Cluster) {
    c.create_service("web", "--network net --replicas 1");
    for calls in calls_during(c, "web=10") {
        calls.assert_none_failed();
    }
    assert_in_force(c, "web", 10);
}

/// Calls from every node, short ones and such as take their time, while a service is scaled.
fn calls_during(c: &Cluster, scale: &str) -> Vec<Calls> {
    let short = "/whoami get --summary -n 40 -c 2 --interval 10 http://web/";
    let long = "/whoami get --summary -n 4 -c 2 http://web/slow?ms=400";
    let made = calls_while(c, &c.tasks("client"), &[short, long], || {
        c.ctl(&format!("service scale -q {scale}"));
    });
    let total: u64 = made.iter().map(|calls| calls.calls).sum();
    assert!(total >= 200, "only {total} calls");
    made
}
