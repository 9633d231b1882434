//! Serves the two sockets of one task: one runtime task, no buffers while idle, everything that waits (TCP connections,
//! relayed queries) counted and bounded.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_server::net::xfer::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::netns::Sockets;
use crate::query::{MAX_UDP_SIZE, Query};
use crate::respond::{Verdict, respond, without_resolver};
use crate::scope::Scope;
use crate::shared::Shared;

/// How many datagrams are served before others get their turn.
const BATCH: usize = 32;
/// How long a socket is left alone after it failed.
const REST: Duration = Duration::from_millis(500);

/// What the loop, its connections and its relayed queries know of the task they serve.
pub(crate) struct Sandbox {
    id: String,
    scope: ArcSwap<Scope>,
    shared: Arc<Shared>,
    relayed: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// What to do about a message.
enum Step {
    Send(Vec<u8>),
    Relay(Box<Query>, RelayPermit),
    Ignore,
}

/// The right to have one query relayed: one of the sandbox's and one of the process'.
struct RelayPermit {
    _sandbox: OwnedSemaphorePermit,
    _process: OwnedSemaphorePermit,
}

impl Sandbox {
    pub(crate) fn new(id: String, scope: Scope, shared: Arc<Shared>) -> Self {
        let limits = &shared.options.limits;
        Self {
            id,
            scope: ArcSwap::from_pointee(scope),
            relayed: Arc::new(Semaphore::new(limits.relayed_queries_per_sandbox)),
            connections: Arc::new(Semaphore::new(limits.tcp_connections_per_sandbox)),
            shared,
        }
    }

    /// Changes what the task sees, from the next query on.
    pub(crate) fn set_scope(&self, scope: Scope) {
        self.scope.store(Arc::new(scope));
    }

    /// Serves until `stop` is sent or dropped. The port is free when this returns.
    pub(crate) async fn serve(self: Arc<Self>, sockets: Sockets, stop: oneshot::Receiver<()>) {
        let Sockets { udp, tcp } = sockets;
        let udp = Arc::new(udp);
        let mut relays = JoinSet::new();
        let mut connections = JoinSet::new();
        tokio::select! {
            // An error is that the sender was dropped, which asks for the same.
            _ = stop => {}
            never = self.serve_udp(&udp, &mut relays) => match never {},
            never = self.serve_tcp(&tcp, &mut connections) => match never {},
        }
        // The datagram socket is shared with the relayed queries: it closes when the last of them is gone.
        relays.shutdown().await;
        connections.shutdown().await;
    }

    async fn serve_udp(
        self: &Arc<Self>,
        udp: &Arc<UdpSocket>,
        relays: &mut JoinSet<()>,
    ) -> Infallible {
        loop {
            let served = tokio::select! {
                ready = udp.readable() => ready.and_then(|()| self.serve_datagrams(udp, relays)),
                Some(ended) = relays.join_next() => {
                    self.report(ended);
                    continue;
                }
            };
            if let Err(error) = served {
                self.rest("receive datagrams", error).await;
            }
        }
    }

