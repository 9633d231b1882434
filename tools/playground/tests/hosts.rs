//! Real hosts in namespaces, with a daemon that stands in for `swarmd`: it listens, and it starts a process that must die with the host.

mod common;

use common::{leftovers, options, script, unique_name, up};
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use swarm_playground::{Cut, Error, Node, NodeState, Playground, wait_until};
use tempfile::TempDir;

#[test]
#[ignore = "no test: the daemon that the hosts of the other tests run"]
fn stand_in_daemon() {
    common::run_stand_in_daemon();
}

fn pings(from: &Node, to: &str) -> bool {
    from.exec(["ping", "-c1", "-W1", to]).unwrap().status.success()
}

/// After a partition or a power cut neighbour entries are in their retry interval: an answer may take a second.
fn wait_for_ping(from: &Node, to: &str) {
    wait_until("an answer to ping", Duration::from_secs(5), || {
        if pings(from, to) { Ok(()) } else { Err(format!("{} does not reach {to}", from.name())) }
    })
    .unwrap();
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Asks the stand-in daemon; `None` when it does not answer at once.
fn answer(node: &Node) -> Option<String> {
    let mut stream = UnixStream::connect(node.path_of("/run/swarmd/swarmd.sock").unwrap()).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn hosts_are_hosts() {
    let f = up("h", 3);
    let (one, three) = (f.playground.node(1), f.playground.node(3));
    assert_eq!(one.run(["hostname"]).unwrap().trim(), one.name());
    let init = read(&one.path_of("/proc/1/cmdline").unwrap());
    assert!(init.contains("\0init\0"), "a /proc of its own: {init:?}");
    assert!(pings(&one, &three.address().to_string()), "host to host by address");
    assert!(pings(&three, one.name()), "host to host by name");
    assert!(pings(&one, &f.playground.gateway().to_string()), "host to machine");
    let machine =
        Command::new("ping").args(["-c1", "-W1", &one.address().to_string()]).output().unwrap();
    assert!(machine.status.success(), "machine to host");

    let processes = one.run(["sh", "-c", "cat /proc/[0-9]*/comm"]).unwrap();
    assert!(processes.contains("sleep") && !processes.contains("systemd"), "{processes}");
    assert_eq!(
        one.run(["cat", "/proc/self/cgroup"])
            .unwrap()
            .lines()
            .filter(|l| l.contains(one.name()))
            .count(),
        0
    );
    let links = one.run(["ls", "/sys/class/net"]).unwrap();
    assert_eq!(
        links.split_whitespace().collect::<Vec<_>>(),
        ["eth0", "lo"],
        "sysfs of its own network"
    );
    one.run(["mkdir", "/sys/fs/cgroup/memory/a-task"])
        .or_else(|_| one.run(["mkdir", "/sys/fs/cgroup/a-task"]))
        .unwrap();
    let forwarding = one.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).unwrap();
    assert_eq!(forwarding.trim(), "0", "as on a fresh host");
    let host = one.run(["sh", "-c", "echo $SWARM_HOST"]).unwrap();
    assert_eq!(host.trim(), "unix:///run/swarmd/swarmd.sock");

    let own = std::env::current_dir().unwrap();
    assert_eq!(one.run(["pwd"]).unwrap().trim(), own.to_str().unwrap());
    let netns = one.run(["grep", "-c", " /run/netns/", "/proc/mounts"]).unwrap_err();
    assert!(netns.to_string().ends_with(": 0"), "none of the machine's namespaces: {netns}");
    assert_eq!(one.exec(["sh", "-c", "exit 7"]).unwrap().status.code(), Some(7));
    let error = one.run(["ls", "/does-not-exist"]).unwrap_err().to_string();
    assert!(error.contains(one.name()) && error.contains("No such file"), "{error}");
}

/// A network beyond the machine that knows no way back to the playground: only masqueraded packets are answered.
struct Outside(String);

impl Outside {
    const ADDRESS: &str = "198.18.231.2";

    fn new(test: &str) -> Self {
        let name = unique_name(test);
        let outside = Self(name.clone());
        for command in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("addr add 198.18.231.1/24 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add {}/24 dev eth0", Self::ADDRESS),
            format!("-n {name} link set eth0 up"),
        ] {
            let done = Command::new("ip").args(command.split(' ')).status().unwrap();
            assert!(done.success(), "ip {command}");
        }
        outside
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // Best effort: either may be missing when `new` failed.
        for kind in ["link", "netns"] {
            let _ = Command::new("ip").args([kind, "del", &self.0]).status();
        }
    }
}

