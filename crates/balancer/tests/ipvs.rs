//! The IPVS engine: the conformance suite, and what is IPVS's own. Needs a kernel with IPVS, so `cargo xtask vm test`
//! runs it; and root, `nft`, `ipvsadm`, `ip` and `busybox`.

mod conformance;

use std::{net::Ipv4Addr, sync::Arc};

use conformance::{
    Subject,
    lab::{Namespace, Segment, VIP, only, service},
};
use swarm_balancer::{Backend, Balancer, Error, Kind, Preference, Protocol, Repaired, choose};

fn engine() -> Arc<dyn Balancer> {
    swarm_balancer::ipvs().expect("nft is installed")
}

/// The services as two listings in a row have them. The kernel counts the services of all namespaces while it lists those
/// of one: what another test changes meanwhile makes it repeat or skip some.
fn services(ns: &Namespace) -> String {
    let list = || ns.command(&["ipvsadm", "-Sn"]);
    let mut before = list();
    loop {
        let now = list();
        if now == before {
            return now;
        }
        before = now;
    }
}

/// The lines in an order that does not depend on history.
fn held(ns: &Namespace) -> String {
    let mut lines: Vec<_> = services(ns).lines().map(str::to_owned).collect();
    let tables = ns.command(&["nft", "list", "tables", "ip"]);
    if tables.contains("table ip swarm") {
        let table = ns.command(&["nft", "list", "table", "ip", "swarm"]);
        lines.extend(table.split([',', '\n']).map(|line| line.trim().to_owned()));
    }
    lines.sort_unstable();
    lines.join("\n")
}

const IPVS: Subject =
    Subject { start: engine, wreck: |ns| drop(ns.command(&["ipvsadm", "-C"])), held };

conformance!(IPVS, #[ignore = "needs a kernel with IPVS: cargo xtask vm test"]);

#[tokio::test]
#[ignore = "needs a kernel with IPVS: cargo xtask vm test"]
async fn it_is_chosen_where_the_kernel_has_it() {
    for (preference, said) in [
        (Preference::Auto, "ipvs (the kernel has it)"),
        (Preference::Ipvs, "ipvs (forced by --balancer)"),
        (Preference::Nftables, "nftables (forced by --balancer)"),
    ] {
        let choice = choose(preference).await.expect("this kernel has IPVS");
        assert_eq!(choice.to_string(), said);
        assert_eq!(choice.engine.kind() == Kind::Ipvs, said.starts_with("ipvs"));
    }
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: cargo xtask vm test"]
async fn any_meddling_is_repaired_and_named() {
    let segment = Segment::new("n");
    let backend = |last| Backend { addr: [10, 0, 1, last].into(), weight: 1, local: true };
    let other = Ipv4Addr::new(10, 0, 1, 3);
    let mut named = service(2, Ipv4Addr::new(10, 0, 1, 4), vec![backend(11)]);
    named.ports = only(&[(Protocol::Tcp, 80, 8080), (Protocol::Udp, 53, 5353)]);
    let services =
        vec![service(0, VIP, vec![backend(11), backend(12)]), service(1, other, vec![]), named];
    let network = segment.network(services);
    let balancer = engine();
    balancer.program(&network).await.unwrap();
    let before = held(&segment.ns);
    for (meddling, drift) in [
        ("ipvsadm -C", "ipvs service TCP 10.0.1.4:80 was gone"),
        ("ipvsadm -D -f 257", "ipvs service FWM 257 was gone"),
        ("ipvsadm -E -f 256 -s rr", "ipvs service FWM 256 was changed"),
        ("ipvsadm -A -f 999 -s rr", "ipvs service FWM 999 was added"),
        ("ipvsadm -A -t 10.0.1.2:80 -s rr", "ipvs service TCP 10.0.1.2:80 was added"),
        (
            "ipvsadm -d -f 256 -r 10.0.1.11",
            "destination 10.0.1.11:0 of ipvs service FWM 256 was gone",
        ),
        (
            "ipvsadm -a -f 256 -r 10.0.1.13 -m",
            "destination 10.0.1.13:0 of ipvs service FWM 256 was added",
        ),
        (
            "ipvsadm -e -f 256 -r 10.0.1.11 -m -w 7",
            "the weight of destination 10.0.1.11:0 of ipvs service FWM 256 was changed",
        ),
        (
            "ipvsadm -e -f 256 -r 10.0.1.11 -g",
            "destination 10.0.1.11:0 of ipvs service FWM 256 was added",
        ),
        ("ipvsadm -D -u 10.0.1.4:53", "ipvs service UDP 10.0.1.4:53 was gone"),
        (
            "ipvsadm -a -t 10.0.1.4:80 -r 10.0.1.11:80 -m",
            "destination 10.0.1.11:80 of ipvs service TCP 10.0.1.4:80 was added",
        ),
        (
            "ipvsadm -d -t 10.0.1.4:80 -r 10.0.1.11:8080",
            "destination 10.0.1.11:8080 of ipvs service TCP 10.0.1.4:80 was gone",
        ),
        ("nft flush set ip swarm ports", "the table ip swarm was changed by someone else"),
        ("sysctl -qw net.ipv4.vs.conntrack=0", "the sysctl net.ipv4.vs.conntrack was changed"),
        ("nft flush map ip swarm marks", "the table ip swarm was changed by someone else"),
        ("nft delete table ip swarm", "the table ip swarm was gone"),
    ] {
        segment.ns.command(&meddling.split(' ').collect::<Vec<_>>());
        let repaired = balancer.audit(&network).await.unwrap();
        assert_eq!(repaired.drift.as_deref(), Some(drift), "{meddling}");
        assert!(repaired.changes.rebuilt, "{meddling}");
        assert_eq!(held(&segment.ns), before, "{meddling}");
        assert_eq!(balancer.audit(&network).await.unwrap(), Repaired::default(), "{meddling}");
    }
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: cargo xtask vm test"]
async fn a_service_without_a_mark_is_refused() {
    let segment = Segment::new("n");
    let mut network = segment.web(vec![]);
    network.services[0].mark = None;
    let error = engine().program(&network).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}
