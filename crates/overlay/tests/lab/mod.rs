//! Two hosts joined by a cable, each with an `Overlay` of its own, and the means to look at what it made.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use swarm_netns::Namespace;
use swarm_overlay::{
    Interface, Network, Options, Overlay, Remote, Sandbox, SandboxHandle, VXLAN_PORT,
};
use tempfile::TempDir;

static LABS: AtomicU32 = AtomicU32::new(0);

/// Hosts A and B at 192.168.77.1 and .2; A also has an uplink to X, which stands for the world, at 10.99.0.2.
pub(crate) struct Lab {
    tag: String,
    dir: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self {
            tag: format!("ov{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed)),
            dir: TempDir::new().unwrap(),
        };
        let [a, b, x] = ["A", "B", "X"].map(|host| format!("{}{host}", lab.tag));
        for host in [&a, &b, &x] {
            run(&format!("ip netns add {host}"));
            run(&format!("ip -n {host} link set lo up"));
        }
        let cable = |one: &str, two: &str, net: &str, name: &str| {
            run(&format!("ip link add {name} netns {one} type veth peer name {name} netns {two}"));
            for (host, last) in [(one, 1), (two, 2)] {
                run(&format!("ip -n {host} addr add {net}.{last}/24 dev {name}"));
                run(&format!("ip -n {host} link set {name} up"));
            }
        };
        cable(&a, &b, "192.168.77", "cable");
        cable(&a, &x, "10.99.0", "uplink");
        lab
    }

    pub(crate) fn host_netns(&self, host: char) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}{host}", self.tag))
    }

    pub(crate) fn run_dir(&self, host: char) -> PathBuf {
        self.dir.path().join(host.to_string())
    }

    pub(crate) fn options(&self, host: char) -> Options {
        let mut options = Options::new(self.run_dir(host), vtep(host));
        options.host_netns = Some(self.host_netns(host));
        options
    }

    pub(crate) async fn overlay(&self, host: char) -> Overlay {
        Overlay::new(self.options(host)).await.unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in ['A', 'B'] {
            let folder = self.run_dir(host).join("netns");
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                quietly(&format!("umount -l {}", entry.path().display()));
            }
            quietly(&format!("umount -l {}", folder.display()));
        }
        for host in ['A', 'B', 'X'] {
            quietly(&format!("ip netns del {}{host}", self.tag));
        }
    }
}

pub(crate) fn vtep(host: char) -> IpAddr {
    IpAddr::from([192, 168, 77, if host == 'A' { 1 } else { 2 }])
}

pub(crate) fn addr(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 1, last])
}

/// Network `id` as the host sees it: who is here, and who is on the other host.
pub(crate) fn network(id: &str, vni: u32, host: char, local: &[u8], remote: &[u8]) -> Network {
    let other = vtep(if host == 'A' { 'B' } else { 'A' });
    Network {
        id: id.into(),
        vni,
        port: VXLAN_PORT,
        subnet: "10.0.1.0/24".parse().unwrap(),
        gateway: addr(1),
        mtu: 1450,
        vips: vec![addr(2)],
        local: local.iter().map(|last| addr(*last)).collect(),
        remote: remote.iter().map(|last| Remote { addr: addr(*last), vtep: other }).collect(),
    }
}

pub(crate) fn sandbox(task: &str, places: &[(&str, IpAddr)], egress: bool) -> Sandbox {
    Sandbox {
        task: task.into(),
        interfaces: places
            .iter()
            .map(|(network, addr)| Interface {
                network: (*network).into(),
                addr: *addr,
                prefix_len: 24,
                mtu: 1450,
            })
            .collect(),
        egress,
    }
}

pub(crate) async fn task(overlay: &Overlay, name: &str, network: &str, last: u8) -> SandboxHandle {
    overlay.create_sandbox(&sandbox(name, &[(network, addr(last))], false)).await.unwrap()
}

fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    Namespace::open(netns).unwrap().run_blocking(work).unwrap()
}

/// Whether `to` answers a ping from the namespace.
pub(crate) fn pings(from: &Path, to: IpAddr) -> bool {
    let mut ping = Command::new("busybox");
    ping.args(["ping", "-c", "1", "-W", "1", &to.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    inside(from, || ping.status()).unwrap().success()
}

/// As [`pings`], but patient: a task that asked while the way was broken repeats its ARP request only a second later.
pub(crate) fn pings_again(from: &Path, to: IpAddr) -> bool {
    (0..5).any(|_| pings(from, to))
}

/// Runs a command in a namespace; its output.
pub(crate) fn run_in(netns: &Path, command: &str) -> String {
    run(&format!("nsenter --net={} {command}", netns.display()))
}

pub(crate) fn run(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}{errors}");
    text
}

/// Unmounts a folder of namespaces, if it is one.
pub(crate) fn unmount(folder: &Path) {
    quietly(&format!("umount -l {}", folder.display()));
}

fn quietly(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    // Cleaning up what may not be there.
    let _ = Command::new(words[0])
        .args(&words[1..])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// A listener in a namespace, on a free port.
pub(crate) fn listen(netns: &Path) -> TcpListener {
    inside(netns, || TcpListener::bind("0.0.0.0:0")).unwrap()
}

pub(crate) fn connect(netns: &Path, to: SocketAddr) -> std::io::Result<TcpStream> {
    inside(netns, || TcpStream::connect_timeout(&to, Duration::from_secs(3)))
}

/// Sends 1 MB from one namespace to another and back; panics unless it arrives whole.
pub(crate) fn transfer(from: &Path, to: &Path, to_addr: IpAddr) {
    let data: Vec<u8> = (0..1_000_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let listener = listen(to);
    let port = listener.local_addr().unwrap().port();
    let length = data.len();
    let echo = std::thread::spawn(move || {
        let (mut peer, from) = listener.accept().unwrap();
        let mut received = vec![0; length];
        peer.read_exact(&mut received).unwrap();
        peer.write_all(&received).unwrap();
        from.ip()
    });
    let mut stream = connect(from, (to_addr, port).into()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&data).unwrap();
    let mut back = vec![0; length];
    stream.read_exact(&mut back).unwrap();
    assert!(back == data, "data was altered on its way");
    let seen = echo.join().unwrap();
    assert_eq!(seen, stream.local_addr().unwrap().ip(), "source was altered");
}
