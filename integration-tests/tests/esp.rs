//! Encrypted networks on a kernel with IPsec ESP: `cargo xtask vm test encrypted` runs it in the VM.
//!
//! One cluster for all, whose underlay is captured from before the network is made until the end: not one packet of it
//! may be in clear. Few processes: there the CPU is emulated, and ciphers are slow.

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use swarm_integration_tests::outage::whoami_in;
use swarm_integration_tests::{Capture, Cluster, Task, eventually, kernel};
use swarm_playground::Node;

/// One more than the data path's.
const PORT: u16 = 4790;
/// What 1500 bytes of underlay leave: IP 20, ESP 8 + 8 + 2 + 16, UDP 8, VXLAN 8, Ethernet 14.
const MTU: usize = 1416;

/// A check of the one cluster.
type Step = fn(&Cluster);

#[test]
#[ignore = "needs a kernel with IPsec ESP: cargo xtask vm test"]
fn encrypted() {
    let cluster = Cluster::with("esp", |options| options.managers = Some(1));
    let captures: Vec<Capture> = cluster.nodes().iter().map(Capture::start).collect();
    let steps: [(&str, Step); 7] = [
        ("every node can encrypt and says how", every_node_can_encrypt),
        ("tasks reach each other on every node", tasks_reach_each_other),
        ("the largest packets pass whole", the_largest_packets_pass_whole),
        ("keys are rotated under traffic without a loss", keys_are_rotated_without_a_loss),
        ("a killed daemon changes nothing", a_killed_daemon_changes_nothing),
        ("a node leaves and joins", a_node_leaves_and_joins),
        ("what was taken away is put back", drift_is_repaired),
    ];
    for (name, step) in steps {
        let started = std::time::Instant::now();
        eprintln!("check {name}");
        step(&cluster);
        assert_nothing_in_clear(&cluster, &captures);
        eprintln!("check {name}: ok ({:.1} s)", started.elapsed().as_secs_f64());
    }
    drop(captures);
    eprintln!("check forged packets reach nobody");
    forged_packets_reach_nobody(&cluster);
}

fn node_of(c: &Cluster, task: &Task) -> Node {
    let found = c.nodes().into_iter().find(|node| node.name() == task.node);
    found.unwrap_or_else(|| panic!("{} is on no node", task.name))
}

/// Runs the sample image's program in a task's namespace.
#[track_caller]
fn whoami(c: &Cluster, from: &Task, line: &str) {
    let said = whoami_in(&node_of(c, from), from, line);
    said.unwrap_or_else(|e| panic!("{line} on {}: {e}", from.node));
}

/// On each host, of all that went by: UDP to the port of encrypted networks, anything of their addresses, fragments.
fn assert_nothing_in_clear(c: &Cluster, captures: &[Capture]) {
    let nodes = c.nodes();
    for (at, capture) in captures.iter().enumerate() {
        flush(capture, &nodes[at], &nodes[(at + 1) % nodes.len()]);
        let wrong = [
            format!("udp port {PORT}"),
            "net 10.0.0.0/16 or arp net 10.0.0.0/16".to_owned(),
            "ip[6:2] & 0x3fff != 0".to_owned(),
        ];
        for filter in wrong {
            let packets = capture.packets(&filter);
            assert_eq!(packets, Vec::<String>::new(), "{} on {}", filter, nodes[at].name());
        }
    }
}

/// Waits until all that went by before is in the file: until a ping that is sent now is.
fn flush(capture: &Capture, from: &Node, to: &Node) {
    let ping =
        format!("icmp[0] == 8 and src host {} and dst host {}", from.address(), to.address());
    let before = capture.packets(&ping).len();
    from.run(["ping", "-c", "1", &to.address().to_string()]).unwrap_or_else(|e| panic!("{e}"));
    eventually("the last packet in the capture", || match capture.packets(&ping).len() {
        same if same == before => Err("no ping".to_owned()),
        _ => Ok(()),
    });
}

fn every_node_can_encrypt(c: &Cluster) {
    for node in c.nodes() {
        let shown = c.inspect(&format!("node inspect {}", node.name()));
        assert_eq!(shown["Description"]["Encryption"]["Cipher"], "rfc4106(gcm(aes))", "{shown}");
    }
    c.create_network("--opt encrypted", "safe");
    c.create_service("web", "--network safe --replicas 3");
    let places: BTreeSet<String> = c.tasks("web").into_iter().map(|task| task.node).collect();
    assert_eq!(places.len(), 3);
}

fn tasks_reach_each_other(c: &Cluster) {
    let (tasks, vip) = (c.tasks("web"), c.vip("web"));
    for from in &tasks {
        whoami(c, from, &format!("get --summary -n 6 --timeout 20 http://{vip}/"));
        for to in tasks.iter().filter(|to| to.id != from.id) {
            whoami(c, from, &format!("ping --timeout 20 {}", to.address()));
        }
    }
    assert_peers(c, 1);
}

