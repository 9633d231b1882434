//! Nothing leaves in clear, and nothing in clear is accepted.

use std::time::Duration;

use swarm_ipsec::{Desired, Dropped};

use crate::{
    NETWORK_MTU, TRIES,
    capture::{Capture, count},
    flow::{Client, Echo},
    forge,
    lab::{Generations, Lab, both},
    namespace::eventually,
};

/// Creation, traffic, rotation, a new incarnation, removal: with one capture from before the network exists to the end.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn nothing_is_ever_sent_in_clear() {
    let lab = Lab::new(false).await;
    let capture = Capture::start(&lab.switch);
    lab.deny().await;
    lab.connect(NETWORK_MTU);
    let _echo = Echo::start(&lab.b);
    let client = Client::new(&lab);
    assert!(!client.answered(3), "without keys");
    assert_eq!(
        count(&capture.peek()),
        (0, 0),
        "nothing of the network is on the wire without keys"
    );
    lab.a.drops("what had no key", |dropped| dropped.out_blocked >= 3).await;

    lab.key(&both(1)).await;
    assert!(client.answered(TRIES), "with keys");
    eventually("the capture shows ESP", || count(&capture.peek()).0 > 0);
    lab.key(&Generations { sending: Some(1), receiving: vec![1, 2] }).await;
    lab.key(&Generations { sending: Some(2), receiving: vec![1, 2] }).await;
    lab.key(&both(2)).await;
    assert!(client.answered(TRIES), "after rotation");

    lab.a.ns.ip("xfrm state flush");
    assert!(!client.answered(3), "without associations");
    let before = lab.a.incarnation();
    let changes = lab.give(&lab.a, &both(2)).await;
    assert_eq!(changes.incarnation, Some(lab.a.incarnation()));
    assert_ne!(lab.a.incarnation(), before);
    assert!(!client.answered(3), "with a lost key");
    lab.key(&both(2)).await;
    assert!(client.answered(TRIES), "with keys of the new incarnation");

    lab.deny().await;
    assert!(!client.answered(3), "after the peers were removed");
    lab.a.task.ip("link del eth0");
    lab.b.task.ip("link del eth0");
    for host in [&lab.a, &lab.b] {
        let desired = Desired { deny: false, ..host.desired(vec![]) };
        assert_eq!(host.ipsec.program(&desired).await.unwrap().denials, 2);
        assert_eq!(host.ns.command("ip xfrm policy"), "");
        host.ipsec.destroy().await.unwrap();
        assert_eq!(host.ns.command("ip xfrm state"), "");
    }
    let (esp, clear) = count(&capture.end());
    assert!(esp > 0);
    assert_eq!(clear, 0, "packets in clear, beside {esp} of ESP");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn forged_clear_text_is_dropped_and_counted() {
    const FORGED: usize = 5;
    let lab = Lab::new(false).await;
    lab.key(&both(1)).await;
    lab.connect(NETWORK_MTU);
    let _echo = Echo::start(&lab.b);
    assert!(Client::new(&lab).answered(TRIES), "the network works");
    let socket = lab.b.socket(9);
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let outsider = [192, 168, 77, 3].into();

    forge::send(&lab.c, outsider, &lab.b, 9, FORGED);
    forge::send(&lab.c, lab.a.endpoint, &lab.b, 9, FORGED);
    let all = |dropped: Dropped| (dropped.in_blocked, dropped.in_unprotected) == (5, 5);
    lab.b.drops("everything forged", all).await;
    assert!(socket.recv(&mut [0; 16]).is_err(), "a forged datagram reached the task");

    // The same frames are the network's own: without IPsec they get in.
    lab.b.ipsec.destroy().await.unwrap();
    forge::send(&lab.c, lab.a.endpoint, &lab.b, 9, FORGED);
    assert!(socket.recv(&mut [0; 16]).is_ok(), "the forgery is no good");
}

/// The outsider replays what it saw.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn replayed_packets_are_dropped_and_counted() {
    let lab = Lab::new(false).await;
    lab.key(&both(1)).await;
    lab.connect(NETWORK_MTU);
    let _echo = Echo::start(&lab.b);
    let capture = Capture::start(&lab.switch);
    assert!(Client::new(&lab).answered(TRIES), "the network works");
    eventually("a packet of A's was seen", || !capture.esp_to(&lab.b).is_empty());
    let packets = capture.esp_to(&lab.b);
    forge::replay(&lab.c, &lab.b, &packets[0], 5);
    lab.b.drops("what was replayed", |dropped| dropped.in_replayed == 5).await;
}
