//! Names as tasks see them: sizes, transports, modes, aliases, several networks.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use swarm_integration_tests::{Cluster, Task, checks};

#[test]
fn dns() {
    let cluster = Cluster::up("dns");
    cluster.create_network("", "net");
    cluster.create_service("client", "--network net --replicas 3");
    checks!(
        &cluster,
        fifty_tasks_fit_into_tcp_and_edns_and_are_truncated_else,
        dnsrr_names_resolve_to_the_tasks,
        aliases_mean_the_service_on_that_network,
        tasks_have_names_and_addresses_have_names_too,
        a_service_on_two_networks_has_an_address_on_each,
        ipv6_questions_are_answered_empty,
        unknown_names_do_not_exist,
    );
}

fn addresses(tasks: &[Task]) -> BTreeSet<Ipv4Addr> {
    tasks.iter().map(Task::address).collect()
}

fn fifty_tasks_fit_into_tcp_and_edns_and_are_truncated_else(c: &Cluster) {
    c.create_service("web", "--network net --replicas 50");
    let expected = addresses(&c.tasks("web"));
    assert_eq!(expected.len(), 50);
    for client in c.tasks("client") {
        let over_tcp = c.resolve_with(&client, "--tcp", "tasks.web");
        assert_eq!((over_tcp.addresses(), over_tcp.truncated), (expected.clone(), false));
        let edns = c.resolve_with(&client, "--edns 4096 --no-tcp", "tasks.web");
        assert_eq!(edns.transport, "udp");
        assert_eq!((edns.addresses(), edns.truncated), (expected.clone(), false));
        let plain = c.resolve_with(&client, "--no-tcp", "tasks.web");
        assert!(plain.truncated && plain.size <= 512, "{plain:?}");
        let retried = c.resolve(&client, "tasks.web");
        assert_eq!((retried.transport.as_str(), retried.truncated), ("tcp", true));
        assert_eq!(retried.addresses(), expected);
    }
}

fn dnsrr_names_resolve_to_the_tasks(c: &Cluster) {
    c.create_service("rr", "--network net --replicas 3 --endpoint-mode dnsrr");
    assert!(c.vips("rr").is_empty());
    let tasks = c.tasks("rr");
    for client in c.tasks("client") {
        assert_eq!(c.resolve(&client, "rr").addresses(), addresses(&tasks));
        assert_eq!(c.resolve(&client, "tasks.rr").addresses(), addresses(&tasks));
        // Shuffled: a client that takes the first address meets all of them.
        let calls = c.call(&client, "http://rr/", 60);
        assert_eq!((calls.failed, calls.hosts.len()), (0, 3), "{calls:?}");
    }
}

fn aliases_mean_the_service_on_that_network(c: &Cluster) {
    c.create_network("", "other");
    c.create_service("db", "--network name=net,alias=database,alias=store --network other");
    c.create_service("there", "--network other");
    let client = &c.tasks("client")[0];
    let vips = c.vips("db");
    let here = BTreeSet::from([vips[&c.network_id("net")]]);
    let tasks = c.resolve(client, "tasks.db").addresses();
    assert_eq!(tasks.len(), 1);
    for alias in ["database", "store"] {
        assert_eq!(c.resolve(client, alias).addresses(), here);
        assert_eq!(c.resolve(client, &format!("tasks.{alias}")).addresses(), tasks);
    }
    assert!(c.resolve(&c.task("there"), "database").data.is_empty());
    // Two services may share an alias: it means both.
    c.create_service("db2", "--network name=net,alias=store");
    let both = here.iter().copied().chain([c.vip("db2")]).collect();
    assert_eq!(c.resolve(client, "store").addresses(), both);
}

fn tasks_have_names_and_addresses_have_names_too(c: &Cluster) {
    let client = &c.tasks("client")[0];
    let vip = c.vip("client").to_string();
    assert_eq!(c.resolve_with(client, "--type PTR", &vip).data, ["client.net."]);
    for task in c.tasks("client") {
        let name = format!("{}.{}", task.name, task.id);
        assert_eq!(c.resolve(client, &name).addresses(), BTreeSet::from([task.address()]));
        let reverse = c.resolve_with(client, "--type PTR", &task.address().to_string());
        assert_eq!(reverse.data, [format!("{name}.net.")]);
    }
}

fn a_service_on_two_networks_has_an_address_on_each(c: &Cluster) {
    c.create_network("", "second");
    c.create_service("both", "--network net --network second --replicas 3");
    c.create_service("onsecond", "--network second --replicas 3");
    let vips = c.vips("both");
    let tasks = c.tasks("both");
    for (network, clients) in [("net", "client"), ("second", "onsecond")] {
        let id = c.network_id(network);
        let expected = tasks.iter().map(|task| task.addresses[&id]).collect::<BTreeSet<_>>();
        assert_eq!(expected.len(), 3);
        for client in c.tasks(clients) {
            assert_eq!(c.resolve(&client, "both").addresses(), BTreeSet::from([vips[&id]]));
            assert_eq!(c.resolve(&client, "tasks.both").addresses(), expected);
            c.call(&client, "http://both/", 9).assert_balanced(&tasks, client.address());
        }
    }
    // From both networks it reaches services of either.
    for (service, network) in [("client", "net"), ("onsecond", "second")] {
        let own = tasks[0].addresses[&c.network_id(network)];
        c.call(&tasks[0], &format!("http://{service}/"), 9).assert_balanced(&c.tasks(service), own);
    }
}

fn ipv6_questions_are_answered_empty(c: &Cluster) {
    let client = &c.tasks("client")[0];
    for name in ["client", "tasks.client"] {
        let answer = c.resolve_with(client, "--type AAAA", name);
        assert_eq!((answer.rcode.as_str(), answer.data.len()), ("NOERROR", 0));
    }
}

fn unknown_names_do_not_exist(c: &Cluster) {
    let client = &c.tasks("client")[0];
    for name in ["nosuch", "tasks.nosuch"] {
        assert_eq!(c.resolve(client, name).data, Vec::<String>::new());
    }
    // A name goes with its service.
    c.create_service("shortlived", "--network net");
    assert_eq!(c.resolve(client, "shortlived").addresses().len(), 1);
    c.ctl("service rm shortlived");
    swarm_integration_tests::eventually("the end of a name", || {
        let left = c.resolve(client, "shortlived").data;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}
