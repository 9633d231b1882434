//! `ensure` changes nothing that is right and everything that is not; a new process adopts what an old one made.

mod lab;

use lab::{Lab, addr, network, pings, pings_again, run_in, sandbox, task, vtep};
use swarm_overlay::{Changes, Error};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ensure_changes_nothing() {
    let lab = Lab::new();
    let a = lab.overlay('A').await;
    let net = network("net", 4097, 'A', &[11], &[13, 14]);
    let first = a.ensure(&net).await.unwrap();
    assert_eq!((first.namespaces, first.fdb, first.neighbours), (1, 2, 5));
    assert_eq!(a.ensure(&net).await.unwrap(), Changes::default());

    let wanted = sandbox("t1", &[("net", addr(11))], true);
    let made = a.create_sandbox(&wanted).await.unwrap();
    assert!(!made.changes.is_empty());
    let again = a.create_sandbox(&wanted).await.unwrap();
    assert_eq!(again.changes, Changes::default());
    assert_eq!(again.egress_addr, made.egress_addr);
    assert_eq!(a.ensure(&net).await.unwrap(), Changes::default());
    assert_eq!(a.ensure_host().await.unwrap(), Changes::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_repaired_and_reported() {
    let lab = Lab::new();
    let (a, b) = (lab.overlay('A').await, lab.overlay('B').await);
    let net = network("net", 4097, 'A', &[11], &[13]);
    a.ensure(&net).await.unwrap();
    b.ensure(&network("net", 4097, 'B', &[13], &[11])).await.unwrap();
    let t1 = task(&a, "t1", "net", 11).await.netns;
    task(&b, "t3", "net", 13).await;
    let inside = a.network_netns("net");

    let none = Changes::default();
    let links = run_in(&inside, "ip -br link show type veth");
    let port = links.split(['@', ' ']).next().unwrap();
    let fdb = Changes { fdb: 1, ..none };
    let neighbour = Changes { neighbours: 1, ..none };
    let link = Changes { links: 1, ..none };
    let cases = [
        ("bridge fdb del 02:42:0a:00:01:0d dev vxlan0 self".into(), fdb),
        (
            "bridge fdb replace 02:42:0a:00:01:0d dev vxlan0 dst 192.168.77.9 self permanent"
                .into(),
            fdb,
        ),
        (
            "bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 192.168.77.9 self permanent".into(),
            fdb,
        ),
        (format!("bridge fdb del 02:42:0a:00:01:0b dev {port} master static"), fdb),
        ("ip neigh del 10.0.1.13 dev vxlan0".into(), neighbour),
        (
            "ip neigh replace 10.0.1.13 lladdr 02:00:00:00:00:01 dev br0 nud permanent".into(),
            neighbour,
        ),
        (
            "ip neigh replace 10.0.1.77 lladdr 02:00:00:00:00:01 dev br0 nud permanent".into(),
            neighbour,
        ),
        ("ip route del 10.0.1.0/24 dev br0".into(), Changes { routes: 1, ..none }),
        ("ip addr del 10.0.1.1/24 dev br0".into(), Changes { addresses: 1, ..none }),
        ("ip addr del 10.0.1.2/32 dev br0".into(), Changes { addresses: 1, ..none }),
        ("ip addr add 10.0.1.50/32 dev br0".into(), Changes { addresses: 1, ..none }),
        ("sysctl -qw net.ipv4.ip_forward=0".into(), Changes { sysctls: 1, ..none }),
        ("ip link set vxlan0 nomaster".into(), link),
        ("ip link set br0 mtu 1300".into(), link),
        (format!("bridge link set dev {port} hairpin off"), link),
    ];
    for (drift, expected) in cases {
        run_in(&inside, &drift);
        assert_eq!(a.ensure(&net).await.unwrap(), expected, "{drift}");
        assert_eq!(a.ensure(&net).await.unwrap(), none, "after {drift}");
        assert!(pings_again(&t1, addr(13)) && pings_again(&t1, addr(2)), "after {drift}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_devices_are_repaired() {
    let lab = Lab::new();
    let (a, b) = (lab.overlay('A').await, lab.overlay('B').await);
    let net = network("net", 4097, 'A', &[11], &[13]);
    a.ensure(&net).await.unwrap();
    b.ensure(&network("net", 4097, 'B', &[13], &[11])).await.unwrap();
    let t1 = task(&a, "t1", "net", 11).await.netns;
    task(&b, "t3", "net", 13).await;
    let inside = a.network_netns("net");
    for drift in
        ["ip link del br0", "ip link del vxlan0", "ip link set br0 down", "ip link set vxlan0 down"]
    {
        run_in(&inside, drift);
        assert!(!pings(&t1, addr(13)), "{drift} breaks nothing");
        let changes = a.ensure(&net).await.unwrap();
        assert!(changes.links > 0, "{drift}: {changes}");
        assert!(pings_again(&t1, addr(13)), "after {drift}: {changes}");
        assert_eq!(a.ensure(&net).await.unwrap(), Changes::default(), "after {drift}");
    }
    let wanted = sandbox("t1", &[("net", addr(11))], false);
    run_in(&t1, "ip link del eth0");
    a.create_sandbox(&wanted).await.unwrap();
    assert!(pings_again(&t1, addr(13)), "after eth0 was deleted");
    // As after a crash in the middle: the port has no alias yet.
    let port = run_in(&inside, "ip -br link show type veth");
    let port = port.split(['@', ' ']).next().unwrap();
    run_in(&inside, &format!("ip link set {port} alias -"));
    run_in(&inside, &format!("ip link set {port} nomaster"));
    a.create_sandbox(&wanted).await.unwrap();
    assert!(pings_again(&t1, addr(13)), "after a half-made sandbox");
    run_in(&t1, "ip addr del 10.0.1.11/24 dev eth0");
    let changes = a.create_sandbox(&wanted).await.unwrap().changes;
    assert_eq!((changes.addresses, changes.total()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_namespace_that_was_unmounted_is_made_anew() {
    let lab = Lab::new();
    let a = lab.overlay('A').await;
    let net = network("net", 4097, 'A', &[11], &[]);
    a.ensure(&net).await.unwrap();
    let t1 = task(&a, "t1", "net", 11).await.netns;
    // The devices go with the namespace only when the last user has left; a VNI can be used once per host.
    run_in(&a.network_netns("net"), "ip link del vxlan0");
    lab::run(&format!("umount -l {}", a.network_netns("net").display()));
    assert!(a.list().unwrap().networks.is_empty());
    assert_eq!(a.ensure(&net).await.unwrap().namespaces, 1);
    task(&a, "t1", "net", 11).await;
    assert!(pings(&t1, addr(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_adopts_networks_sandboxes_and_egress_addresses() {
    let lab = Lab::new();
    let net = network("net", 4097, 'A', &[11, 12], &[13]);
    let wanted = sandbox("t1", &[("net", addr(11))], true);
    let first = lab.overlay('A').await;
    first.ensure(&net).await.unwrap();
    let made = first.create_sandbox(&wanted).await.unwrap();
    drop(first);

    let second = lab.overlay('A').await;
    let existing = second.list().unwrap();
    assert_eq!(existing.networks, ["net"]);
    assert_eq!(existing.sandboxes, ["t1"]);
    assert_eq!(second.ensure(&net).await.unwrap(), Changes::default());
    let adopted = second.create_sandbox(&wanted).await.unwrap();
    assert_eq!(adopted.changes, Changes::default());
    assert_eq!(adopted.egress_addr, made.egress_addr);
    let other = sandbox("t2", &[("net", addr(12))], true);
    let other = second.create_sandbox(&other).await.unwrap();
    assert_ne!(other.egress_addr, made.egress_addr, "given out twice");
    assert!(pings(&made.netns, addr(12)));
}

#[tokio::test(flavor = "multi_thread")]
async fn audits_and_changes_of_sandboxes_do_not_disturb_each_other() {
    let lab = Lab::new();
    let a = lab.overlay('A').await;
    let net = network("net", 4097, 'A', &[11, 12, 13, 14], &[21]);
    a.ensure(&net).await.unwrap();
    let work = (11..15).map(|last| {
        let a = a.clone();
        tokio::spawn(async move {
            let wanted = sandbox(&format!("t{last}"), &[("net", addr(last))], true);
            for _ in 0..5 {
                a.create_sandbox(&wanted).await.unwrap();
                a.remove_sandbox(&wanted.task).await.unwrap();
            }
        })
    });
    let work: Vec<_> = work.collect();
    while !work.iter().all(|one| one.is_finished()) {
        a.ensure(&net).await.unwrap();
        a.ensure_host().await.unwrap();
    }
    for one in work {
        one.await.unwrap();
    }
    assert_eq!(a.ensure(&net).await.unwrap(), Changes::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_leaves_nothing_behind() {
    let lab = Lab::new();
    let a = lab.overlay('A').await;
    let net = network("net", 4097, 'A', &[11, 12], &[13]);
    a.ensure(&net).await.unwrap();
    for (name, last) in [("t1", 11), ("t2", 12)] {
        let wanted = sandbox(name, &[("net", addr(last))], true);
        a.create_sandbox(&wanted).await.unwrap();
    }
    let host = lab.host_netns('A');
    a.remove_sandbox("t1").await.unwrap();
    assert_eq!(a.list().unwrap().sandboxes, ["t2"]);
    a.remove("net").await.unwrap();
    assert!(a.list().unwrap().networks.is_empty());
    assert_eq!(run_in(&host, "ss -Huln sport = 4789"), "", "the port is free");
    a.remove("net").await.unwrap();
    a.remove_sandbox("t1").await.unwrap();

    a.destroy().await.unwrap();
    let links = run_in(&host, "ip -br link");
    let names: Vec<&str> = links.lines().filter_map(|l| l.split(['@', ' ']).next()).collect();
    assert_eq!(names, ["lo", "cable", "uplink"]);
    assert_eq!(run_in(&host, "nft list tables"), "");
    let folder = lab.run_dir('A').join("netns");
    assert!(!folder.exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()), "{mounts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_a_reason_and_changes_nothing() {
    let lab = Lab::new();
    let a = lab.overlay('A').await;
    let refused = a.ensure(&network("../x", 4097, 'A', &[], &[])).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid { .. }), "{refused}");
    let mut own = network("net", 4097, 'A', &[], &[13]);
    own.remote[0].vtep = vtep('A');
    let text = a.ensure(&own).await.unwrap_err().to_string();
    assert_eq!(text, "network net: remote task 10.0.1.13 is behind this node's own address");
    own.remote[0].vtep = "fd00::2".parse().unwrap();
    let text = a.ensure(&own).await.unwrap_err().to_string();
    assert!(text.ends_with("are of different families"), "{text}");
    let refused = a.create_sandbox(&sandbox("t1", &[("net", addr(11))], false)).await;
    let text = refused.unwrap_err().to_string();
    assert_eq!(text, "network net is not set up on this node");
    assert_eq!(a.list().unwrap(), Default::default());

    a.ensure(&network("one", 4097, 'A', &[], &[])).await.unwrap();
    let clash = a.ensure(&network("two", 4097, 'A', &[], &[])).await.unwrap_err();
    assert!(clash.to_string().starts_with("create vxlan device vxlan0 with id 4097: "), "{clash}");
}
