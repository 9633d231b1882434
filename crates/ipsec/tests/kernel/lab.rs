//! Two hosts with a task each and an outsider on one underlay, as namespaces; the tasks' network is VXLAN.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::PathBuf,
    time::{Duration, Instant},
};

use swarm_ipsec::{Changes, Desired, Dropped, Ipsec, Key, Options, Sa, Tunnel};
use tempfile::TempDir;

use crate::namespace::{Namespace, PATIENCE};

/// Of encrypted VXLAN.
pub(crate) const PORT: u16 = 4790;

/// A machine on the underlay, with a task.
pub(crate) struct Host {
    pub(crate) number: u8,
    pub(crate) ns: Namespace,
    pub(crate) task: Namespace,
    pub(crate) endpoint: IpAddr,
    pub(crate) ipsec: Ipsec,
    dir: TempDir,
}

/// Everything. A and B are hosts, C is not of the cluster.
pub(crate) struct Lab {
    pub(crate) a: Host,
    pub(crate) b: Host,
    pub(crate) c: Namespace,
    pub(crate) switch: Namespace,
}

/// Which generations of keys a host has for its peer.
#[derive(Debug, Clone)]
pub(crate) struct Generations {
    pub(crate) sending: Option<u32>,
    pub(crate) receiving: Vec<u32>,
}

pub(crate) fn both(generation: u32) -> Generations {
    Generations { sending: Some(generation), receiving: vec![generation] }
}

impl Lab {
    /// Hosts without VXLAN yet.
    pub(crate) async fn new(v6: bool) -> Self {
        let [switch, c, host_a, host_b] = ["sw", "hC", "hA", "hB"].map(Namespace::new);
        let endpoints = [1, 2, 3].map(|last| endpoint(v6, last));
        let hosts = [&host_a, &host_b, &c];
        let wires = hosts.iter().zip(["pA", "pB", "pC"]).map(|(host, port)| {
            let veth = format!("link add {port} type veth peer name e0 netns {}", host.name);
            format!("{veth}\nlink set {port} master u0 up\n")
        });
        switch
            .ip(&format!("link add u0 type bridge\nlink set u0 up\n{}", wires.collect::<String>()));
        let prefix = if v6 { "64 nodad" } else { "24" };
        for (host, endpoint) in hosts.into_iter().zip(endpoints) {
            host.ip(&format!("addr add {endpoint}/{prefix} dev e0\nlink set e0 up"));
        }
        let a = Host::new(1, host_a, endpoints[0]).await;
        let b = Host::new(2, host_b, endpoints[1]).await;
        Self { a, b, c, switch }
    }

    /// Makes the network between the tasks, which are 10.0.2.1 and 10.0.2.2.
    pub(crate) fn connect(&self, mtu: u32) {
        for (host, peer) in [(&self.a, &self.b), (&self.b, &self.a)] {
            host.ns.ip(&format!(
                "link add vx type vxlan id 4098 dstport {PORT} local {} remote {} nolearning
                link set vx netns {} name eth0",
                host.endpoint, peer.endpoint, host.task.name
            ));
            host.task.ip(&format!(
                "link set eth0 address {} mtu {mtu} up
                addr add {}/24 dev eth0
                neigh replace {} lladdr {} dev eth0 nud permanent",
                mac(host.number),
                host.task_address(),
                peer.task_address(),
                mac(peer.number)
            ));
        }
    }

    /// Has both hosts deny what no key protects.
    pub(crate) async fn deny(&self) {
        for host in [&self.a, &self.b] {
            host.ipsec.program(&host.desired(vec![])).await.expect("deny");
        }
    }

    /// Gives both hosts the same generations.
    pub(crate) async fn key(&self, generations: &Generations) {
        self.give(&self.a, generations).await;
        self.give(&self.b, generations).await;
    }

    /// Gives one host its keys.
    pub(crate) async fn give(&self, host: &Host, generations: &Generations) -> Changes {
        let desired = host.desired(vec![self.tunnel(host, generations)]);
        host.ipsec.program(&desired).await.expect("program")
    }

    /// What managers would tell `host` of its peer: keys depend on the sender's incarnation and the generation.
    pub(crate) fn tunnel(&self, host: &Host, generations: &Generations) -> Tunnel {
        let peer = if host.number == 1 { &self.b } else { &self.a };
        let receiving = generations.receiving.iter().map(|generation| sa(peer, *generation));
        Tunnel {
            remote: peer.endpoint,
            reqid: peer.number.into(),
            sending: generations.sending.map(|generation| sa(host, generation)),
            receiving: receiving.collect(),
        }
    }
}

impl Host {
    async fn new(number: u8, ns: Namespace, endpoint: IpAddr) -> Self {
        let task = Namespace::new(&format!("t{number}"));
        let dir = TempDir::new().expect("a directory");
        let ipsec = open(dir.path().into(), ns.path()).await;
        Self { number, ns, task, endpoint, ipsec, dir }
    }

    /// As another process would.
    pub(crate) async fn restart(&mut self) {
        self.ipsec = open(self.dir.path().into(), self.ns.path()).await;
    }

    pub(crate) fn desired(&self, tunnels: Vec<Tunnel>) -> Desired {
        Desired { local: self.endpoint, port: PORT, deny: true, tunnels }
    }

    pub(crate) fn task_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 2, self.number)
    }

    /// A socket of the task's.
    pub(crate) fn socket(&self, port: u16) -> UdpSocket {
        let address = (self.task_address(), port);
        self.task.enter(|| UdpSocket::bind(address)).expect("the task has its address")
    }

    /// Waits until the counters are as they should be.
    pub(crate) async fn drops(&self, what: &str, as_expected: impl Fn(Dropped) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.ipsec.status().await.expect("status");
            let dropped = status.dropped.expect("Debian's kernel counts");
            if as_expected(dropped) {
                return;
            }
            assert!(Instant::now() < deadline, "{what} is not counted as dropped: {dropped:?}");
            tokio::time::sleep(Duration::from_millis(20)).await; // before the counters are looked at again
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        *self.ipsec.incarnation().borrow()
    }
}

async fn open(dir: PathBuf, host_netns: PathBuf) -> Ipsec {
    Ipsec::open(Options { dir, host_netns: Some(host_netns) }).await.expect("open")
}

/// What `from` sends with.
fn sa(from: &Host, generation: u32) -> Sa {
    let mut key = [from.number; 20];
    key[..8].copy_from_slice(&from.incarnation().to_ne_bytes());
    key[8..12].copy_from_slice(&generation.to_ne_bytes());
    Sa { spi: 0x1000 * u32::from(from.number) + generation, key: Key::new(key) }
}

fn endpoint(v6: bool, last: u8) -> IpAddr {
    if v6 { [0xfd77, 0, 0, 0, 0, 0, 0, last.into()].into() } else { [192, 168, 77, last].into() }
}

pub(crate) fn mac(number: u8) -> String {
    format!("02:42:0a:00:02:{number:02x}")
}
