//! The server's end: accepts TCP connections, shakes hands with many clients at once, yields those
//! that are through.

use crate::credentials::Credentials;
use crate::name::parse_leaf;
use crate::verify::ClusterVerifier;
use crate::{ExpectedPeer, NodeStream, PkiError};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::Stream;

/// Limits on handshakes.
#[derive(Debug, Clone)]
pub struct AcceptorOptions {
    /// How long a client may take. Default 5 s.
    pub handshake_timeout: Duration,
    /// How many may be under way. One more, and the oldest is dropped, so that clients which never
    /// finish cannot keep others out. Default 256.
    pub max_handshakes: usize,
    /// How many clients without a certificate may be connected at once; more are refused. Default
    /// 256.
    pub max_anonymous: usize,
    /// How long such a client may stay: joining takes a moment. Default 60 s.
    pub anonymous_session: Duration,
}

impl Default for AcceptorOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 256,
            max_anonymous: 256,
            anonymous_session: Duration::from_secs(60),
        }
    }
}

/// Accepted connections that wait for the server to take them.
const READY_CONNECTIONS: usize = 64;

/// The pause after the system refuses to accept, such as for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Makes mTLS servers, TLS 1.3 only. A client without a certificate is let in, as nobody
/// ([`crate::require_node`] refuses it); one with a certificate must be a node of the cluster.
#[derive(Clone)]
pub struct TlsAcceptor {
    tls: tokio_rustls::TlsAcceptor,
    options: AcceptorOptions,
    anonymous: Arc<Semaphore>,
}

impl TlsAcceptor {
    /// A server that presents and trusts what `credentials` hold at the time of each handshake.
    pub fn new(credentials: &Credentials, options: AcceptorOptions) -> Result<Self, PkiError> {
        let verifier =
            ClusterVerifier { credentials: credentials.clone(), expected: ExpectedPeer::Any };
        let mut config = ServerConfig::builder_with_provider(credentials.provider().clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| PkiError::Sign {
                what: "TLS configuration",
                reason: error.to_string(),
            })?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(credentials.clone()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would skip the certificate check, and outlive trust and certificates.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let anonymous = Arc::new(Semaphore::new(options.max_anonymous));
        Ok(Self { tls: Arc::new(config).into(), options, anonymous })
    }

    /// Accepts on `listener` until the stream is dropped. Must be called within a tokio runtime.
    /// Items are never errors: what goes wrong with one connection is logged and concerns no other.
    pub fn incoming(&self, listener: TcpListener) -> Incoming {
        let (ready, connections) = mpsc::channel(READY_CONNECTIONS);
        let (listening, closed) = oneshot::channel();
        let listening = Listening { listener, _closed: listening };
        let mut accepting = JoinSet::new();
        accepting.spawn(accept_loop(self.clone(), listening, ready));
        Incoming { connections, closed: Some(closed), _accepting: accepting }
    }

    async fn handshake(&self, tcp: TcpStream, addr: SocketAddr) -> io::Result<NodeStream> {
        tcp.set_nodelay(true)?;
        let stream = tokio::time::timeout(self.options.handshake_timeout, self.tls.accept(tcp))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time"))??;
        let presented = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        if let Some(leaf) = presented {
            let leaf = parse_leaf(leaf).map_err(io::Error::other)?;
            return Ok(NodeStream::of_node(stream, addr, leaf));
        }
        let place = self.anonymous.clone().try_acquire_owned();
        let place =
            place.map_err(|_| io::Error::other("too many clients without a certificate"))?;
        Ok(NodeStream::anonymous(stream, addr, self.options.anonymous_session, place))
    }
}

/// Established connections, for tonic's `serve_with_incoming`. Dropping it stops accepting.
pub struct Incoming {
    connections: mpsc::Receiver<NodeStream>,
    closed: Option<oneshot::Receiver<()>>,
    /// Aborts the accept loop, and with it its handshakes, when dropped.
    _accepting: JoinSet<()>,
}

impl Incoming {
    /// Returns, whatever the result, once the port is free: a moment after `self` was dropped. To be
    /// called once.
    pub fn closed(&mut self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let closed = self.closed.take();
        async move {
            if let Some(closed) = closed {
                // The sender is never used, only dropped.
                let _ = closed.await;
            }
        }
    }
}

/// A listener that tells when it is no more. The order of the fields is that of their drops.
struct Listening {
    listener: TcpListener,
    _closed: oneshot::Sender<()>,
}

impl Stream for Incoming {
    type Item = io::Result<NodeStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

async fn accept_loop(acceptor: TlsAcceptor, listening: Listening, ready: mpsc::Sender<NodeStream>) {
    let mut handshakes = Handshakes::new(acceptor.options.max_handshakes);
    loop {
        match listening.listener.accept().await {
            Ok((tcp, addr)) => {
                let (acceptor, ready) = (acceptor.clone(), ready.clone());
                handshakes.spawn(async move {
                    match acceptor.handshake(tcp, addr).await {
                        // An error means that the server is shutting down.
                        Ok(stream) => drop(ready.send(stream).await),
                        Err(error) => tracing::info!(%addr, %error, "refused a connection"),
                    }
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, trying again");
                tokio::time::sleep(ACCEPT_RETRY).await; // mostly the process is out of descriptors
            }
        }
    }
}

/// The handshakes under way, oldest first.
struct Handshakes {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
    max: usize,
}

impl Handshakes {
    fn new(max: usize) -> Self {
        Self { tasks: JoinSet::new(), oldest_first: VecDeque::new(), max: max.max(1) }
    }

    fn spawn(&mut self, handshake: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        if self.oldest_first.len() >= self.max {
            self.oldest_first.retain(|task| !task.is_finished());
        }
        if self.oldest_first.len() >= self.max
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            tracing::info!(max = self.max, "too many handshakes under way, dropped the oldest");
            oldest.abort();
        }
        self.oldest_first.push_back(self.tasks.spawn(handshake));
    }
}
