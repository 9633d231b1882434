//! The network between hosts: TCP as programs see it, byte streams that are late, stall and break. What is
//! lost on the way is sent again, so loss is delay; order is kept on a connection, not between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use swarm_pki::{ConnectError, Dial, ExpectedPeer, PeerIdentity, PeerInfo, Role, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tonic::transport::server::Connected;

use crate::random::Random;

/// A host's number: its address is 10.9.0.number.
pub(crate) type HostId = u8;

/// Bytes under way in one direction before a sender has to wait.
const WINDOW: usize = 4 << 20;
/// How long a client tries to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// The pause before it tries again when nothing answers.
const SYN_RETRY: Duration = Duration::from_millis(1000);
/// What a lost packet costs, in milliseconds.
const RETRANSMISSION: std::ops::Range<u64> = 200..400;

/// Where a host listens.
pub(crate) fn address(host: HostId) -> SocketAddr {
    SocketAddr::from(([10, 9, 0, host], 2377))
}

/// How good the network is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// Least and most milliseconds on the way.
    pub(crate) latency: (u64, u64),
    /// Packets lost of a hundred.
    pub(crate) loss: u64,
}

pub(crate) const GOOD: Quality = Quality { latency: (1, 6), loss: 0 };

/// The network; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Net(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    now: u64,
    random: Random,
    quality: Quality,
    /// Nothing gets from the first to the second.
    blocked: BTreeSet<(HostId, HostId)>,
    /// Hosts that have power.
    powered: BTreeSet<HostId>,
    listeners: BTreeMap<HostId, Listener>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
}

#[derive(Debug)]
struct Listener {
    role: Role,
    node: String,
    accepted: mpsc::UnboundedSender<Socket>,
}

/// The ends are 0, who called, and 1, who was called.
#[derive(Debug)]
struct Connection {
    ends: [End; 2],
}

#[derive(Debug)]
struct End {
    host: HostId,
    /// On their way to this end.
    coming: VecDeque<(u64, Packet)>,
    coming_bytes: usize,
    arrived: VecDeque<u8>,
    finished: bool,
    reset: bool,
    /// The program has dropped it.
    closed: bool,
    reader: Option<Waker>,
    /// Of the other end: it waits for room.
    writer: Option<Waker>,
}

#[derive(Debug)]
enum Packet {
    Data(Vec<u8>),
    Fin,
    Reset,
}

impl End {
    fn new(host: HostId) -> End {
        End {
            host,
            coming: VecDeque::new(),
            coming_bytes: 0,
            arrived: VecDeque::new(),
            finished: false,
            reset: false,
            closed: false,
            reader: None,
            writer: None,
        }
    }
}

impl Inner {
    fn latency(&mut self) -> u64 {
        let (least, most) = self.quality.latency;
        let mut latency = self.random.within(least..most + 1);
        while self.random.chance(self.quality.loss) {
            latency += self.random.within(RETRANSMISSION);
        }
        latency
    }

    fn is_blocked(&self, from: HostId, to: HostId) -> bool {
        self.blocked.contains(&(from, to))
            || !self.powered.contains(&from)
            || !self.powered.contains(&to)
    }

    fn send(&mut self, id: u64, to: usize, packet: Packet) {
        let due = self.now + self.latency();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let end = &mut connection.ends[to];
        let due = end.coming.back().map_or(due, |(last, _)| due.max(*last));
        if let Packet::Data(data) = &packet {
            end.coming_bytes += data.len();
        }
        end.coming.push_back((due, packet));
    }