/// What `network inspect` says: that all nodes send with a generation, and no key.
fn assert_peers(c: &Cluster, generation: u64) {
    eventually("keys in force", || {
        let shown = c.inspect("network inspect safe");
        let peers = shown["Peers"].as_array().cloned().unwrap_or_default();
        let wanted = format!("generation {generation} in force");
        let all = peers.len() == 3 && peers.iter().all(|peer| peer["Keys"] == *wanted);
        let idle = shown["Encryption"]["Rotation"] == "";
        let right = shown["Encryption"]["KeyGeneration"] == generation;
        if all && idle && right { Ok(()) } else { Err(shown.to_string()) }
    });
}

fn the_largest_packets_pass_whole(c: &Cluster) {
    let tasks = c.tasks("web");
    let (from, to) = (&tasks[0], tasks[1].address());
    let link =
        kernel::in_netns(&node_of(c, from), &format!("t-{}", from.id), "ip -o link show eth0");
    assert!(link.contains(&format!(" mtu {MTU} ")), "{link}");
    // IPv4 and ICMP headers have 28 bytes.
    whoami(c, from, &format!("ping --dont-fragment --timeout 20 --size {} {to}", MTU - 28));
    let line = format!("ping --dont-fragment --timeout 1 --size {} {to}", MTU - 27);
    assert!(whoami_in(&node_of(c, from), from, &line).is_err(), "{} bytes pass", MTU + 1);
    whoami(c, from, &format!("echo --timeout 60 http://{to}/ 1000000"));
}

/// Pings and UDP calls without end between two nodes, while `change` happens; none of them may be lost.
fn lossless(c: &Cluster, from: &Task, to: &Task, change: impl FnOnce()) {
    let node = node_of(c, from);
    let (over, address) = (AtomicBool::new(false), to.address());
    let lines = [
        format!("ping -n 100 --timeout 30 {address}"),
        format!("udp --summary -n 100 --timeout 30 {address}:80"),
    ];
    thread::scope(|scope| {
        let flows: Vec<_> = lines
            .iter()
            .map(|line| {
                let (over, node) = (&over, &node);
                scope.spawn(move || {
                    let mut rounds = 0;
                    while !over.load(Ordering::Acquire) {
                        whoami_in(node, from, line)?;
                        rounds += 1;
                    }
                    Ok::<usize, String>(rounds)
                })
            })
            .collect();
        let stop = StopOnDrop(&over);
        change();
        drop(stop);
        for flow in flows {
            let rounds = flow.join().expect("a flow ends well");
            let rounds = rounds.unwrap_or_else(|e| panic!("packets were lost: {e}"));
            assert!(rounds > 0, "no packet was sent meanwhile");
        }
    });
}

/// Also when this thread panics the flows come to their end, else the scope would wait for them for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn keys_are_rotated_without_a_loss(c: &Cluster) {
    let tasks = c.tasks("web");
    let used = spis(&c.node(1));
    lossless(c, &tasks[0], &tasks[1], || {
        c.ctl("ca --rotate-network-keys");
        assert_peers(c, 2);
    });
    assert!(used.is_disjoint(&spis(&c.node(1))), "associations of the first generation are left");
}

/// The indexes of the security associations on a host.
fn spis(node: &Node) -> BTreeSet<String> {
    let states = node.run(["ip", "xfrm", "state"]).unwrap_or_else(|e| panic!("{e}"));
    let words: Vec<&str> = states.split_whitespace().collect();
    let found: BTreeSet<String> =
        words.windows(2).filter(|pair| pair[0] == "spi").map(|pair| pair[1].to_owned()).collect();
    assert!(!found.is_empty(), "{states}");
    found
}

/// The one of the only manager: nobody takes its node for dead, however long it is down.
fn a_killed_daemon_changes_nothing(c: &Cluster) {
    let tasks = c.tasks("web");
    let node = c.node(1);
    let from = tasks.iter().find(|task| task.node == node.name()).expect("a task there");
    let to = tasks.iter().find(|task| task.node != from.node).expect("a task elsewhere");
    let before = spis(&node);
    lossless(c, from, to, || {
        node.kill_daemon().unwrap();
        node.start_daemon().unwrap();
        node.wait_for_daemon().unwrap();
        assert_peers(c, 2);
    });
    assert_eq!(spis(&node), before);
}

fn a_node_leaves_and_joins(c: &Cluster) {
    let three = c.client_of(3);
    three.ctl("leave");
    let left = c.node(3).run(["ip", "xfrm", "policy"]).unwrap();
    assert!(!left.contains(&format!("dport {PORT}")), "{left}");
    let token = c.ctl("join-token -q worker").trim().to_owned();
    three.ctl(&format!("join --token {token} {}:2377", c.node(1).address()));
    c.ctl("service update -q --force web");
    eventually("tasks on all three nodes", || {
        let places: BTreeSet<String> = c.tasks("web").into_iter().map(|task| task.node).collect();
        if places.len() == 3 {
            return Ok(());
        }
        c.ctl("service update -q --force web");
        Err(format!("{places:?}"))
    });
    let tasks = c.tasks("web");
    for from in &tasks {
        for to in tasks.iter().filter(|to| to.id != from.id) {
            whoami(c, from, &format!("ping --timeout 20 {}", to.address()));
        }
    }
}

