//! `service update`: tasks are replaced one at a time, and with two replicas or more no call fails.

use serde_json::Value;
use std::collections::BTreeSet;
use swarm_integration_tests::{Cluster, Task, calls_while, checks, image};

#[test]
fn update() {
    let cluster = Cluster::up("update");
    image::load_busybox(&cluster);
    for network in ["net", "second"] {
        cluster.create_network("", network);
        let flags = format!("--network {network} --replicas 3");
        cluster.create_service(&format!("client{network}"), &flags);
    }
    checks!(
        &cluster,
        force_replaces_all_tasks_one_at_a_time_while_they_serve,
        an_update_that_changes_nothing_replaces_nothing,
        environment_and_image_are_changed,
        networks_are_added_and_removed,
        replicas_and_endpoint_mode_are_changed,
    );
}

fn ids(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().map(|task| task.id.clone()).collect()
}

fn force_replaces_all_tasks_one_at_a_time_while_they_serve(c: &Cluster) {
    c.create_service("web", "--network net --replicas 3");
    let before = c.tasks("web");
    let clients = c.tasks("clientnet");
    let line = "/whoami get --summary -n 40 -c 2 --interval 10 http://web/";
    let made = calls_while(c, &clients, &[line], || {
        c.ctl("service update -q --force web");
    });
    for calls in &made {
        calls.assert_none_failed();
    }
    let answered: BTreeSet<&String> = made.iter().flat_map(|calls| calls.hosts.keys()).collect();
    assert_eq!(answered.len(), 6, "all old and new tasks: {answered:?}");
    let after = c.tasks("web");
    assert_eq!(after.len(), 3);
    assert!(ids(&before).is_disjoint(&ids(&after)), "{after:?}");
    assert_one_at_a_time(&after);
    c.call(&clients[0], "http://web/", 9).assert_balanced(&after, clients[0].address());
}

/// Each was made when the one before ran.
fn assert_one_at_a_time(tasks: &[Task]) {
    let mut spans: Vec<(String, String)> = tasks
        .iter()
        .map(|task| {
            (time(&task.document["CreatedAt"]), time(&task.document["Status"]["Timestamp"]))
        })
        .collect();
    spans.sort();
    for pair in spans.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two were replaced at once: {spans:?}");
    }
}

/// An RFC 3339 time so that times sort as texts do.
fn time(value: &Value) -> String {
    let text = value.as_str().unwrap().trim_end_matches('Z');
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{seconds}.{fraction:0<9}")
}

fn an_update_that_changes_nothing_replaces_nothing(c: &Cluster) {
    c.create_service("web", "--network net --replicas 2");
    let before = ids(&c.tasks("web"));
    c.ctl("service update -q web");
    c.ctl("service update -q --label-add a=b web");
    assert_eq!(ids(&c.tasks("web")), before);
}

fn environment_and_image_are_changed(c: &Cluster) {
    let create = "service create -q --name box --network net --env A=1 --env B=2 --replicas 2";
    c.ctl(&format!("{create} whoami"));
    c.ctl(&format!("service update -q --image {} --env-add C=3 --env-rm A box", image::BUSYBOX));
    for task in c.tasks("box") {
        let output = c.exec(&task, "/bin/env");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let variables: BTreeSet<&str> = text.lines().collect();
        for expected in ["B=2", "C=3", "FROM_IMAGE=yes"] {
            assert!(variables.contains(expected), "{expected} is missing: {text}");
        }
        assert!(!variables.contains("A=1"), "{text}");
    }
}

fn networks_are_added_and_removed(c: &Cluster) {
    c.create_service("web", "--network net --replicas 3");
    let (here, there) = (&c.tasks("clientnet")[0], &c.tasks("clientsecond")[0]);
    assert!(c.resolve(there, "web").data.is_empty());
    c.ctl("service update -q --network-add second web");
    for client in [here, there] {
        c.call(client, "http://web/", 9).assert_balanced(&c.tasks("web"), client.address());
    }
    c.ctl("service update -q --network-rm net web");
    c.call(there, "http://web/", 9).assert_balanced(&c.tasks("web"), there.address());
    assert!(c.resolve(here, "web").data.is_empty() && c.resolve(here, "tasks.web").data.is_empty());
    assert_eq!(c.vips("web").keys().collect::<Vec<_>>(), [&c.network_id("second")]);
}

fn replicas_and_endpoint_mode_are_changed(c: &Cluster) {
    c.create_service("web", "--network net --replicas 3");
    let client = &c.tasks("clientnet")[0];
    let vip = c.vip("web");
    c.ctl("service update -q --endpoint-mode dnsrr --replicas 2 web");
    let tasks: BTreeSet<_> = c.tasks("web").iter().map(Task::address).collect();
    assert_eq!(tasks.len(), 2);
    assert_eq!(c.resolve(client, "web").addresses(), tasks);
    let gone = c.calls(client, &format!("/whoami get --summary --timeout 1 http://{vip}/"));
    assert_eq!(gone.failed, 1, "the VIP goes on: {gone:?}");
    c.ctl("service update -q --endpoint-mode vip web");
    let tasks = c.tasks("web");
    assert_eq!(c.resolve(client, "web").addresses(), BTreeSet::from([c.vip("web")]));
    c.call(client, "http://web/", 8).assert_balanced(&tasks, client.address());
}