    /// What has come by now arrives; returns who is to be woken.
    fn deliver(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let now = self.now;
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            for to in 0..2 {
                let Some(connection) = self.connections.get(&id) else { continue };
                let (from, host) = (connection.ends[1 - to].host, connection.ends[to].host);
                if connection.ends[to].coming.front().is_none_or(|(due, _)| *due > now) {
                    continue;
                }
                if self.is_blocked(from, host) {
                    // It is sent again, less and less often.
                    let again = now + self.random.within(RETRANSMISSION);
                    if let Some(connection) = self.connections.get_mut(&id)
                        && let Some((due, _)) = connection.ends[to].coming.front_mut()
                    {
                        *due = again;
                    }
                    continue;
                }
                let Some(connection) = self.connections.get_mut(&id) else { continue };
                arrive(&mut connection.ends[to], now, &mut wakers);
            }
            let dead = |end: &End| end.closed && end.coming.is_empty();
            if self.connections.get(&id).is_some_and(|c| c.ends.iter().all(dead)) {
                self.connections.remove(&id);
            }
        }
        wakers
    }
}

fn arrive(end: &mut End, now: u64, wakers: &mut Vec<Waker>) {
    while end.coming.front().is_some_and(|(due, _)| *due <= now) {
        let Some((_, packet)) = end.coming.pop_front() else { break };
        match packet {
            Packet::Data(data) => {
                end.coming_bytes -= data.len();
                if !end.closed {
                    end.arrived.extend(data);
                }
            }
            Packet::Fin => end.finished = true,
            Packet::Reset => end.reset = true,
        }
        wakers.extend(end.reader.take());
        wakers.extend(end.writer.take());
    }
}

