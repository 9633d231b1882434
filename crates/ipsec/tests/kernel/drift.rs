//! Somebody changes what is ours: it is put right, and no key encrypts again from the beginning.

use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv};
use swarm_ipsec::{Changes, Error};

use crate::{
    NETWORK_MTU, TRIES,
    flow::{Client, Echo},
    lab::{Generations, Lab, both},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn policies_come_back() {
    let lab = Lab::new(false).await;
    lab.key(&both(1)).await;
    let (policies, state) = (listed(&lab), lab.a.ns.command("ip xfrm state"));
    assert_eq!(lab.give(&lab.a, &both(1)).await, Changes::default());
    let delete = |direction, policy: &str| {
        let listing = lab.a.ns.command("ip -s xfrm policy").replace("\n\t", " ");
        let is_it =
            |line: &&str| line.contains(policy) && line.contains(&format!("dir {direction}"));
        let found = listing.lines().find(is_it).expect("the policy");
        let index = found.split("index ").nth(1).unwrap().split(' ').next().unwrap();
        lab.a.ns.ip(&format!("xfrm policy delete dir {direction} index {index}"));
    };
    type Meddling<'a> = &'a dyn Fn();
    let all: [(Meddling, _, _); 5] = [
        (&|| lab.a.ns.ip("xfrm policy flush"), 2, 2),
        (&|| delete("in", "src 0.0.0.0/0 dst 0.0.0.0/0"), 1, 0),
        (&|| delete("out", "src 0.0.0.0/0 dst 0.0.0.0/0"), 1, 0),
        (&|| delete("in", "src 192.168.77.2/32 dst 192.168.77.1/32"), 0, 1),
        (&|| delete("out", "src 192.168.77.1/32 dst 192.168.77.2/32"), 0, 1),
    ];
    for (number, (meddle, denials, of_peers)) in all.into_iter().enumerate() {
        meddle();
        assert_ne!(listed(&lab), policies, "{number}");
        let changes = lab.give(&lab.a, &both(1)).await;
        let expected = Changes { denials, policies: of_peers, ..Changes::default() };
        assert_eq!(changes, expected, "{number}");
        assert_eq!(listed(&lab), policies, "{number}");
        assert_eq!(lab.a.ns.command("ip xfrm state"), state, "{number}");
    }
}

/// By policy: the kernel lists them by age.
fn listed(lab: &Lab) -> Vec<String> {
    let listing = lab.a.ns.command("ip xfrm policy").replace("\n\t", " ");
    let mut policies: Vec<_> = listing.lines().map(str::to_owned).collect();
    policies.sort_unstable();
    policies
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn a_lost_key_is_not_installed_again() {
    let mut lab = Lab::new(false).await;
    lab.key(&both(1)).await;
    lab.connect(NETWORK_MTU);
    let _echo = Echo::start(&lab.b);
    let client = Client::new(&lab);
    assert!(client.answered(TRIES), "the network works");
    let (old, mut incarnation) = (lab.a.incarnation(), lab.a.ipsec.incarnation());
    let stale = lab.a.desired(vec![lab.tunnel(&lab.a, &both(1))]);

    lab.a.ns.ip("xfrm state flush");
    let changes = lab.a.ipsec.program(&stale).await.unwrap();
    assert!(incarnation.has_changed().unwrap());
    let new = *incarnation.borrow_and_update();
    assert_ne!(new, old);
    let expected = Changes {
        policies: 1,
        associations: 1,
        incarnation: Some(new),
        waiting: 1,
        ..Changes::default()
    };
    assert_eq!(changes, expected, "what receives comes back, what sends does not");
    assert_eq!(lab.a.ipsec.status().await.unwrap().peers[0].sending, None);

    // The manager has not heard of it yet; then this process restarts.
    let waiting = Changes { waiting: 1, ..Changes::default() };
    assert_eq!(lab.a.ipsec.program(&stale).await.unwrap(), waiting);
    lab.a.restart().await;
    assert_eq!(lab.a.incarnation(), new);
    assert_eq!(lab.a.ipsec.program(&stale).await.unwrap(), waiting);
    assert!(!client.answered(3), "with a lost key");

    lab.key(&both(1)).await;
    assert!(client.answered(TRIES), "with keys of the new incarnation");
}

/// A packet that finds a policy without association leaves a nameless one behind if somebody listens for such needs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn a_larval_association_is_replaced() {
    let lab = Lab::new(false).await;
    lab.key(&both(1)).await;
    lab.connect(NETWORK_MTU);
    let _echo = Echo::start(&lab.b);
    let client = Client::new(&lab);
    assert!(client.answered(TRIES), "the network works");
    let listener = lab.a.ns.enter(|| {
        let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_XFRM).unwrap();
        let acquisitions = 1; // XFRMNLGRP_ACQUIRE
        socket.bind(&netlink_sys::SocketAddr::new(0, acquisitions)).unwrap();
        socket
    });
    lab.a.ns.ip("xfrm state flush");
    assert!(!client.answered(1), "without associations");
    let heard = recv(listener.as_raw_fd(), &mut [0; 4096], MsgFlags::MSG_DONTWAIT);
    assert!(heard.is_ok(), "the kernel asks for an association");
    assert!(lab.a.ns.command("ip xfrm state").contains("spi 0x00001001"), "and made a larval one");

    lab.give(&lab.a, &both(1)).await;
    lab.key(&both(1)).await;
    assert!(client.answered(TRIES), "with keys of the new incarnation");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn a_key_that_changes_under_its_spi_is_replaced() {
    let lab = Lab::new(false).await;
    lab.key(&both(1)).await;
    let mut tunnel = lab.tunnel(&lab.a, &both(1));
    tunnel.receiving[0].key = swarm_ipsec::Key::new([7; 20]);
    let changes = lab.a.ipsec.program(&lab.a.desired(vec![tunnel])).await.unwrap();
    assert_eq!(changes, Changes { associations: 2, ..Changes::default() });
    assert!(lab.a.ns.command("ip xfrm state").contains(&"07".repeat(20)));
}

/// The deny cannot hold what the kernel does not show it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn settings_that_go_round_ipsec_are_refused() {
    let lab = Lab::new(false).await;
    for parameter in ["e0.disable_xfrm", "e0.disable_policy", "all.disable_xfrm"] {
        let (interface, name) = parameter.split_once('.').unwrap();
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/{name}");
        lab.a.ns.enter(|| std::fs::write(&path, "1")).unwrap();
        let desired = lab.a.desired(vec![lab.tunnel(&lab.a, &both(1))]);
        let error = lab.a.ipsec.program(&desired).await.unwrap_err();
        assert!(matches!(error, Error::Bypassed { .. }), "{error}");
        assert!(
            error.to_string().starts_with(&format!("net.ipv4.conf.{parameter} is set")),
            "{error}"
        );
        lab.a.ns.enter(|| std::fs::write(&path, "0")).unwrap();
    }
    lab.give(&lab.a, &Generations { sending: None, receiving: vec![1] }).await;
}