/// Associations that somebody flushed come back with other keys, policies as they were.
fn drift_is_repaired(c: &Cluster) {
    let tasks = c.tasks("web");
    let from = tasks.iter().find(|task| task.node == c.node(2).name()).expect("a task there");
    let to = tasks.iter().find(|task| task.node != from.node).expect("a task elsewhere");
    let incarnation = || {
        let shown = c.inspect(&format!("node inspect {}", c.node(2).name()));
        shown["Description"]["Encryption"]["Incarnation"].as_u64().expect("an incarnation")
    };
    let before = incarnation();
    c.node(2).run(["ip", "xfrm", "state", "flush"]).unwrap();
    eventually("another incarnation", || match incarnation() {
        same if same == before => Err(format!("still {same}")),
        _ => Ok(()),
    });
    eventually("an answer", || {
        whoami_in(&node_of(c, from), from, &format!("ping --timeout 2 {}", to.address()))
            .map(|_| ())
    });
    let log = std::fs::read_to_string(c.node(2).log_file()).unwrap();
    assert!(log.contains("had drifted, repaired"), "{log}");
}

/// As CVE-2023-28840 to 28842 had it: VXLAN packets in clear from an outsider, and from one that claims to be a peer.
fn forged_packets_reach_nobody(c: &Cluster) {
    let tasks = c.tasks("web");
    let target = tasks.iter().find(|task| task.node == c.node(2).name()).expect("a task there");
    let from = tasks.iter().find(|task| task.node == c.node(1).name()).expect("a task there");
    let vni = c.inspect("network inspect safe")["Options"]
        ["com.docker.network.driver.overlay.vxlanid_list"]
        .as_str()
        .and_then(|vni| vni.parse().ok())
        .expect("a vni");
    let frame = Forged { from: from.address(), to: target.address(), vni };
    let node = c.node(2);
    for source in [c.playground().gateway(), c.node(1).address()] {
        let (received, dropped) = (echoes(&node, target), drops(&node));
        for _ in 0..5 {
            frame.send(source, node.address());
        }
        eventually("dropped packets", || match drops(&node) - dropped {
            5.. => Ok(()),
            some => Err(format!("{some} of 5 from {source}")),
        });
        assert_eq!(echoes(&node, target), received, "from {source}");
    }
}

/// ICMP echo requests that a task took.
fn echoes(node: &Node, task: &Task) -> u64 {
    let table = kernel::in_netns(node, &format!("t-{}", task.id), "cat /proc/net/snmp");
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let at = names.split(' ').position(|name| name == "InEchos").expect("a counter");
    values.split(' ').nth(at).and_then(|value| value.parse().ok()).expect("a number")
}

/// Packets that IPsec dropped for being in clear.
fn drops(node: &Node) -> u64 {
    let counters = node.run(["cat", "/proc/net/xfrm_stat"]).unwrap();
    let dropped = counters.lines().filter_map(|line| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        let counts = ["XfrmInPolBlock", "XfrmInTmplMismatch"].contains(&name);
        value.trim().parse::<u64>().ok().filter(|_| counts)
    });
    dropped.sum()
}

/// A ping of a task, as a VXLAN packet in clear.
struct Forged {
    from: Ipv4Addr,
    to: Ipv4Addr,
    vni: u32,
}

impl Forged {
    /// To a node's port of encrypted networks, with any source address.
    fn send(&self, source: Ipv4Addr, node: Ipv4Addr) {
        let vxlan = [0x0800_0000u32.to_be_bytes(), (self.vni << 8).to_be_bytes()].concat();
        let payload = [vxlan, self.frame()].concat();
        let length = u16::try_from(8 + payload.len()).expect("a short packet");
        let mut udp = Vec::new();
        for field in [40_000, PORT, length, 0] {
            udp.extend(field.to_be_bytes());
        }
        let packet = ip(source, node, 17, &[udp, payload].concat());
        let (raw, flags) = (SockType::Raw, SockFlag::empty());
        let socket = socket(AddressFamily::Inet, raw, flags, SockProtocol::Raw)
            .unwrap_or_else(|e| panic!("raw socket: {e}"));
        let [a, b, c, d] = node.octets();
        sendto(socket.as_raw_fd(), &packet, &SockaddrIn::new(a, b, c, d, 0), MsgFlags::empty())
            .unwrap_or_else(|e| panic!("send as {source}: {e}"));
    }

    fn frame(&self) -> Vec<u8> {
        let mut icmp = vec![8, 0, 0, 0, 0, 1, 0, 1];
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mac = |address: Ipv4Addr| [&[0x02, 0x42][..], &address.octets()].concat();
        [mac(self.to), mac(self.from), vec![8, 0], ip(self.from, self.to, 1, &icmp)].concat()
    }
}

/// An IPv4 packet (RFC 791).
fn ip(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("a short packet").to_be_bytes();
    let start = [0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, protocol, 0, 0];
    let mut header = [&start[..], &from.octets(), &to.octets()].concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header, payload].concat()
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}
