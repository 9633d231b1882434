//! The node: what makes it fit or unfit, and the tasks' way out.

mod lab;

use std::fs::Permissions;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use lab::{Lab, addr, connect, listen, network, pings, pings_again, run_in, sandbox};
use swarm_netns::Namespace;
use swarm_overlay::{AddressEvents, Options, Overlay};

const WORLD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2));

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_said() {
    let lab = Lab::new();
    let bind = || UdpSocket::bind("0.0.0.0:4789");
    let taken = Namespace::open(&lab.host_netns('A')).unwrap().run_blocking(bind).unwrap().unwrap();
    let refused = Overlay::new(lab.options('A')).await.unwrap_err();
    let text = refused.to_string();
    assert_eq!(text, "udp port 4789 is in use by another program on this node");
    drop(taken);
    lab.overlay('A').await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_address_is_heard_of() {
    let lab = Lab::new();
    let netns = lab.host_netns('A');
    let mut events = AddressEvents::listen(Some(&netns)).await.unwrap();
    for line in ["ip addr add 192.0.2.77/32 dev lo", "ip addr del 192.0.2.77/32 dev lo"] {
        run_in(&netns, line);
        let heard = tokio::time::timeout(Duration::from_secs(20), events.changed()).await;
        assert_eq!(heard, Ok(true), "{line}");
    }
    let silence = tokio::time::timeout(Duration::from_millis(100), events.changed()).await;
    assert!(silence.is_err(), "nothing else has changed");
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    let lab = Lab::new();
    let text = refusal(&lab, |again| again.uid(65534).gid(65534));
    assert_eq!(text, "setting up networks needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN)");
}

#[test]
fn without_nft_it_says_what_is_missing() {
    let lab = Lab::new();
    let text = refusal(&lab, |again| again.env("PATH", "/nonexistent"));
    assert_eq!(text, "the nft command is missing: install the nftables package");
}

/// What `Overlay::new` says in a process that lacks something: this program again, copied to where anybody may run it.
fn refusal(lab: &Lab, lacking: impl FnOnce(&mut Command) -> &mut Command) -> String {
    let dir = tempfile::TempDir::new().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    let program = dir.path().join("again");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let run_dir = dir.path().join("run");
    let mut again = Command::new(&program);
    again
        .args(["--exact", "--ignored", "--nocapture", "start_here"])
        .env("LAB_RUN_DIR", &run_dir)
        .env("LAB_HOST", lab.host_netns('A'));
    let output = lacking(&mut again).output().unwrap();
    lab::unmount(&run_dir.join("netns"));
    let text = String::from_utf8_lossy(&output.stdout);
    let said = text.lines().find_map(|line| line.strip_prefix("refused: "));
    said.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

#[tokio::test]
#[ignore = "run by `refusal` in a process that lacks something"]
async fn start_here() {
    let (Some(run_dir), Some(host)) =
        (std::env::var_os("LAB_RUN_DIR"), std::env::var_os("LAB_HOST"))
    else {
        return;
    };
    let mut options = Options::new(run_dir, lab::vtep('A'));
    options.host_netns = Some(host.into());
    // On a line of its own, whatever the test harness has printed.
    println!("\nrefused: {}", Overlay::new(options).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_path_address_of_another_node_is_refused() {
    let lab = Lab::new();
    let mut options = lab.options('A');
    options.vtep = lab::vtep('B');
    let text = Overlay::new(options).await.unwrap_err().to_string();
    assert_eq!(text, "data-path address 192.168.77.2 is on no interface of this node");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_tells_its_mtu_routes_and_addresses() {
    let lab = Lab::new();
    let host = lab.host_netns('A');
    run_in(&host, "ip link set cable mtu 1400");
    run_in(&host, "ip route add default via 10.99.0.2");
    run_in(&host, "ip route add 10.20.0.0/16 via 10.99.0.2");
    let a = lab.overlay('A').await;
    assert_eq!(a.underlay_mtu().await.unwrap(), 1400);
    let routes: Vec<String> = a.routes().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["10.20.0.0/16", "10.99.0.0/24", "172.31.240.0/20", "192.168.77.0/24"]);
    let addresses = swarm_overlay::addresses(Some(&host)).await.unwrap();
    assert_eq!(addresses, a.addresses().await.unwrap());
    let uplink = addresses.iter().find(|a| a.interface == "uplink" && a.address.is_ipv4());
    let uplink = uplink.map(|a| (a.address, a.prefix_len));
    assert_eq!(uplink, Some((IpAddr::from([10, 99, 0, 1]), 24)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egress_subnet_that_is_routed_already_is_passed_over() {
    let lab = Lab::new();
    run_in(&lab.host_netns('A'), "ip route add 172.31.0.0/16 via 10.99.0.2");
    let a = lab.overlay('A').await;
    assert_eq!(a.egress_subnet().to_string(), "172.30.240.0/20");
    drop(a);
    run_in(&lab.host_netns('A'), "ip route del 172.31.0.0/16");
    let a = lab.overlay('A').await;
    assert_eq!(a.egress_subnet().to_string(), "172.30.240.0/20", "what is there is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_reach_the_outside_but_not_each_other_that_way() {
    let lab = Lab::new();
    let a = lab.overlay('A').await;
    a.ensure(&network("red", 5001, 'A', &[11], &[])).await.unwrap();
    a.ensure(&network("blue", 5002, 'A', &[12], &[])).await.unwrap();
    let red = sandbox("red", &[("red", addr(11))], true);
    let red = a.create_sandbox(&red).await.unwrap();
    let blue = sandbox("blue", &[("blue", addr(12))], true);
    let blue = a.create_sandbox(&blue).await.unwrap();
    let inner = sandbox("inner", &[("red", addr(13))], false);
    let inner = a.create_sandbox(&inner).await.unwrap();

    assert!(pings(&red.netns, WORLD) && pings(&blue.netns, WORLD));
    assert!(!pings(&inner.netns, WORLD), "an internal task has no way out");
    let world = lab.host_netns('X');
    let listener = listen(&world);
    let port = listener.local_addr().unwrap().port();
    let _stream = connect(&red.netns, (WORLD, port).into()).unwrap();
    let (_, seen) = listener.accept().unwrap();
    assert_eq!(seen.ip(), IpAddr::from([10, 99, 0, 1]), "the node's address");

    let blue_addr = blue.egress_addr.unwrap();
    assert_ne!(red.egress_addr, blue.egress_addr);
    assert!(!pings(&red.netns, blue_addr), "task to task over the egress bridge");
    run_in(&red.netns, &format!("ip route add {blue_addr}/32 via 172.31.240.1"));
    assert!(!pings(&red.netns, blue_addr), "nor routed by the host");
    run_in(&world, "ip route add 172.31.240.0/20 via 10.99.0.1");
    assert!(!pings(&world, blue_addr), "nor from outside");
    assert!(pings(&lab.host_netns('A'), blue_addr), "the node itself does");
}

#[tokio::test(flavor = "multi_thread")]
async fn egress_that_drifts_is_repaired() {
    let lab = Lab::new();
    let a = lab.overlay('A').await;
    let task = a.create_sandbox(&sandbox("t1", &[], true)).await.unwrap();
    let host = lab.host_netns('A');
    for drift in [
        "ip link set swarm_gwbridge down",
        "ip addr flush dev swarm_gwbridge",
        "ip link del swarm_gwbridge",
        "nft flush ruleset",
        "sysctl -qw net.ipv4.ip_forward=0",
    ] {
        assert!(pings(&task.netns, WORLD), "before {drift}");
        run_in(&host, drift);
        assert!(!pings(&task.netns, WORLD), "{drift} breaks nothing");
        a.ensure_host().await.unwrap();
        assert!(pings_again(&task.netns, WORLD), "after {drift}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_has_docker_s_defaults_inside() {
    let lab = Lab::new();
    let a = lab.overlay('A').await;
    a.ensure(&network("net", 4097, 'A', &[11], &[])).await.unwrap();
    let task = a.create_sandbox(&sandbox("t1", &[("net", addr(11))], true)).await.unwrap();
    let sysctl = |name: &str| run_in(&task.netns, &format!("sysctl -n {name}"));
    assert_eq!(sysctl("net.ipv4.ip_unprivileged_port_start").trim(), "0");
    let range = sysctl("net.ipv4.ping_group_range");
    assert_eq!(range.split_whitespace().collect::<Vec<_>>(), ["0", "2147483647"]);
    let links = run_in(&task.netns, "ip -o link");
    assert!(links.contains("eth0") && links.contains("link/ether 02:42:0a:00:01:0b"), "{links}");
    assert!(pings(&task.netns, Ipv4Addr::LOCALHOST.into()));
    let addresses = run_in(&task.netns, "ip -o -6 addr");
    assert!(!addresses.contains("eth"), "{addresses}");
    let ways_out = run_in(&task.netns, "ip route show default");
    assert_eq!(ways_out.trim(), "default via 172.31.240.1 dev eth1");
}
