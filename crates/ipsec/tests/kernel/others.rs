//! What the kernel must have, and that other software's IPsec in the same namespace stays as it is.

use swarm_ipsec::{Changes, Ipsec, Key, Sa, Tunnel};

use crate::lab::{Lab, both};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn this_kernel_has_what_it_takes() {
    assert_eq!(Ipsec::probe(None).await, Ok(()));
    let lab = Lab::new(false).await;
    assert_eq!(Ipsec::probe(Some(&lab.a.ns.path())).await, Ok(()));
    assert_eq!(lab.a.ns.command("ip xfrm state"), "", "the probe leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn others_are_left_alone() {
    let lab = Lab::new(false).await;
    let ns = &lab.a.ns;
    let aead = "aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128";
    ns.ip(&format!(
        "xfrm state add src 192.168.77.1 dst 192.168.77.2 proto esp spi 0x5001 reqid 2 mode transport {aead} sel proto udp dport 4790
        xfrm state add src 192.168.77.1 dst 192.168.77.2 proto esp spi 0x5002 reqid 9 mode tunnel {aead}
        xfrm state add src 192.168.77.1 dst 192.168.77.2 proto ah spi 0x1001 reqid 2 mode transport auth hmac(sha256) 0x01
        xfrm policy add src 192.168.77.1/32 dst 192.168.77.2/32 proto udp dport 4790 dir out priority 7000 action block
        xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir fwd priority 7 tmpl src 192.168.77.1 dst 192.168.77.2 proto esp reqid 9 mode tunnel
        xfrm policy add dir in action allow priority 9000"
    ));
    let before = (ns.command("ip xfrm policy"), ns.command("ip xfrm state"));
    lab.key(&both(1)).await;
    assert_ne!((ns.command("ip xfrm policy"), ns.command("ip xfrm state")), before);
    lab.key(&both(2)).await;
    lab.deny().await;
    lab.a.ipsec.destroy().await.unwrap();
    assert_eq!((ns.command("ip xfrm policy"), ns.command("ip xfrm state")), before);
    assert!(lab.a.ipsec.status().await.unwrap().peers.is_empty());
}

/// Another's association has the identity of one of ours: that peer fails, by name, and the others do not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn one_peers_failure_is_named_and_holds_up_no_other() {
    let lab = Lab::new(false).await;
    let aead = "aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128";
    lab.a.ns.ip(&format!(
        "xfrm state add src 192.168.77.1 dst 192.168.77.2 proto esp spi 0x1001 reqid 9 mode tunnel {aead}"
    ));
    let good = lab.tunnel(&lab.a, &both(1));
    let mut other = good.clone();
    (other.remote, other.reqid) = ([192, 168, 77, 3].into(), 3);
    other.receiving[0].spi = 0x3001;
    other.sending.as_mut().unwrap().key = Key::new([3; 20]);
    let error = lab.a.ipsec.program(&lab.a.desired(vec![good, other])).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "add ipsec association 0x1001 from 192.168.77.1 to 192.168.77.2: File exists (os error 17)"
    );
    let sending: Vec<_> =
        lab.a.ipsec.status().await.unwrap().peers.into_iter().map(|peer| peer.sending).collect();
    assert_eq!(sending, [None, Some(0x1001)], "no policy names what was not made");
}

/// Their associations do not fit into one datagram of a dump.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with IPsec: cargo xtask vm test"]
async fn many_peers_are_programmed_and_read_back() {
    const PEERS: u8 = 200;
    let lab = Lab::new(false).await;
    let tunnel = |number: u8, generation: u8| {
        let sa = |direction: u8| Sa {
            spi: u32::from_be_bytes([1, direction, number, generation]),
            key: Key::new([[number, generation, direction, 1]; 5].concat().try_into().unwrap()),
        };
        let remote = [192, 168, 78, number].into();
        Tunnel { remote, reqid: number.into(), sending: Some(sa(0)), receiving: vec![sa(1)] }
    };
    let all = |generation| lab.a.desired((1..=PEERS).map(|n| tunnel(n, generation)).collect());
    let count = usize::from(PEERS);
    let (policies, associations) = (2 * count, 2 * count);
    let first = lab.a.ipsec.program(&all(1)).await.unwrap();
    assert_eq!(first, Changes { denials: 2, policies, associations, ..Changes::default() });
    assert_eq!(lab.a.ipsec.program(&all(1)).await.unwrap(), Changes::default());
    let second = lab.a.ipsec.program(&all(2)).await.unwrap();
    let replaced = 2 * associations;
    assert_eq!(second, Changes { policies: count, associations: replaced, ..Changes::default() });
    let peers = lab.a.ipsec.status().await.unwrap().peers;
    assert_eq!(peers.len(), count);
    assert!(peers.iter().all(|peer| peer.sending.is_some_and(|spi| spi & 0xff == 2)));
    lab.a.ipsec.destroy().await.unwrap();
    assert_eq!(lab.a.ns.command("ip xfrm policy") + &lab.a.ns.command("ip xfrm state"), "");
}
