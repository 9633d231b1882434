//! Sizes, truncation, connections, and what is no DNS at all.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use swarm_dns::{DnsServer, Limits, Options};

use crate::support::{Client, Netns, addresses, on, over, question, tasks, web, with_edns};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_tasks_arrive_whole_over_tcp_and_edns_and_truncated_without() {
    let netns = Netns::new();
    let server = DnsServer::new(Options::default());
    server.publish_network("net", web(1, 50));
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);
    let plain = question("tasks.web", RecordType::A);
    let sorted = |reply: &Message| {
        let mut all = addresses(reply);
        all.sort();
        all
    };

    let cut = client.exchange(&plain);
    assert!(cut.metadata.truncation);
    assert!((25..50).contains(&cut.answers.len()), "{}", cut.answers.len());
    assert!(cut.edns.is_none());

    let whole = client.exchange_tcp(&plain);
    assert!(!whole.metadata.truncation);
    assert_eq!(sorted(&whole), tasks(1, 50));

    for payload in [4096, 1232, u16::MAX] {
        let reply = client.exchange(&with_edns(plain.clone(), payload));
        assert!(!reply.metadata.truncation, "{payload}");
        assert_eq!(sorted(&reply), tasks(1, 50), "{payload}");
        assert!(reply.edns.is_some(), "{payload}");
    }

    let small = with_edns(plain.clone(), 600);
    let reply = client.exchange_raw(&small.to_vec().unwrap());
    assert!(reply.len() <= 600);
    let reply = Message::from_vec(&reply).unwrap();
    assert!(reply.metadata.truncation && reply.edns.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_serves_many_queries_and_ends_when_idle() {
    let netns = Netns::new();
    let server = DnsServer::new(Options {
        limits: Limits { tcp_idle: Duration::from_millis(300), ..Limits::default() },
        ..Options::default()
    });
    server.publish_network("net", web(1, 3));
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let mut stream = Client::new(&netns).connect();
    for _ in 0..20 {
        assert_eq!(over(&mut stream, &question("tasks.web", RecordType::A)).answers.len(), 3);
    }
    // Half a message does not count as activity.
    stream.write_all(&[0]).unwrap();
    let started = Instant::now();
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded_and_waiting_ones_get_their_turn() {
    let netns = Netns::new();
    let server = DnsServer::new(Options {
        limits: Limits {
            tcp_connections_per_sandbox: 2,
            tcp_idle: Duration::from_millis(500),
            ..Limits::default()
        },
        ..Options::default()
    });
    server.publish_network("net", web(1, 1));
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);
    let _idle = [client.connect(), client.connect()];
    let started = Instant::now();
    let reply = client.exchange_tcp(&question("web", RecordType::A));
    assert_eq!(reply.answers.len(), 1);
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
    // Datagrams never wait for connections.
    assert_eq!(client.addresses("tasks.web"), tasks(1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_query_does_not_disturb_the_service() {
    let netns = Netns::new();
    let server = DnsServer::new(Options::default());
    server.publish_network("net", web(1, 1));
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let client = Client::new(&netns);

    client.send(&[]);
    client.send(&[1, 2, 3]);
    client.send(&question("web", RecordType::A).into_response().to_vec().unwrap());
    let mut garbage = vec![0xff; 200];
    garbage[2] = 0;
    garbage[4..6].copy_from_slice(&[0, 1]);
    let reply = Message::from_vec(&client.exchange_raw(&garbage)).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(client.addresses("web").len(), 1);

    let mut stream = client.connect();
    stream.write_all(&[0xff, 0xff, 1, 2, 3]).unwrap();
    // The end of the connection, told by a reset as octets were left unread.
    assert!(!matches!(stream.read(&mut [0; 16]), Ok(1..)));
    assert_eq!(client.exchange_tcp(&question("web", RecordType::A)).answers.len(), 1);
}