#[test]
fn hosts_reach_the_outside_through_the_machine() {
    let _outside = Outside::new("oo");
    let f = up("o", 1);
    assert!(pings(&f.playground.node(1), Outside::ADDRESS));
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_lets_hosts_pass_while_they_are_there() {
    // A thread of its own, as it leaves the machine's network namespace: what it makes is a machine with such a firewall.
    let machine = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let chain =
            "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
        for rules in ["add table ip filter", chain] {
            assert!(Command::new("nft").arg(rules).status().unwrap().success());
        }
        let _outside = Outside::new("ww");
        let f = up("w", 1);
        assert!(pings(&f.playground.node(1), Outside::ADDRESS));
        drop(f);
        let list = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        assert!(list.contains("policy drop") && !list.contains("accept"), "{list}");
    });
    machine.join().unwrap();
}

#[test]
fn a_cut_host_hears_nothing_until_it_is_healed() {
    let f = up("c", 3);
    let [one, two, three] = f.playground.nodes().try_into().unwrap();
    let to = |node: &Node| node.address().to_string();
    two.cut(Cut::Both).unwrap();
    assert!(!pings(&one, &to(&two)) && !pings(&two, &to(&three)));
    assert!(pings(&one, &to(&three)), "the others are not cut");
    let carrier = two.run(["cat", "/sys/class/net/eth0/carrier"]).unwrap();
    assert_eq!(carrier.trim(), "1", "a cut host does not notice");
    two.heal().unwrap();
    wait_for_ping(&one, &to(&two));
    two.heal().unwrap();

    // One way: what one sends to two arrives (its counter grows), no answer comes back.
    two.cut(Cut::FromHost).unwrap();
    let received = || -> u64 {
        let text = two.run(["cat", "/sys/class/net/eth0/statistics/rx_packets"]).unwrap();
        text.trim().parse().unwrap()
    };
    let before = received();
    assert!(!pings(&one, &to(&two)));
    assert!(received() > before);
    two.heal().unwrap();
    two.cut(Cut::ToHost).unwrap();
    assert!(!pings(&one, &to(&two)));
    two.heal().unwrap();
    wait_for_ping(&two, &to(&one));
}

#[test]
fn a_paused_host_stands_still() {
    let f = up("p", 1);
    let node = f.playground.node(1);
    assert_eq!(answer(&node).as_deref(), Some("pong"));
    node.pause().unwrap();
    assert_eq!(node.state().unwrap(), NodeState::Paused);
    assert_eq!(answer(&node), None);
    let error = node.exec(["true"]).unwrap_err();
    assert!(matches!(error, Error::NodeState { .. }), "{error}");
    node.resume().unwrap();
    assert_eq!(node.state().unwrap(), NodeState::Running);
    wait_until("an answer", Duration::from_secs(5), || answer(&node).ok_or_else(String::new))
        .unwrap();
    node.pause().unwrap();
    node.kill().unwrap();
    assert_eq!(node.state().unwrap(), NodeState::Off, "a paused host can lose its power");
}

#[test]
fn a_power_cut_ends_everything_and_the_disk_stays() {
    let f = up("k", 2);
    let (one, two) = (f.playground.node(1), f.playground.node(2));
    two.run(["sh", "-c", "setsid sleep 100000 >/dev/null 2>&1 </dev/null & exit 0"]).unwrap();
    let running = two.processes().unwrap();
    assert!(running.len() >= 4, "init, daemon and two sleeps: {running:?}");
    let mac = two.run(["cat", "/sys/class/net/eth0/address"]).unwrap();
    two.kill().unwrap();
    assert_eq!(two.processes().unwrap(), Vec::<i32>::new());
    assert_eq!(two.state().unwrap(), NodeState::Off);
    assert!(!pings(&one, &two.address().to_string()));
    assert!(matches!(two.kill().unwrap_err(), Error::NodeState { .. }));

    two.start().unwrap();
    two.wait_for_daemon().unwrap();
    wait_for_ping(&one, &two.address().to_string());
    assert_eq!(two.run(["cat", "/sys/class/net/eth0/address"]).unwrap(), mac);
    assert_eq!(read(&two.state_dir().join("boots")).lines().count(), 2);
    assert!(matches!(two.start().unwrap_err(), Error::NodeState { .. }));
}

