//! Keys change under traffic, processes come and go, peers too: no packet is lost and no key lasts too long.

use std::collections::BTreeSet;

use swarm_ipsec::Changes;

use crate::{
    NETWORK_MTU, TRIES,
    capture::{Capture, Kind},
    flow::{Client, Echo},
    lab::{Generations, Lab, both},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn rotation_loses_no_packet() {
    const PACKETS: u32 = 20;
    let lab = Lab::new(false).await;
    lab.key(&both(1)).await;
    lab.connect(NETWORK_MTU);
    let _echo = Echo::start(&lab.b);
    let client = Client::new(&lab);
    assert!(client.answered(TRIES), "the network works");
    let capture = Capture::start(&lab.switch);
    let stream = client.stream();
    for old in 1..6 {
        let new = old + 1;
        stream.pass(PACKETS);
        lab.key(&Generations { sending: Some(old), receiving: vec![old, new] }).await;
        stream.pass(PACKETS);
        lab.key(&Generations { sending: Some(new), receiving: vec![old, new] }).await;
        stream.pass(PACKETS);
        lab.key(&both(new)).await;
    }
    stream.pass(PACKETS);
    stream.end();

    let spis: BTreeSet<_> = capture.end().into_iter().filter_map(spi).collect();
    let expected: BTreeSet<_> = (1..=6).flat_map(|g| [0x1000 + g, 0x2000 + g]).collect();
    assert_eq!(spis, expected, "every generation was used, in both directions");
    let status = lab.a.ipsec.status().await.unwrap();
    assert_eq!(
        (status.peers[0].sending, &status.peers[0].receiving),
        (Some(0x1006), &vec![0x2006])
    );
    assert!(status.peers[0].packets_in > 0 && status.peers[0].bytes_out > 0, "{status:?}");
}

fn spi(seen: crate::capture::Seen) -> Option<u32> {
    match seen.kind {
        Kind::Esp(spi) => Some(spi),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn a_restart_changes_nothing_and_loses_nothing() {
    let mut lab = Lab::new(false).await;
    lab.key(&both(1)).await;
    lab.connect(NETWORK_MTU);
    let _echo = Echo::start(&lab.b);
    let client = Client::new(&lab);
    assert!(client.answered(TRIES), "the network works");
    let stream = client.stream();
    let incarnation = lab.a.incarnation();
    for _ in 0..3 {
        stream.pass(20);
        lab.a.restart().await;
        assert_eq!(lab.a.incarnation(), incarnation);
        assert_eq!(lab.give(&lab.a, &both(1)).await, Changes::default());
    }
    stream.pass(20);
    stream.end();
}

/// As when the last task of a network leaves a node and another one comes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn a_peer_comes_back_with_the_keys_it_had() {
    let lab = Lab::new(false).await;
    lab.key(&both(1)).await;
    lab.connect(NETWORK_MTU);
    let _echo = Echo::start(&lab.b);
    let client = Client::new(&lab);
    assert!(client.answered(TRIES), "the network works");
    lab.deny().await;
    assert!(!client.answered(3), "without the peer");
    assert_eq!(lab.a.ipsec.status().await.unwrap().peers, []);
    let changes = lab.give(&lab.a, &both(1)).await;
    assert_eq!(changes, Changes { policies: 2, ..Changes::default() });
    lab.key(&both(1)).await;
    assert!(client.answered(TRIES), "with the peer");
    let status = lab.b.ipsec.status().await.unwrap();
    assert_eq!(status.dropped.unwrap().in_replayed, 0, "sequence numbers went on");
}
