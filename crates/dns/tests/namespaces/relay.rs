//! Names the swarm does not know go to the node's resolvers.

use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{RData, Record, RecordType};
use swarm_dns::{DnsServer, Limits, Options, Scope};

use crate::support::{
    Client, Netns, Over, Resolver, addresses, on, question, relaying_to, tasks, web, with_edns,
};

/// The reply of a resolver that knows `count` addresses.
fn known(query: &[u8], count: u8) -> Vec<u8> {
    let query = Message::from_vec(query).unwrap();
    let name = query.queries[0].name().clone();
    let mut reply = query.into_response();
    reply.metadata.recursion_available = true;
    for address in tasks(77, count) {
        reply.add_answer(Record::from_rdata(name.clone(), 300, RData::from(address)));
    }
    reply.to_vec().unwrap()
}

fn failure(query: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut reply = Message::from_vec(query).unwrap().into_response();
    reply.metadata.response_code = code;
    reply.to_vec().unwrap()
}

fn truncated(query: &[u8]) -> Vec<u8> {
    let mut reply = Message::from_vec(query).unwrap().into_response();
    reply.metadata.truncation = true;
    reply.to_vec().unwrap()
}

async fn silent() -> Resolver {
    Resolver::start(|_, _| Vec::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_come_back_as_the_resolver_sent_them() {
    let netns = Netns::new();
    let upstream = Resolver::start(|_, query| {
        let asked = Message::from_vec(query).unwrap();
        let options = asked.edns.as_ref().expect("EDNS0 as the client sent it").options();
        assert_eq!(options.as_ref().len(), 1);
        let mut reply = known(query, 2);
        // Octets no decoder would keep: they must come back all the same.
        reply[3] |= 0x40;
        vec![reply]
    })
    .await;
    let server = relaying_to(&[upstream.address]);
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);

    for name in ["Example.ORG.", "single-label", "tasks.unknown"] {
        let mut message = with_edns(question(name, RecordType::A), 1400);
        let option = EdnsOption::Unknown(65001, vec![7; 4]);
        message.edns.as_mut().unwrap().options_mut().insert(option);
        let sent = message.to_vec().unwrap();
        let mut expected = known(&sent, 2);
        expected[3] |= 0x40;
        assert_eq!(client.exchange_raw(&sent), expected, "{name}");
    }
    assert_eq!(upstream.asked(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_replies_are_asked_for_again_over_tcp() {
    let netns = Netns::new();
    let upstream = Resolver::start(|over, query| match over {
        Over::Udp => vec![truncated(query)],
        Over::Tcp => vec![known(query, 60)],
    })
    .await;
    let server = relaying_to(&[upstream.address]);
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);
    let plain = question("many.example.", RecordType::A);

    let whole = client.exchange(&with_edns(plain.clone(), 4096));
    assert!(!whole.metadata.truncation);
    assert_eq!(addresses(&whole), tasks(77, 60));

    let cut = client.exchange_raw(&plain.to_vec().unwrap());
    assert!(cut.len() <= 512);
    assert!(Message::from_vec(&cut).unwrap().metadata.truncation);

    let over_tcp = client.exchange_tcp(&plain);
    assert!(!over_tcp.metadata.truncation);
    assert_eq!(addresses(&over_tcp), tasks(77, 60));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_larger_than_the_client_takes_are_cut() {
    let netns = Netns::new();
    // A resolver that does not care what its client takes.
    let upstream = Resolver::start(|_, query| vec![known(query, 60)]).await;
    let server = relaying_to(&[upstream.address]);
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);
    let plain = question("many.example.", RecordType::A);

    let cut = client.exchange(&plain);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(cut.queries, plain.queries);
    assert_eq!(addresses(&client.exchange_tcp(&plain)), tasks(77, 60));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_resolver_is_asked_when_one_is_dead_refuses_or_fails() {
    let netns = Netns::new();
    let gone = silent().await;
    let good = Resolver::start(|_, query| vec![known(query, 1)]).await;
    let server = relaying_to(&[gone.address, good.address]);
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);
    assert_eq!(client.addresses("one.example."), tasks(77, 1));
    assert_eq!(gone.asked(), 1);
    // A resolver that did not reply is not asked first again for a while.
    assert_eq!(client.addresses("two.example."), tasks(77, 1));
    assert_eq!(gone.asked(), 1);

    let refused = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let failing = Resolver::start(|_, query| vec![failure(query, ResponseCode::ServFail)]).await;
    let refusing = Resolver::start(|_, query| vec![failure(query, ResponseCode::Refused)]).await;
    server.set_upstreams(&[refused, failing.address, refusing.address, good.address]);
    assert_eq!(client.addresses("three.example."), tasks(77, 1));

    // If nobody knows better, the error a resolver sent is what the client gets.
    server.set_upstreams(&[failing.address, refusing.address]);
    let reply = client.ask("four.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);

    let denying = Resolver::start(|_, query| vec![failure(query, ResponseCode::NXDomain)]).await;
    server.set_upstreams(&[denying.address, good.address]);
    let reply = client.ask("five.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_of_all_resolvers_is_a_failure_in_bounded_time() {
    let netns = Netns::new();
    let (first, second) = (silent().await, silent().await);
    let server = relaying_to(&[first.address, second.address]);
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);
    let started = Instant::now();
    let reply = client.ask("slow.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!((first.asked(), second.asked()), (2, 2), "each is asked twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_to_other_questions_are_not_believed() {
    let netns = Netns::new();
    let upstream = Resolver::start(|_, query| {
        let mut wrong_id = known(query, 3);
        wrong_id[0] ^= 1;
        let mut wrong_name = known(query, 4);
        wrong_name[13] ^= 1;
        let mut no_response = known(query, 5);
        no_response[2] &= 0x7f;
        vec![wrong_id, wrong_name, no_response, vec![0; 5], known(query, 1)]
    })
    .await;
    let server = relaying_to(&[upstream.address]);
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    assert_eq!(Client::new(&netns).addresses("right.example."), tasks(77, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_cap_queries_fail_at_once_and_own_names_go_on() {
    let (netns, other) = (Netns::new(), Netns::new());
    let upstream = silent().await;
    let server = DnsServer::new(Options {
        upstreams: vec![upstream.address],
        limits: Limits { relayed_queries: 6, relayed_queries_per_sandbox: 4, ..Limits::default() },
        ..Options::default()
    });
    server.publish_network("net", web(1, 2));
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    server.attach("b", &other.path(), on(&["net"])).await.unwrap();

    // The first four of "a" and the first two of "b" wait for the resolver; what is beyond fails at once.
    for (netns, allowed) in [(&netns, 4), (&other, 2)] {
        let client = Client::new(netns);
        let started = Instant::now();
        for _ in 0..allowed {
            client.send(&question("slow.example.", RecordType::A).to_vec().unwrap());
        }
        let reply = client.ask("own-cap.example.", RecordType::A);
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(client.addresses("tasks.web"), tasks(1, 2));
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
    // Once those waiting have failed there is room again: the resolver is asked.
    let client = Client::new(&netns);
    let (asked, deadline) = (upstream.asked(), Instant::now() + Duration::from_secs(20));
    while upstream.asked() == asked {
        client.ask("later.example.", RecordType::A);
        assert!(Instant::now() < deadline, "the resolver is never asked again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_relayed_without_a_resolver_or_for_internal_networks() {
    let netns = Netns::new();
    let upstream = Resolver::start(|_, query| vec![known(query, 1)]).await;
    let server = relaying_to(&[]);
    server.publish_network("net", web(1, 1));
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);
    let code = |name: &str| client.ask(name, RecordType::A).metadata.response_code;
    assert_eq!(code("nothing"), ResponseCode::NXDomain);
    assert_eq!(code("example.org."), ResponseCode::ServFail);

    server.set_upstreams(&[upstream.address]);
    assert_eq!(code("example.org."), ResponseCode::NoError);
    let asked = upstream.asked();
    let internal = Scope { relay: false, ..on(&["net"]) };
    server.set_scope("a", internal).unwrap();
    assert_eq!(code("nothing"), ResponseCode::NXDomain);
    assert_eq!(code("secret.example.org."), ResponseCode::ServFail);
    assert_eq!(code("web"), ResponseCode::NoError);
    assert_eq!(upstream.asked(), asked);

    // The server never asks itself.
    server.set_scope("a", on(&["net"])).unwrap();
    server.set_upstreams(&[swarm_dns::LISTEN_ADDRESS]);
    assert_eq!(code("nothing"), ResponseCode::NXDomain);
}
