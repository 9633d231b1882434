//! What names resolve to, and for whom they exist.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, RecordType};
use swarm_dns::{Answer, DnsServer, NetworkNames, Options};

use crate::support::{Client, Netns, addresses, on, question, tasks, web};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_resolve_to_the_vip_and_tasks_to_all_addresses() {
    let netns = Netns::new();
    let server = DnsServer::new(Options::default());
    server.publish_network("net", web(1, 3));
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);

    for spelling in ["web", "web.", "WEB", "wEb."] {
        let reply = client.ask(spelling, RecordType::A);
        assert_eq!(addresses(&reply), [IpAddr::from([10, 0, 1, 100])], "{spelling}");
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
        assert_eq!(reply.answers[0].ttl, 0);
    }
    assert_eq!(client.addresses("tasks.web"), tasks(1, 3));
    assert_eq!(client.addresses("web.2.task1"), [tasks(1, 3)[1]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_addresses_come_in_changing_order() {
    let netns = Netns::new();
    let server = DnsServer::new(Options::default());
    let mut names = NetworkNames::new();
    names.insert("db", Answer::Addresses(tasks(1, 5))).unwrap();
    server.publish_network("net", Arc::new(names));
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);

    let first: HashSet<IpAddr> =
        (0..200).map(|_| addresses(&client.ask("db", RecordType::A))[0]).collect();
    // Each of 5 is missing among 200 with a probability of 0.8^200.
    assert_eq!(first, tasks(1, 5).into_iter().collect());
    assert_eq!(client.addresses("db"), tasks(1, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn existing_names_have_no_other_records_but_exist() {
    let netns = Netns::new();
    let server = DnsServer::new(Options::default());
    let mut names = NetworkNames::clone(&web(1, 1));
    names.insert("tasks.idle", Answer::Addresses(vec![])).unwrap();
    server.publish_network("net", Arc::new(names));
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);

    let other_types = [RecordType::AAAA, RecordType::MX, RecordType::HTTPS, RecordType::PTR];
    let asked = other_types.map(|kind| ("web", kind));
    for (name, kind) in asked.into_iter().chain([("tasks.idle", RecordType::A)]) {
        let reply = client.ask(name, kind);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{name} {kind}");
        assert!(reply.answers.is_empty(), "{name} {kind}");
    }
    let gone = client.ask("nothing", RecordType::AAAA);
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_have_names_in_their_own_networks_only() {
    let netns = Netns::new();
    let server = DnsServer::new(Options::default());
    server.publish_network("one", web(1, 2));
    server.publish_network("two", web(2, 2));
    server.attach("a", &netns.path(), on(&["one"])).await.unwrap();
    let client = Client::new(&netns);

    let reply = client.ask("3.1.0.10.in-addr.arpa.", RecordType::PTR);
    let RData::PTR(name) = &reply.answers[0].data else {
        panic!("{reply}");
    };
    assert_eq!(name.0, Name::from_ascii("web.2.task1.net1.").unwrap());
    let address = client.ask("3.1.0.10.in-addr.arpa.", RecordType::A);
    assert_eq!(address.metadata.response_code, ResponseCode::NoError);
    assert!(address.answers.is_empty());

    let foreign = client.ask("3.2.0.10.in-addr.arpa.", RecordType::PTR);
    assert!(foreign.answers.is_empty());
    assert_eq!(foreign.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sandboxes_see_the_names_of_their_own_networks() {
    let (left, right) = (Netns::new(), Netns::new());
    let server = DnsServer::new(Options::default());
    server.publish_network("one", web(1, 2));
    let mut two = NetworkNames::clone(&web(2, 3));
    two.insert("only-two", Answer::Vip([10, 0, 2, 99].into())).unwrap();
    server.publish_network("two", Arc::new(two));
    server.attach("left", &left.path(), on(&["one"])).await.unwrap();
    server.attach("right", &right.path(), on(&["two", "one"])).await.unwrap();
    let (left, right) = (Client::new(&left), Client::new(&right));

    assert_eq!(left.addresses("tasks.web"), tasks(1, 2));
    assert_eq!(right.addresses("tasks.web"), tasks(2, 3));
    let hidden = left.ask("only-two", RecordType::A);
    assert_eq!(hidden.metadata.response_code, ResponseCode::NXDomain);

    // Attached to a second network, then to none.
    server.set_scope("left", on(&["one", "two"])).unwrap();
    assert_eq!(left.addresses("only-two"), [IpAddr::from([10, 0, 2, 99])]);
    assert_eq!(left.addresses("tasks.web"), tasks(1, 2));
    server.set_scope("left", on(&[])).unwrap();
    assert!(left.addresses("web").is_empty());

    server.remove_network("two");
    assert_eq!(right.exchange(&question("tasks.web", RecordType::A)).answers.len(), 2);
    assert_eq!(right.addresses("tasks.web"), tasks(1, 2));
}
