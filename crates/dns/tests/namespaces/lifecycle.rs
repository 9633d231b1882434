//! Attaching, detaching, publishing, coming back.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use swarm_dns::{Answer, DnsServer, Error, LISTEN_ADDRESS, Names, NetworkNames, Options};

use crate::support::{
    Client, Netns, Resolver, addresses, on, question, relaying_to, tasks, web, with_edns,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_answers_the_next_query() {
    let netns = Netns::new();
    let server = DnsServer::new(Options::default());
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    server.publish_network("other", web(9, 1));
    let client = Client::new(&netns);
    for count in [3, 10, 1, 0, 3] {
        server.publish_network("net", web(1, count));
        assert_eq!(client.addresses("tasks.web"), tasks(1, count));
    }
    let other = &server.names().networks["other"];
    server.publish_network("net", web(2, 1));
    assert!(Arc::ptr_eq(other, &server.names().networks["other"]), "other networks are shared");

    server.publish(Arc::new(Names::default()));
    assert!(client.addresses("web").is_empty());
}

#[tokio::test]
async fn networks_published_at_once_are_all_there() {
    let server = DnsServer::new(Options::default());
    std::thread::scope(|scope| {
        for publisher in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for number in 0..100 {
                    server.publish_network(&format!("{publisher}-{number}"), web(1, 1));
                    server.publish_network(&format!("gone-{publisher}"), web(1, 1));
                    server.remove_network(&format!("gone-{publisher}"));
                }
            });
        }
    });
    assert_eq!(server.names().networks.len(), 400);
}

/// Ends the clients also when an assertion fails beside them.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A generation of `tasks.web`: forty addresses that name it.
fn generation(number: u8) -> Arc<NetworkNames> {
    let mut names = NetworkNames::new();
    names.insert("tasks.web", Answer::Addresses(tasks(number, 40))).unwrap();
    Arc::new(names)
}

fn generation_of(address: &IpAddr) -> u8 {
    let IpAddr::V4(address) = address else { panic!("IPv6") };
    address.octets()[2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_mixes_generations_or_goes_back() {
    let netns = Netns::new();
    let server = DnsServer::new(Options::default());
    server.publish_network("net", generation(0));
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
    let done = AtomicBool::new(false);
    let ask_until_done = || {
        let client = Client::new(&netns);
        let message = with_edns(question("tasks.web", RecordType::A), 4096);
        let mut last = 0;
        let mut seen = HashSet::new();
        while !done.load(Ordering::Relaxed) {
            let got = addresses(&client.exchange(&message));
            assert_eq!(got.len(), 40);
            let generations: HashSet<u8> = got.iter().map(generation_of).collect();
            assert_eq!(generations.len(), 1, "{generations:?}");
            let now = generation_of(&got[0]);
            assert!(now >= last, "{now} after {last}");
            last = now;
            seen.insert(now);
        }
        seen.len()
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask_until_done)).collect();
        let finish = Finish(&done);
        let probe = Client::new(&netns);
        let message = with_edns(question("tasks.web", RecordType::A), 4096);
        for number in 1..=200 {
            server.publish_network("net", generation(number));
            let got = addresses(&probe.exchange(&message));
            assert_eq!(generation_of(&got[0]), number);
        }
        drop(finish);
        let seen: Vec<usize> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert!(seen.iter().all(|&generations| generations > 1), "{seen:?}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detaching_frees_the_port_whatever_is_under_way() {
    let netns = Netns::new();
    let upstream = Resolver::start(|_, _| Vec::new()).await;
    let server = relaying_to(&[upstream.address]);
    server.publish_network("net", web(1, 2));
    for _ in 0..5 {
        server.attach("a", &netns.path(), on(&["net"])).await.unwrap();
        assert_eq!(server.attached(), ["a"]);
        let client = Client::new(&netns);
        let _open = client.connect();
        let asked = upstream.asked();
        client.send(&question("slow.example.", RecordType::A).to_vec().unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        while upstream.asked() == asked {
            assert!(Instant::now() < deadline, "the query is never relayed");
            tokio::task::yield_now().await;
        }
        server.detach("a").await.unwrap();
        assert_eq!(server.attached(), Vec::<String>::new());
        netns.inside(|| {
            std::net::UdpSocket::bind(LISTEN_ADDRESS).unwrap();
            std::net::TcpListener::bind(LISTEN_ADDRESS).unwrap();
        });
    }
    assert!(matches!(server.detach("a").await, Err(Error::NotAttached { .. })));
    assert!(matches!(server.set_scope("a", on(&[])), Err(Error::NotAttached { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_takes_over_the_sandbox() {
    let netns = Netns::new();
    let attach = async |count| {
        let server = DnsServer::new(Options::default());
        server.publish_network("net", web(1, count));
        // The sockets of the server before close in the background.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = server.attach("a", &netns.path(), on(&["net"])).await {
            assert!(matches!(error, Error::Bind { .. }), "{error}");
            assert!(Instant::now() < deadline, "{error}");
            tokio::task::yield_now().await;
        }
        server
    };
    let client = Client::new(&netns);
    for count in 1..4 {
        let server = attach(count).await;
        // A connection that the server closes first leaves its port in TIME_WAIT.
        let mut open = client.connect();
        let message = question("tasks.web", RecordType::A);
        assert_eq!(crate::support::over(&mut open, &message).answers.len(), usize::from(count));
        assert_eq!(client.addresses("tasks.web"), tasks(1, count));
        drop(server);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attaching_fails_in_words() {
    let server = Arc::new(DnsServer::new(Options::default()));
    // From any task of the runtime.
    let other = server.clone();
    let attach = async move { other.attach("a", Path::new("/no-such"), on(&[])).await };
    assert!(tokio::spawn(attach).await.unwrap().is_err());

    let missing = server.attach("a", Path::new("/run/netns/no-such"), on(&[])).await.unwrap_err();
    assert_eq!(
        missing.to_string(),
        "cannot open network namespace /run/netns/no-such: No such file or directory (os error 2)"
    );
    let file = server.attach("a", Path::new("/proc/self/status"), on(&[])).await.unwrap_err();
    assert!(matches!(file, Error::Namespace(_)), "{file}");

    let netns = Netns::new();
    let taken = netns.inside(|| std::net::UdpSocket::bind(LISTEN_ADDRESS).unwrap());
    let error = server.attach("a", &netns.path(), on(&[])).await.unwrap_err();
    assert!(error.to_string().contains("Address already in use"), "{error}");
    assert_eq!(server.attached(), Vec::<String>::new());

    drop(taken);
    server.attach("a", &netns.path(), on(&[])).await.unwrap();
    let error = server.attach("a", &netns.path(), on(&[])).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot attach sandbox a: it is attached already");
}