#[test]
fn kill_9_of_init_is_a_power_cut_too() {
    let f = up("i", 1);
    let node = f.playground.node(1);
    let running = node.processes().unwrap();
    let init = *running
        .iter()
        .find(|pid| read(Path::new(&format!("/proc/{pid}/cmdline"))).contains("\0init\0"))
        .unwrap();
    let killed = Command::new("kill").args(["-9", &init.to_string()]).status().unwrap();
    assert!(killed.success());
    wait_until("end of everything", Duration::from_secs(5), || match node.processes().unwrap() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .unwrap();
    assert_eq!(node.state().unwrap(), NodeState::Off);
    node.start().unwrap();
    node.wait_for_daemon().unwrap();
}

#[test]
fn a_killed_daemon_stays_down_and_its_children_live() {
    let f = up("d", 1);
    let node = f.playground.node(1);
    let first = node.daemon_pid().unwrap();
    let shim = read(&node.state_dir().join("shim"));
    node.kill_daemon().unwrap();
    assert_eq!(node.daemon_pid().unwrap(), None);
    assert_eq!(answer(&node), None);
    assert!(matches!(node.kill_daemon().unwrap_err(), Error::Init { .. }));
    let parent = node.run(["sh", "-c", &format!("grep PPid /proc/{shim}/status")]).unwrap();
    assert_eq!(parent.split_whitespace().nth(1), Some("1"), "adopted by init");
    node.start_daemon().unwrap();
    assert_ne!(node.daemon_pid().unwrap(), first);
    assert_eq!(answer(&node).as_deref(), Some("pong"));
    // An orphan that ends is reaped.
    node.run(["kill", "-9", &shim]).unwrap();
    wait_until("reaping", Duration::from_secs(5), || {
        let there = node.path_of(&format!("/proc/{shim}")).unwrap().exists();
        if there { Err(shim.clone()) } else { Ok(()) }
    })
    .unwrap();
    node.stop_daemon().unwrap();
    assert_eq!(node.daemon_pid().unwrap(), None);
}

#[test]
fn nothing_is_left_after_down() {
    let f = up("x", 2);
    let name = f.playground.name().to_owned();
    assert!(leftovers(&name).len() > 10, "the check sees what is there");
    f.playground.node(2).run(["sh", "-c", "mkdir -p /sys/fs/cgroup/*/task/deeper"]).unwrap();
    f.playground.node(1).pause().unwrap();
    Playground::down(&name).unwrap();
    assert_eq!(leftovers(&name), Vec::<String>::new());
    Playground::down(&name).unwrap();
    assert!(matches!(Playground::open(&name), Err(Error::NotUp(_))));
}

#[test]
fn down_needs_no_record() {
    let f = up("y", 1);
    let name = f.playground.name().to_owned();
    fs::remove_dir_all(format!("/run/swarm-playground/{name}")).unwrap();
    Playground::down(&name).unwrap();
    assert_eq!(leftovers(&name), Vec::<String>::new());
}

#[test]
fn two_playgrounds_live_side_by_side() {
    let (a, b) = (up("a", 2), up("b", 2));
    assert_ne!(a.playground.subnet(), b.playground.subnet());
    let again = Playground::up(&options(a.playground.name(), 1, &common::stand_in(a.dir.path())));
    assert!(matches!(again.unwrap_err(), Error::Exists(_)));
    a.playground.node(1).cut(Cut::Both).unwrap();
    let [one, two] = b.playground.nodes().try_into().unwrap();
    assert!(pings(&one, &two.address().to_string()));
    let found = Playground::find_node(two.name()).unwrap();
    assert_eq!(found.address(), two.address());
    drop(a.guard);
    assert!(pings(&one, &two.address().to_string()));
    assert_eq!(Playground::open(b.playground.name()).unwrap().nodes().len(), 2);
}

#[test]
fn a_playground_that_fails_leaves_nothing_and_says_why() {
    let dir = TempDir::new().unwrap();
    let name = unique_name("f");
    let mut options = options(&name, 1, &script(dir.path(), "echo no vxlan here >&2; exit 3"));
    options.form_swarm = true;
    let error = Playground::up(&options).unwrap_err().to_string();
    assert!(error.contains("swarmd ended") && error.contains("no vxlan here"), "{error}");
    assert_eq!(leftovers(&name), Vec::<String>::new());
    options.subnet = Some("127.0.0.0/16".parse().unwrap());
    let error = Playground::up(&options).unwrap_err().to_string();
    assert_eq!(error, "subnet 127.0.0.0/16 clashes with the route 127.0.0.0/8 of this machine");
    assert_eq!(leftovers(&name), Vec::<String>::new());
}
