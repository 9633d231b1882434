//! Tasks on networks across two hosts: who reaches whom.

mod lab;

use std::net::IpAddr;

use lab::{Lab, addr, network, pings, run_in, sandbox, task, transfer, vtep};
use swarm_overlay::{Network, Overlay, Remote};

#[tokio::test(flavor = "multi_thread")]
async fn tasks_reach_each_other_on_one_host_and_across_hosts() {
    let lab = Lab::new();
    let (a, b) = (lab.overlay('A').await, lab.overlay('B').await);
    a.ensure(&network("net", 4097, 'A', &[11, 12], &[13])).await.unwrap();
    b.ensure(&network("net", 4097, 'B', &[13], &[11, 12])).await.unwrap();
    let t1 = task(&a, "t1", "net", 11).await.netns;
    let t2 = task(&a, "t2", "net", 12).await.netns;
    let t3 = task(&b, "t3", "net", 13).await.netns;

    assert!(pings(&t1, addr(12)), "on one host");
    assert!(pings(&t1, addr(13)), "across hosts");
    assert!(pings(&t3, addr(12)), "and back");
    assert!(pings(&t1, addr(2)), "the VIP answers");
    assert!(pings(&t3, addr(1)), "the gateway answers");
    assert!(!pings(&t1, addr(99)), "an address nobody has does not");
    transfer(&t1, &t3, addr(13));
    transfer(&t2, &t1, addr(11));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_gets_what_is_meant_for_it_and_nothing_else() {
    let lab = Lab::new();
    let (a, b) = (lab.overlay('A').await, lab.overlay('B').await);
    a.ensure(&network("net", 4097, 'A', &[11, 12, 14], &[13])).await.unwrap();
    b.ensure(&network("net", 4097, 'B', &[13], &[11, 12, 14])).await.unwrap();
    let t1 = task(&a, "t1", "net", 11).await.netns;
    task(&b, "t3", "net", 13).await;
    let silent = task(&a, "silent", "net", 12).await.netns;
    let bystander = task(&a, "bystander", "net", 14).await.netns;
    // ARP requests go to everybody, so what is counted must come after them.
    assert!(pings(&t1, addr(13)));
    run_in(&t1, "ip neigh replace 10.0.1.12 lladdr 02:42:0a:00:01:0c dev eth0 nud permanent");
    let before = received(&bystander);

    for _ in 0..5 {
        assert!(pings(&t1, addr(13)));
    }
    assert_eq!(received(&bystander), before, "frames to another host were flooded");
    // The bridge has never seen a frame of this task, and still knows where it is.
    assert_eq!(received(&silent), before);
    assert!(pings(&t1, addr(12)));
    assert!(received(&silent) > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_may_have_ports_of_their_own() {
    let lab = Lab::new();
    let (a, b) = (lab.overlay('A').await, lab.overlay('B').await);
    for (id, vni, port, here, there) in [("one", 5001, 4789, 11, 13), ("two", 5002, 4790, 21, 23)] {
        let on = |host, local: u8, remote: u8| Network {
            port,
            ..network(id, vni, host, &[local], &[remote])
        };
        a.ensure(&on('A', here, there)).await.unwrap();
        b.ensure(&on('B', there, here)).await.unwrap();
        let made = task(&a, &format!("{id}-a"), id, here).await.netns;
        task(&b, &format!("{id}-b"), id, there).await;
        assert!(pings(&made, addr(there)), "on port {port}");
        let device = run_in(&a.network_netns(id), "ip -d link show vxlan0");
        assert!(device.contains(&format!("dstport {port} ")), "{device}");
    }
    // Moving a network to another port is a new device.
    let moved = Network { port: 4791, ..network("two", 5002, 'A', &[21], &[23]) };
    assert_eq!(a.ensure(&moved).await.unwrap().links, 1);
    assert!(a.ensure(&moved).await.unwrap().is_empty());
}

/// Frames that arrived on `eth0`.
fn received(netns: &std::path::Path) -> u64 {
    let table = run_in(netns, "cat /proc/net/dev");
    let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_are_isolated_even_with_the_same_subnet() {
    let lab = Lab::new();
    let (a, b) = (lab.overlay('A').await, lab.overlay('B').await);
    for (id, vni, here, there) in [("red", 5001, 11, 13), ("blue", 5002, 21, 23)] {
        a.ensure(&network(id, vni, 'A', &[here], &[there])).await.unwrap();
        b.ensure(&network(id, vni, 'B', &[there], &[here])).await.unwrap();
        task(&a, &format!("{id}-a"), id, here).await;
        task(&b, &format!("{id}-b"), id, there).await;
    }
    let (red, blue) = (a.sandbox_netns("red-a"), a.sandbox_netns("blue-a"));
    assert!(pings(&red, addr(13)) && pings(&blue, addr(23)));
    for unreachable in [21, 23] {
        assert!(!pings(&red, addr(unreachable)), "red reached {unreachable}");
    }
    for unreachable in [11, 13] {
        assert!(!pings(&blue, addr(unreachable)), "blue reached {unreachable}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_two_networks_reaches_both() {
    let lab = Lab::new();
    let (a, b) = (lab.overlay('A').await, lab.overlay('B').await);
    let second = |host, local: &[u8], remote: &[u8]| {
        let mut net = network("two", 5002, host, local, remote);
        let shift = |ip: &mut IpAddr| {
            let IpAddr::V4(v4) = ip else { panic!("IPv6") };
            *ip = [10, 0, 2, v4.octets()[3]].into();
        };
        net.subnet = "10.0.2.0/24".parse().unwrap();
        shift(&mut net.gateway);
        net.vips.iter_mut().for_each(shift);
        net.local.iter_mut().for_each(shift);
        net.remote.iter_mut().for_each(|r| shift(&mut r.addr));
        net
    };
    a.ensure(&network("one", 5001, 'A', &[11], &[13])).await.unwrap();
    b.ensure(&network("one", 5001, 'B', &[13], &[11])).await.unwrap();
    a.ensure(&second('A', &[11], &[23])).await.unwrap();
    b.ensure(&second('B', &[23], &[11])).await.unwrap();

    let both = sandbox("both", &[("one", addr(11)), ("two", [10, 0, 2, 11].into())], false);
    let both = a.create_sandbox(&both).await.unwrap().netns;
    task(&b, "in-one", "one", 13).await;
    let in_two = sandbox("in-two", &[("two", [10, 0, 2, 23].into())], false);
    let in_two = b.create_sandbox(&in_two).await.unwrap().netns;

    assert!(pings(&both, addr(13)));
    assert!(pings(&both, [10, 0, 2, 23].into()));
    assert!(pings(&in_two, [10, 0, 2, 11].into()));
    assert!(!pings(&in_two, addr(13)), "no way from one network to the other");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_moves_to_the_other_host_and_back() {
    let lab = Lab::new();
    let (a, b) = (lab.overlay('A').await, lab.overlay('B').await);
    a.ensure(&network("net", 4097, 'A', &[11, 12], &[13])).await.unwrap();
    b.ensure(&network("net", 4097, 'B', &[13], &[11, 12])).await.unwrap();
    let on_a = task(&a, "on-a", "net", 11).await.netns;
    let on_b = task(&b, "on-b", "net", 13).await.netns;
    task(&a, "mover", "net", 12).await;
    assert!(pings(&on_a, addr(12)) && pings(&on_b, addr(12)));

    for to_b in [true, false] {
        let (from, to) = if to_b { (&a, &b) } else { (&b, &a) };
        from.remove_sandbox("mover").await.unwrap();
        let (at_a, at_b): (&[u8], &[u8]) =
            if to_b { (&[11], &[12, 13]) } else { (&[11, 12], &[13]) };
        let changes = a.ensure(&network("net", 4097, 'A', at_a, at_b)).await.unwrap();
        assert_eq!((changes.fdb, changes.neighbours, changes.total()), (1, 1, 2));
        b.ensure(&network("net", 4097, 'B', at_b, at_a)).await.unwrap();
        task(to, "mover", "net", 12).await;
        assert!(pings(&on_a, addr(12)), "from A, moved to B: {to_b}");
        assert!(pings(&on_b, addr(12)), "from B, moved to B: {to_b}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_endpoint_that_changes_its_vtep_is_replaced_by_one_change() {
    let lab = Lab::new();
    let a = lab.overlay('A').await;
    let mut net = network("net", 4097, 'A', &[], &[13]);
    a.ensure(&net).await.unwrap();
    net.remote[0] = Remote { addr: addr(13), vtep: [192, 168, 77, 9].into() };
    let changes = a.ensure(&net).await.unwrap();
    assert_eq!((changes.fdb, changes.total()), (1, 1));
    let fdb = run_in(&a.network_netns("net"), "bridge fdb show dev vxlan0");
    let entries: Vec<&str> = fdb.lines().filter(|line| line.contains("dst")).collect();
    assert_eq!(entries.len(), 1, "{fdb}");
    assert!(entries[0].starts_with("02:42:0a:00:01:0d dst 192.168.77.9 "), "{fdb}");
    assert!(entries[0].trim_end().ends_with("self permanent"), "{fdb}");
    assert!(!fdb.contains(&vtep('B').to_string()), "{fdb}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_underlay_carries_a_network() {
    let lab = Lab::new();
    let mut overlays = Vec::new();
    for (host, own) in [('A', "fd00::1"), ('B', "fd00::2")] {
        let netns = lab.host_netns(host);
        run_in(&netns, &format!("ip addr add {own}/64 dev cable nodad"));
        let mut options = lab.options(host);
        options.vtep = own.parse().unwrap();
        overlays.push(Overlay::new(options).await.unwrap());
    }
    for (overlay, host, other, here, there) in
        [(&overlays[0], 'A', "fd00::2", 11, 13), (&overlays[1], 'B', "fd00::1", 13, 11)]
    {
        let mut net = network("net", 4097, host, &[here], &[there]);
        net.mtu = 1430;
        net.remote[0].vtep = other.parse().unwrap();
        overlay.ensure(&net).await.unwrap();
        let again = overlay.ensure(&net).await.unwrap();
        assert!(again.is_empty(), "{again}");
        let mut wanted = sandbox(&format!("t{here}"), &[("net", addr(here))], false);
        wanted.interfaces[0].mtu = 1430;
        overlay.create_sandbox(&wanted).await.unwrap();
    }
    let (t11, t13) = (overlays[0].sandbox_netns("t11"), overlays[1].sandbox_netns("t13"));
    assert!(pings(&t11, addr(13)));
    transfer(&t11, &t13, addr(13));
}
