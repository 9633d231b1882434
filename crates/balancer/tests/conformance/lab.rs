//! Hosts, networks and tasks as network namespaces, set up as the overlay does it. All goes when dropped.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use swarm_balancer::{Backend, Network, PortMap, Ports, Protocol, VirtualService};

/// Generous: the machine may be busy, and only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A named network namespace, deleted when dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(label: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("balancer-{}-{count}-{label}", process::id());
        ip(&format!("netns add {name}"));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `ip` inside, once for a command on each line: starting a process takes long where the CPU is emulated.
    pub(crate) fn ip(&self, commands: &str) {
        let arguments = ["-n", &self.name, "-batch", "-"];
        let mut ip = Command::new("ip").args(arguments).stdin(Stdio::piped()).spawn().expect("ip");
        let mut input = ip.stdin.take().expect("ip's input is piped");
        input.write_all(commands.as_bytes()).expect("ip reads its commands");
        drop(input);
        assert!(ip.wait().expect("ip ends").success(), "ip in {}: {commands}", self.name);
    }

    /// Runs a command inside and returns what it printed; panics if it fails.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        self.enter(|| run(Command::new(arguments[0]).args(&arguments[1..])))
    }

    /// Runs `work` on a thread inside. Sockets opened there stay there.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = swarm_netns::Namespace::open(&self.path()).expect("the namespace's file");
        namespace.run_blocking(work).expect("entering the namespace")
    }

    fn sysctl(&self, settings: &[(&str, &str)]) {
        self.enter(|| {
            for (name, value) in settings {
                fs::write(format!("/proc/sys/net/{name}"), value).expect(name);
            }
        });
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing better can be done while dropping, perhaps in a panic.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// One network on one node: its namespace with the bridge.
pub(crate) struct Segment {
    pub(crate) ns: Namespace,
    pub(crate) gateway: Ipv4Addr,
}

/// A task: its namespace with eth0 on the bridge.
pub(crate) struct Task {
    pub(crate) ns: Namespace,
    pub(crate) addr: Ipv4Addr,
}

pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);

impl Segment {
    /// A network 10.0.1.0/24 whose bridge has the VIP.
    pub(crate) fn new(label: &str) -> Self {
        let ns = Namespace::new(label);
        ns.ip(&format!(
            "link add br0 type bridge
            addr add {GATEWAY}/24 dev br0
            addr add {VIP}/32 dev br0
            link set br0 up"
        ));
        ns.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/br0/send_redirects", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/br0/rp_filter", "0"),
            ("bridge/bridge-nf-call-iptables", "1"),
        ]);
        Self { ns, gateway: GATEWAY }
    }

    /// Puts another VIP on the bridge.
    pub(crate) fn vip(&self, vip: Ipv4Addr) {
        self.ns.ip(&format!("addr add {vip}/32 dev br0"));
    }

    /// A task 10.0.1.`last`, reachable when this returns.
    pub(crate) fn task(&self, last: u8) -> Task {
        let addr = Ipv4Addr::new(10, 0, 1, last);
        let task = Task { ns: Namespace::new(&format!("t{last}")), addr };
        self.ns.ip(&format!(
            "link add v{last} type veth peer name eth0 netns {}
            link set v{last} master br0 up
            link set v{last} type bridge_slave hairpin on
            neigh replace {addr} lladdr {} dev br0 nud permanent",
            task.ns.name,
            mac(addr)
        ));
        task.ns.ip(&format!(
            "link set eth0 address {}
            addr add {addr}/24 dev eth0
            link set eth0 up
            route add default via {GATEWAY}",
            mac(addr)
        ));
        task.wait_for(GATEWAY);
        task
    }

    /// Several tasks.
    pub(crate) fn tasks<const N: usize>(&self, last: [u8; N]) -> [Task; N] {
        last.map(|last| self.task(last))
    }

    /// Tells this node where a task behind another tunnel endpoint is.
    pub(crate) fn remote(&self, task: &Task, endpoint: Ipv4Addr) {
        let (addr, mac) = (task.addr, mac(task.addr));
        self.ns.ip(&format!(
            "neigh replace {addr} lladdr {mac} dev vxlan0 nud permanent
            neigh replace {addr} lladdr {mac} dev br0 nud permanent"
        ));
        self.ns.command(&[
            "bridge",
            "fdb",
            "replace",
            &mac,
            "dev",
            "vxlan0",
            "dst",
            &endpoint.to_string(),
            "self",
            "permanent",
        ]);
    }

    /// The desired state with the given services.
    pub(crate) fn network(&self, services: Vec<VirtualService>) -> Network {
        let (id, netns) = (self.ns.name.clone(), self.ns.path());
        Network { id, netns, gateway: self.gateway.into(), services }
    }

    /// The desired state with one service at [`VIP`].
    pub(crate) fn web(&self, backends: Vec<Backend>) -> Network {
        self.network(vec![service(0, VIP, backends)])
    }
}