    async fn serve_tcp(
        self: &Arc<Self>,
        tcp: &TcpListener,
        connections: &mut JoinSet<()>,
    ) -> Infallible {
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(tcp) => accepted,
                Some(ended) = connections.join_next() => {
                    self.report(ended);
                    continue;
                }
            };
            match accepted {
                Ok(connection) => {
                    connections.spawn(self.clone().serve_connection(connection));
                }
                Err(error) => self.rest("accept connections", error).await,
            }
        }
    }

    /// Trying again at once would only burn the processor: mostly the process is out of descriptors.
    async fn rest(&self, action: &str, error: io::Error) {
        tracing::warn!(sandbox = %self.id, %error, "the DNS server cannot {action}");
        tokio::time::sleep(REST).await; // no event tells when descriptors are free again
    }

    /// Serves the datagrams that are there, [`BATCH`] at most.
    fn serve_datagrams(
        self: &Arc<Self>,
        udp: &Arc<UdpSocket>,
        relays: &mut JoinSet<()>,
    ) -> io::Result<()> {
        let mut buffer = [0; MAX_UDP_SIZE];
        for _ in 0..BATCH {
            let (length, source) = match udp.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            match self.step(buffer[..length].to_vec(), source, Protocol::Udp) {
                Step::Send(reply) => self.send(udp, &reply, source),
                Step::Relay(query, permit) => {
                    relays.spawn(self.clone().relay_datagram(udp.clone(), query, permit, source));
                }
                Step::Ignore => {}
            }
        }
        Ok(())
    }

    async fn relay_datagram(
        self: Arc<Self>,
        udp: Arc<UdpSocket>,
        query: Box<Query>,
        permit: RelayPermit,
        source: SocketAddr,
    ) {
        if let Some(reply) = self.relay(&query, permit).await {
            self.send(&udp, &reply, source);
        }
    }

    /// Never waits: a client whose queue is full loses the reply, as it may lose any datagram.
    fn send(&self, udp: &UdpSocket, reply: &[u8], client: SocketAddr) {
        if let Err(error) = udp.try_send_to(reply, client) {
            tracing::debug!(sandbox = %self.id, %client, %error, "cannot send a DNS reply");
        }
    }

    /// The next connection, once there may be one more.
    async fn accept(
        &self,
        tcp: &TcpListener,
    ) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let permit = self.connections.clone().acquire_owned().await;
        let permit = permit.map_err(io::Error::other)?;
        let (stream, client) = tcp.accept().await?;
        Ok((stream, client, permit))
    }

    async fn serve_connection(
        self: Arc<Self>,
        (stream, client, _permit): (TcpStream, SocketAddr, OwnedSemaphorePermit),
    ) {
        if let Err(error) = self.serve_messages(stream, client).await {
            tracing::debug!(sandbox = %self.id, %client, %error, "a DNS connection ended early");
        }
    }

    /// One message after the other (RFC 7766), until the client closes, is idle for too long or sends no query.
    async fn serve_messages(&self, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        let idle = self.shared.options.limits.tcp_idle;
        while let Some(message) = timeout(idle, read_message(&mut stream)).await?? {
            let reply = match self.step(message, client, Protocol::Tcp) {
                Step::Send(reply) => Some(reply),
                Step::Relay(query, permit) => self.relay(&query, permit).await,
                Step::Ignore => None,
            };
            let Some(reply) = reply else {
                return Ok(());
            };
            timeout(idle, write_message(&mut stream, &reply)).await??;
        }
        Ok(())
    }

    /// Decides with one snapshot: no answer mixes the names of before and after a change.
    fn step(&self, message: Vec<u8>, client: SocketAddr, protocol: Protocol) -> Step {
        let shared = &self.shared;
        let scope = self.scope.load();
        let names = shared.names.load();
        let query = match respond(message, client, protocol, &names, &scope, shared.options.ttl) {
            Verdict::Reply(reply) => return Step::Send(reply),
            Verdict::Ignore => return Step::Ignore,
            Verdict::Relay(query) => query,
        };
        if !scope.relay || shared.relay.is_empty() {
            return without_resolver(&query).map_or(Step::Ignore, Step::Send);
        }
        match self.relay_permit() {
            Some(permit) => Step::Relay(query, permit),
            None => query.status(ResponseCode::ServFail).map_or(Step::Ignore, Step::Send),
        }
    }

    fn relay_permit(&self) -> Option<RelayPermit> {
        let sandbox = self.relayed.clone().try_acquire_owned();
        let process = self.shared.relayed.clone().try_acquire_owned();
        match (sandbox, process) {
            (Ok(_sandbox), Ok(_process)) => Some(RelayPermit { _sandbox, _process }),
            _ => {
                tracing::debug!(sandbox = %self.id, "too many DNS queries are being relayed");
                None
            }
        }
    }

    async fn relay(&self, query: &Query, _permit: RelayPermit) -> Option<Vec<u8>> {
        match self.shared.relay.ask(query).await {
            Some(reply) => Some(reply),
            None => query.status(ResponseCode::ServFail),
        }
    }

    fn report(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended {
            tracing::error!(sandbox = %self.id, %error, "a DNS query of a sandbox was dropped");
        }
    }
}

/// One message with its length before it (RFC 1035 section 4.2.2); `None` if the client closed in between.
async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_UDP_SIZE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the query is too long"));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Length and message in one segment, as RFC 7766 section 8 asks.
async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}
