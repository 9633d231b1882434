//! Network namespaces that vanish with the test, a client inside them, and a resolver to relay to.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use swarm_dns::{Answer, DnsServer, LISTEN_ADDRESS, Limits, NetworkNames, Options, Scope};
use swarm_netns::Namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network namespace, deleted when dropped.
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    /// A namespace with loopback up.
    pub(crate) fn new() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("dns-test-{}-{number}", std::process::id());
        run(&["netns", "add", &name]);
        let netns = Self { name };
        run(&["-n", &netns.name, "link", "set", "lo", "up"]);
        netns
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `work` on a thread of its own inside the namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        Namespace::open(&self.path()).unwrap().run_blocking(work).unwrap()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        run(&["netns", "delete", &self.name]);
    }
}

fn run(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {said}");
}

/// A DNS client inside a namespace.
pub(crate) struct Client<'a> {
    netns: &'a Netns,
    udp: UdpSocket,
}

impl<'a> Client<'a> {
    pub(crate) fn new(netns: &'a Netns) -> Self {
        let udp = netns.inside(|| {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            udp.connect(LISTEN_ADDRESS).unwrap();
            udp
        });
        udp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { netns, udp }
    }

    /// Asks over UDP without EDNS0.
    pub(crate) fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.exchange(&question(name, kind))
    }

    /// The addresses of a name, sorted.
    pub(crate) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let mut addresses = addresses(&self.ask(name, RecordType::A));
        addresses.sort();
        addresses
    }

    pub(crate) fn exchange(&self, message: &Message) -> Message {
        let reply = self.exchange_raw(&message.to_vec().unwrap());
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.metadata.id, message.metadata.id);
        reply
    }

    pub(crate) fn exchange_raw(&self, message: &[u8]) -> Vec<u8> {
        self.send(message);
        self.receive().expect("a reply within 10 s")
    }

    pub(crate) fn send(&self, message: &[u8]) {
        self.udp.send(message).unwrap();
    }

    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 65535];
        let length = self.udp.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = self.netns.inside(|| TcpStream::connect(LISTEN_ADDRESS).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    pub(crate) fn exchange_tcp(&self, message: &Message) -> Message {
        over(&mut self.connect(), message)
    }
}

/// One exchange over an open connection.
pub(crate) fn over(stream: &mut TcpStream, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    stream.write_all(&(bytes.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.id, message.metadata.id);
    reply
}

pub(crate) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub(crate) fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

/// The addresses of a reply, in its order.
pub(crate) fn addresses(reply: &Message) -> Vec<IpAddr> {
    let data = reply.answers.iter().map(|record| &record.data);
    data.filter_map(RData::ip_addr).collect()
}

/// 10.0.`network`.2 and following.
pub(crate) fn tasks(network: u8, count: u8) -> Vec<IpAddr> {
    (2..2 + count).map(|host| [10, 0, network, host].into()).collect()
}

/// A network where `web` has the VIP 10.0.`network`.100 and `count` tasks.
pub(crate) fn web(network: u8, count: u8) -> Arc<NetworkNames> {
    let mut names = NetworkNames::new();
    names.insert("web", Answer::Vip([10, 0, network, 100].into())).unwrap();
    names.insert("tasks.web", Answer::Addresses(tasks(network, count))).unwrap();
    for (slot, address) in tasks(network, count).into_iter().enumerate() {
        let name = format!("web.{}.task{slot}", slot + 1);
        names.insert(&name, Answer::Addresses(vec![address])).unwrap();
        names.insert_reverse(address, &format!("{name}.net{network}")).unwrap();
    }
    Arc::new(names)
}

pub(crate) fn on(networks: &[&str]) -> Scope {
    Scope { networks: networks.iter().map(|&id| id.into()).collect(), relay: true }
}

/// A server that relays to `upstreams`, with short time-outs.
pub(crate) fn relaying_to(upstreams: &[SocketAddr]) -> DnsServer {
    DnsServer::new(Options {
        upstreams: upstreams.to_vec(),
        limits: Limits {
            upstream_attempt: Duration::from_millis(500),
            upstream_total: Duration::from_secs(3),
            ..Limits::default()
        },
        ..Options::default()
    })
}

/// Over what a resolver was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    Udp,
    Tcp,
}

/// A resolver on loopback, in the namespace of the test, that answers as `handler` says; empty: not at all.
pub(crate) struct Resolver {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Resolver {
    pub(crate) async fn start(
        handler: impl Fn(Over, &[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = udp_and_tcp_at_one_port().await;
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let handler = Arc::new(handler);
        let (count, handle) = (asked.clone(), handler.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                for reply in handle(Over::Udp, &buffer[..length]) {
                    udp.send_to(&reply, client).await.unwrap();
                }
            }
        });
        let count = asked.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let mut message = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut message).await.unwrap();
                for reply in handler(Over::Tcp, &message) {
                    stream.write_u16(reply.len() as u16).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                }
            }
        });
        Self { address, asked }
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn udp_and_tcp_at_one_port() -> (tokio::net::UdpSocket, tokio::net::TcpListener) {
    loop {
        let udp = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // Some other socket may have the port for TCP.
        if let Ok(tcp) = tokio::net::TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}