impl Task {
    /// This task as a backend that runs on the node.
    pub(crate) fn backend(&self) -> Backend {
        Backend { addr: self.addr.into(), weight: 1, local: true }
    }

    /// The same, draining.
    pub(crate) fn draining(&self) -> Backend {
        Backend { weight: 0, ..self.backend() }
    }

    /// Waits until an address answers this task: links and bridge ports come up in their own time.
    pub(crate) fn wait_for(&self, addr: Ipv4Addr) {
        let target = SocketAddrV4::new(addr, 9).into();
        self.ns.enter(|| {
            eventually("an address answers", || {
                let answer = TcpStream::connect_timeout(&target, Duration::from_millis(100));
                answer.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            });
        });
    }
}

/// Two nodes with a network between them over VXLAN; the underlay hosts live as long as this.
pub(crate) struct TwoNodes {
    pub(crate) a: Segment,
    pub(crate) b: Segment,
    _hosts: [Namespace; 2],
}

pub(crate) const ENDPOINT_A: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
pub(crate) const ENDPOINT_B: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);

impl TwoNodes {
    pub(crate) fn new() -> Self {
        let (host_a, host_b) = (Namespace::new("hA"), Namespace::new("hB"));
        host_a.ip(&format!("link add u0 type veth peer name u0 netns {}", host_b.name));
        let a = Self::node(&host_a, ENDPOINT_A, 1);
        let b = Self::node(&host_b, ENDPOINT_B, 2);
        Self { a, b, _hosts: [host_a, host_b] }
    }

    fn node(host: &Namespace, endpoint: Ipv4Addr, number: u8) -> Segment {
        let segment = Segment::new(&format!("n{number}"));
        host.ip(&format!(
            "addr add {endpoint}/24 dev u0
            link set u0 up
            link add vx type vxlan id 4097 dstport 4789 local {endpoint} nolearning proxy
            link set vx netns {} name vxlan0",
            segment.ns.name
        ));
        segment.ns.ip(&format!(
            "link set br0 address 02:53:00:00:00:0{number}
            link set vxlan0 master br0 mtu 1450 up"
        ));
        segment
    }
}

/// A service for tests, with the name, id and mark that go with its number, on all ports.
pub(crate) fn service(number: u32, vip: Ipv4Addr, backends: Vec<Backend>) -> VirtualService {
    VirtualService {
        id: format!("{number}id"),
        name: format!("web-{number}"),
        mark: Some(0x100 + number),
        vip: vip.into(),
        ports: Ports::All,
        backends,
    }
}

/// Some ports, each with where it leads.
pub(crate) fn only(maps: &[(Protocol, u16, u16)]) -> Ports {
    let map = |(protocol, port, target): &(Protocol, u16, u16)| PortMap {
        protocol: *protocol,
        port: *port,
        target: *target,
    };
    Ports::Only(maps.iter().map(map).collect())
}

/// Services with ten backends each, half of them local; nobody calls them.
pub(crate) fn many_services(segment: &Segment, count: u32) -> Network {
    let addr = |net: u8, n: u32| Ipv4Addr::from_bits(u32::from_be_bytes([10, net, 0, 0]) + n);
    let backend = |n| Backend { addr: addr(2, n).into(), weight: 1, local: n.is_multiple_of(2) };
    segment.network(
        (0..count)
            .map(|n| service(n, addr(3, n), (0..10).map(|k| backend(10 * n + k)).collect()))
            .collect(),
    )
}

/// Waits for a condition; panics if it does not come true.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: waited until {what}");
        thread::sleep(Duration::from_millis(5)); // the kernel does not tell when a condition comes true
    }
}

fn mac(addr: Ipv4Addr) -> String {
    let [a, b, c, d] = addr.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the command starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8(output.stdout).expect("text")
}
