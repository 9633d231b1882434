//! The nftables engine: the conformance suite, and what is nftables' own. Needs root, `nft`, `ip` and `busybox`.

mod conformance;

use std::sync::Arc;

use conformance::{
    Subject,
    lab::{Namespace, Segment, VIP, only, service},
};
use swarm_balancer::{Backend, Balancer, Kind, Preference, Protocol, Repaired, choose};

fn engine() -> Arc<dyn Balancer> {
    swarm_balancer::nftables().expect("nft is installed")
}

fn nft(ns: &Namespace, statement: &str) -> String {
    ns.command(&["nft", statement])
}

/// The lines in an order that does not depend on history.
fn held(ns: &Namespace) -> String {
    let listing = nft(ns, "list tables ip");
    if !listing.contains("table ip swarm") {
        return listing;
    }
    let listing = nft(ns, "list table ip swarm");
    let mut lines: Vec<_> = listing.split([',', '\n']).map(str::trim).collect();
    lines.sort_unstable();
    lines.join("\n")
}

const NFTABLES: Subject =
    Subject { start: engine, wreck: |ns| drop(nft(ns, "flush ruleset")), held };

conformance!(NFTABLES);

/// What a kernel with IPVS does is in `ipvs.rs`.
#[tokio::test]
async fn it_is_chosen_where_the_kernel_has_no_ipvs_and_when_forced() {
    let forced = choose(Preference::Nftables).await.expect("this host can balance");
    assert_eq!(forced.to_string(), "nftables (forced by --balancer)");
    let ipvs = choose(Preference::Ipvs).await;
    let auto = choose(Preference::Auto).await.expect("this host can balance");
    match ipvs {
        Ok(_) => assert_eq!(auto.engine.kind(), Kind::Ipvs),
        Err(error) => {
            assert_eq!(auto.engine.kind(), Kind::Nftables);
            assert_eq!(auto.to_string(), "nftables (this kernel has no IP_VS)", "{error}");
        }
    }
}

#[tokio::test]
async fn any_meddling_with_the_table_is_repaired() {
    let segment = Segment::new("n");
    let backends = vec![Backend { addr: [10, 0, 1, 11].into(), weight: 1, local: true }];
    let other = [10, 0, 1, 3].into();
    let mut named = service(2, [10, 0, 1, 4].into(), backends.clone());
    named.ports = only(&[(Protocol::Tcp, 80, 8080), (Protocol::Udp, 53, 5353)]);
    let network =
        segment.network(vec![service(0, VIP, backends), service(1, other, vec![]), named]);
    let balancer = engine();
    balancer.program(&network).await.unwrap();
    let before = held(&segment.ns);
    for meddling in [
        "flush table ip swarm",
        "flush chain ip swarm postrouting",
        "flush map ip swarm services",
        "flush map ip swarm ports",
        "delete element ip swarm refused { 10.0.1.4 }",
        "delete element ip swarm refused { 10.0.1.3 }",
        "add rule ip swarm prerouting drop",
        "delete table ip swarm",
    ] {
        nft(&segment.ns, meddling);
        assert_ne!(held(&segment.ns), before, "{meddling}");
        let repaired = balancer.audit(&network).await.unwrap();
        assert!(repaired.drift.is_some(), "{meddling}");
        assert_eq!(held(&segment.ns), before, "{meddling}");
    }
}

#[tokio::test]
async fn the_tables_of_others_are_left_alone_and_no_drift() {
    let segment = Segment::new("n");
    let network = segment.web(vec![]);
    let balancer = engine();
    balancer.program(&network).await.unwrap();
    nft(&segment.ns, "add table ip theirs");
    assert_eq!(balancer.audit(&network).await.unwrap().drift, None);
    assert_eq!(balancer.audit(&network).await.unwrap(), Repaired::default());
    assert!(nft(&segment.ns, "list tables").contains("table ip theirs"));
}

/// What the model of the unit tests claims, asked of the kernel: a way of many changes ends where a rebuild ends.
#[tokio::test]
async fn small_changes_add_up_to_what_a_rebuild_makes() {
    let (changed, rebuilt) = (Segment::new("changed"), Segment::new("rebuilt"));
    let balancer = engine();
    let mut seed = 1u32;
    let mut random = move |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    for round in 0..15 {
        let mut services = Vec::new();
        let turn = random(8);
        for number in 0..6 {
            let backend = |n: u32, weight| Backend {
                addr: [10, 0, 1, 100 + u8::try_from(n).unwrap()].into(),
                weight,
                local: n < 2,
            };
            let backends = (0..4).filter(|_| random(2) == 0).collect::<Vec<_>>();
            let backends = backends
                .into_iter()
                .map(|n| backend(n, u16::try_from(random(3)).unwrap()))
                .collect();
            let vip = [10, 0, 1, 200 + u8::try_from((number + turn) % 8).unwrap()].into();
            let mut service = service(number, vip, backends);
            if random(2) == 0 {
                let target = 8080 + u16::try_from(random(2)).unwrap();
                let ports = [(Protocol::Tcp, 80, target), (Protocol::Udp, 80, 8080)];
                service.ports = only(&ports[..usize::try_from(random(3)).unwrap()]);
            }
            if random(3) > 0 {
                services.push(service);
            }
        }
        let changes = balancer.program(&changed.network(services.clone())).await.unwrap();
        assert_eq!(changes.rebuilt, round == 0, "nft refused a change");
        engine().program(&rebuilt.network(services)).await.unwrap();
        assert_eq!(held(&changed.ns), held(&rebuilt.ns), "round {round}");
    }
}
