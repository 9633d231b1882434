//! The client's end: gRPC channels to other nodes over mTLS.

use crate::credentials::Credentials;
use crate::dial::{ConnectError, dial};
use crate::verify::ClusterVerifier;
use crate::{ExpectedPeer, PkiError};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tower::service_fn;

/// A peer that is gone is noticed after `KEEP_ALIVE_INTERVAL + KEEP_ALIVE_TIMEOUT` on any
/// connection, idle or not.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// HTTP/2 flow-control windows: enough for a snapshot at 1 Gbit/s and 20 ms; the default of 64 kB
/// is 3 MB/s there.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// RPCs under way on one connection; a client's further ones wait at the client.
const MAX_CONCURRENT_RPCS: u32 = 1024;

/// A gRPC server with this cluster's keep-alive, windows and limits, to be given services and a
/// [`crate::Incoming`].
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_CONCURRENT_RPCS)
}

/// Limits on connecting.
#[derive(Debug, Clone)]
pub struct ConnectorOptions {
    /// For TCP, TLS and the server's first frame together. Default 5 s.
    pub connect_timeout: Duration,
}

impl Default for ConnectorOptions {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5) }
    }
}

/// Makes channels to nodes of the cluster. Presents and trusts what its [`Credentials`] hold at the
/// time of each connection, reconnections of a channel included. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    credentials: Credentials,
    options: ConnectorOptions,
    /// What is used instead of TCP and TLS, if anything.
    dial: Option<Arc<dyn Dial>>,
}

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What comes of dialing.
pub type Dialed = Result<Box<dyn Stream>, ConnectError>;

/// Another way to other nodes than mTLS on TCP, such as that of a simulation. It vouches for the peer.
pub trait Dial: std::fmt::Debug + Send + Sync {
    /// Connects to `addr`.
    fn dial(
        &self,
        addr: &str,
        expected: ExpectedPeer,
    ) -> Pin<Box<dyn Future<Output = Dialed> + Send>>;
}

impl Connector {
    /// With credentials without an identity it presents no certificate, which is how a node joins.
    pub fn new(credentials: Credentials, options: ConnectorOptions) -> Self {
        Self { credentials, options, dial: None }
    }

    /// Connects in another way; `credentials` are only kept.
    pub fn over(dial: Arc<dyn Dial>, credentials: Credentials) -> Self {
        Self { credentials, options: ConnectorOptions::default(), dial: Some(dial) }
    }

    /// Connects to `addr` (`HOST:PORT`) and verifies that `expected` answers. The channel
    /// reconnects by itself when it breaks, at the next RPC, verifying again.
    pub async fn connect(
        &self,
        addr: &str,
        expected: ExpectedPeer,
    ) -> Result<Channel, ConnectError> {
        let connected = endpoint(addr)?.connect_with_connector(self.dialer(addr, expected)).await;
        connected.map_err(|error| match ConnectError::find(&error) {
            Some(reason) => reason.clone(),
            None => ConnectError::Handshake { addr: addr.to_owned(), reason: error_chain(&error) },
        })
    }

    /// Whether `expected` answers at `addr` within `patience`.
    pub async fn answers(&self, addr: &str, expected: ExpectedPeer, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.connect(addr, expected)).await.is_ok_and(|r| r.is_ok())
    }

    /// Like [`Connector::connect`], but connects at the first RPC. While the node cannot be reached
    /// RPCs fail with `UNAVAILABLE` and the text of the [`ConnectError`]. Must be called within a
    /// tokio runtime.
    pub fn connect_lazy(
        &self,
        addr: &str,
        expected: ExpectedPeer,
    ) -> Result<Channel, ConnectError> {
        Ok(endpoint(addr)?.connect_with_connector_lazy(self.dialer(addr, expected)))
    }

    /// The credentials in use.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    fn dialer(
        &self,
        addr: &str,
        expected: ExpectedPeer,
    ) -> impl tower::Service<
        Uri,
        Response = TokioIo<Box<dyn Stream>>,
        Error = ConnectError,
        Future: Send,
    > + Send
    + 'static {
        let (this, addr) = (self.clone(), addr.to_owned());
        service_fn(move |_| {
            let (this, addr, expected) = (this.clone(), addr.clone(), expected.clone());
            async move {
                if let Some(other) = &this.dial {
                    return other.dial(&addr, expected).await.map(TokioIo::new);
                }
                let config = this.client_config(&addr, expected)?;
                let stream = dial(&addr, config, this.options.connect_timeout).await?;
                Ok(TokioIo::new(Box::new(stream) as Box<dyn Stream>))
            }
        })
    }

    fn client_config(
        &self,
        addr: &str,
        expected: ExpectedPeer,
    ) -> Result<Arc<ClientConfig>, ConnectError> {
        let verifier =
            Arc::new(ClusterVerifier { credentials: self.credentials.clone(), expected });
        client_config(self.credentials.provider(), verifier, Some(self.credentials.clone()))
            .map_err(|error| ConnectError::Handshake {
                addr: addr.to_owned(),
                reason: error.to_string(),
            })
    }
}

/// A TLS 1.3 client that leaves verification to `verifier` and presents the certificate of
/// `identity`.
pub(crate) fn client_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<Credentials>,
) -> Result<Arc<ClientConfig>, PkiError> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| PkiError::Sign { what: "TLS configuration", reason: error.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(credentials) => builder.with_client_cert_resolver(Arc::new(credentials)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn endpoint(addr: &str) -> Result<Endpoint, ConnectError> {
    let invalid = || ConnectError::Address { addr: addr.to_owned() };
    check_addr(addr)?;
    // The scheme is that of the connector's output: TLS is below it, where tonic does not look.
    let uri: Uri = format!("http://{addr}").parse().map_err(|_| invalid())?;
    Ok(Endpoint::from(uri)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// Accepts `HOST:PORT`, `IP:PORT` and `[IP6]:PORT` only.
pub(crate) fn check_addr(addr: &str) -> Result<(), ConnectError> {
    let (host, port) = addr.rsplit_once(':').unwrap_or((addr, ""));
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let host_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let sound_host = match bracketed {
        true => addr.parse::<std::net::SocketAddrV6>().is_ok(),
        false => !host.is_empty() && host.chars().all(host_char),
    };
    match port.parse::<u16>() {
        Ok(1..) if sound_host => Ok(()),
        _ => Err(ConnectError::Address { addr: addr.to_owned() }),
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