impl Net {
    pub(crate) fn new(random: Random) -> Net {
        Net(Arc::new(Mutex::new(Inner {
            now: 0,
            random,
            quality: GOOD,
            blocked: BTreeSet::new(),
            powered: BTreeSet::new(),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is `now`, in milliseconds: what has come by then arrives.
    pub(crate) fn advance(&self, now: u64) {
        let wakers = {
            let mut inner = self.lock();
            inner.now = now;
            inner.deliver()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn set_quality(&self, quality: Quality) {
        self.lock().quality = quality;
    }

    pub(crate) fn block(&self, from: HostId, to: HostId) {
        self.lock().blocked.insert((from, to));
    }

    pub(crate) fn unblock_all(&self) {
        self.lock().blocked.clear();
    }

    pub(crate) fn set_power(&self, host: HostId, on: bool) {
        let mut inner = self.lock();
        if on {
            inner.powered.insert(host);
        } else {
            inner.powered.remove(&host);
        }
    }

    pub(crate) fn listen(
        &self,
        host: HostId,
        node: &str,
        role: Role,
    ) -> mpsc::UnboundedReceiver<Socket> {
        let (accepted, incoming) = mpsc::unbounded_channel();
        let listener = Listener { role, node: node.to_owned(), accepted };
        self.lock().listeners.insert(host, listener);
        incoming
    }

    /// The host's program has ended: its port is free and its connections are reset, as soon as peers hear of it.
    pub(crate) fn program_ended(&self, host: HostId) {
        let mut inner = self.lock();
        inner.listeners.remove(&host);
        let ids: Vec<(u64, usize)> = inner
            .connections
            .iter()
            .flat_map(|(id, c)| (0..2).map(move |end| (*id, end, c.ends[end].host)))
            .filter(|(_, _, of)| *of == host)
            .map(|(id, end, _)| (id, end))
            .collect();
        for (id, end) in ids {
            if let Some(connection) = inner.connections.get_mut(&id) {
                connection.ends[end].closed = true;
                connection.ends[end].reset = true;
            }
            inner.send(id, 1 - end, Packet::Reset);
        }
    }

    fn round_trip(&self) -> Duration {
        let mut inner = self.lock();
        Duration::from_millis(inner.latency() + inner.latency())
    }

    fn connect(&self, from: &Caller, to: HostId, expected: &ExpectedPeer) -> Attempt {
        let mut inner = self.lock();
        if inner.is_blocked(from.host, to) || inner.is_blocked(to, from.host) {
            return Attempt::Silence;
        }
        let Some(listener) = inner.listeners.get(&to) else { return Attempt::Refused };
        let wrong = match expected {
            ExpectedPeer::Manager => listener.role != Role::Manager,
            ExpectedPeer::Node(node) => *node != listener.node,
            _ => false,
        };
        if wrong {
            return Attempt::Refused;
        }
        let accepted = listener.accepted.clone();
        let id = inner.next;
        inner.next += 1;
        let connection = Connection { ends: [End::new(from.host), End::new(to)] };
        inner.connections.insert(id, connection);
        let info = PeerInfo { addr: address(from.host), identity: from.identity.clone() };
        let server = Socket { net: self.clone(), id, end: 1, info: info.clone() };
        drop(inner);
        if accepted.send(server).is_err() {
            return Attempt::Refused;
        }
        Attempt::Connected(Socket { net: self.clone(), id, end: 0, info })
    }
}

enum Attempt {
    Connected(Socket),
    Refused,
    Silence,
}

/// Who calls from a host.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) net: Net,
    pub(crate) host: HostId,
    pub(crate) identity: Option<Arc<PeerIdentity>>,
}

impl Dial for Caller {
    fn dial(
        &self,
        addr: &str,
        expected: ExpectedPeer,
    ) -> Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, ConnectError>> + Send>> {
        let (this, addr) = (self.clone(), addr.to_owned());
        Box::pin(async move {
            let parsed: Option<SocketAddr> = addr.parse().ok();
            let to = match parsed {
                Some(SocketAddr::V4(v4)) => v4.ip().octets()[3],
                _ => return Err(ConnectError::Address { addr }),
            };
            let attempts = async {
                loop {
                    tokio::time::sleep(this.net.round_trip()).await;
                    match this.net.connect(&this, to, &expected) {
                        Attempt::Connected(socket) => return Ok(socket),
                        Attempt::Refused => return Err("connection refused"),
                        Attempt::Silence => tokio::time::sleep(SYN_RETRY).await, // as TCP waits before it sends SYN again
                    }
                }
            };
            match tokio::time::timeout(CONNECT, attempts).await {
                Ok(Ok(socket)) => Ok(Box::new(socket) as Box<dyn Stream>),
                Ok(Err(reason)) => Err(ConnectError::Tcp { addr, reason: reason.to_owned() }),
                Err(_) => {
                    Err(ConnectError::Timeout { addr, awaited: "TCP connection", after: CONNECT })
                }
            }
        })
    }
}

/// An end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    net: Net,
    id: u64,
    end: usize,
    info: PeerInfo,
}

impl Connected for Socket {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

fn broken() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.net.lock();
        let Some(connection) = inner.connections.get_mut(&self.id) else {
            return Poll::Ready(Err(broken()));
        };
        let end = &mut connection.ends[self.end];
        if end.reset {
            return Poll::Ready(Err(broken()));
        }
        if !end.arrived.is_empty() {
            let count = buf.remaining().min(end.arrived.len());
            let bytes: Vec<u8> = end.arrived.drain(..count).collect();
            buf.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        if end.finished {
            return Poll::Ready(Ok(()));
        }
        end.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.net.lock();
        let (id, own, other) = (self.id, self.end, 1 - self.end);
        let Some(connection) = inner.connections.get_mut(&id) else {
            return Poll::Ready(Err(broken()));
        };
        if connection.ends[own].reset {
            return Poll::Ready(Err(broken()));
        }
        let end = &mut connection.ends[other];
        if end.coming_bytes > WINDOW {
            end.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        inner.send(id, other, Packet::Data(buf.to_vec()));
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (id, other) = (self.id, 1 - self.end);
        self.net.lock().send(id, other, Packet::Fin);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut inner = self.net.lock();
        let already = match inner.connections.get_mut(&self.id) {
            Some(connection) => std::mem::replace(&mut connection.ends[self.end].closed, true),
            None => return,
        };
        if !already {
            inner.send(self.id, 1 - self.end, Packet::Reset);
        }
    }
}
