//! One connection attempt: TCP, TLS, the server's first HTTP/2 frame; and what stopped it, in one
//! line.

use crate::PeerMismatch;
use crate::name::parse_leaf;
use crate::stream::Ending;
use crate::verify::PinMismatch;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

/// Why a node could not be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The address is not `HOST:PORT`.
    #[error("invalid address {addr:?}: want HOST:PORT")]
    Address {
        /// The address as given.
        addr: String,
    },
    /// TCP failed: refused, unreachable, unknown host.
    #[error("cannot connect to {addr}: {reason}")]
    Tcp {
        /// The node's address.
        addr: String,
        /// The system's reason.
        reason: String,
    },
    /// No answer in time.
    #[error("cannot connect to {addr}: no {awaited} within {after:?}")]
    Timeout {
        /// The node's address.
        addr: String,
        /// What was waited for.
        awaited: &'static str,
        /// For how long.
        after: Duration,
    },
    /// Something else than a swarm node listens there.
    #[error("{addr} is not a swarm node: {reason}")]
    NotANode {
        /// The address.
        addr: String,
        /// What it did.
        reason: String,
    },
    /// The server's certificate was not issued by a CA this node trusts.
    #[error(
        "{addr} belongs to another cluster, or the CA was rotated while this node was away: its certificate is not from a CA that this node trusts"
    )]
    UntrustedCa {
        /// The node's address.
        addr: String,
    },
    /// None of the server's certificates is the one the join token stands for.
    #[error(
        "the CA of {addr} does not match the join token: it is another swarm's, or the CA was rotated since; get the current token on a manager with: swarmctl join-token worker"
    )]
    CaMismatch {
        /// The node's address.
        addr: String,
    },
    /// The server's certificate has expired or is not yet valid.
    #[error("the certificate of {addr} {reason}")]
    NotValidNow {
        /// The node's address.
        addr: String,
        /// Expired or not yet valid.
        reason: &'static str,
    },
    /// A sound certificate, but of another node or role than wanted.
    #[error("{addr} is not the node wanted: {mismatch}")]
    WrongPeer {
        /// The node's address.
        addr: String,
        /// What differs.
        mismatch: PeerMismatch,
    },
    /// The server refused the certificate this node presented.
    #[error("{addr} refused this node's certificate: {reason}")]
    Refused {
        /// The node's address.
        addr: String,
        /// The server's reason, as far as TLS tells.
        reason: String,
    },
    /// TLS failed in some other way, or the connection broke.
    #[error("the connection to {addr} failed: {reason}")]
    Handshake {
        /// The node's address.
        addr: String,
        /// The TLS library's or system's reason.
        reason: String,
    },
}

impl ConnectError {
    /// Finds the reason inside an error of a channel, such as tonic's.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a ConnectError> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

pub(crate) type ClientStream = Ending<TlsStream<TcpStream>>;

/// Connects and waits until the server has accepted this node's certificate.
///
/// In TLS 1.3 a client is done before the server has looked at its certificate (RFC 8446, 2), so a
/// refusal would only show at the first RPC, as a broken connection. A server begins HTTP/2 with a
/// SETTINGS frame (RFC 9113, 3.4) and ours does not wait for the client's, so its first byte says
/// that the handshake succeeded at both ends.
pub(crate) async fn dial(
    addr: &str,
    config: Arc<ClientConfig>,
    timeout: Duration,
) -> Result<ClientStream, ConnectError> {
    let deadline = Instant::now() + timeout;
    let mut stream = handshake(addr, config, timeout, deadline).await?;
    let first = timeout_at(deadline, stream.fill_buf()).await;
    match first.map_err(|_| late(addr, "HTTP/2 from the server", timeout))? {
        Ok([]) => return Err(closed(addr)),
        Ok(_) => {}
        Err(error) => return Err(classify(addr, &error)),
    }
    let not_after = match stream.get_ref().1.peer_certificates() {
        // The verifier has parsed it already.
        Some([leaf, ..]) => {
            parse_leaf(leaf).map_err(|error| handshake_failed(addr, &error))?.not_after
        }
        _ => return Err(closed(addr)),
    };
    Ok(Ending::at_expiry(stream, not_after))
}

/// Connects and shakes hands; the server may yet refuse this node's certificate.
pub(crate) async fn handshake(
    addr: &str,
    config: Arc<ClientConfig>,
    timeout: Duration,
    deadline: Instant,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let tcp = timeout_at(deadline, TcpStream::connect(addr))
        .await
        .map_err(|_| late(addr, "TCP connection", timeout))?
        .map_err(|error| ConnectError::Tcp {
            addr: addr.to_owned(),
            reason: plain_reason(&error),
        })?;
    tcp.set_nodelay(true).map_err(|error| classify(addr, &error))?;
    // Not sent (SNI is off) and not checked: a node is known by its id, not by its address.
    let name =
        ServerName::try_from("swarm-node").map_err(|error| handshake_failed(addr, &error))?;
    timeout_at(deadline, tokio_rustls::TlsConnector::from(config).connect(name, tcp))
        .await
        .map_err(|_| late(addr, "TLS handshake", timeout))?
        .map_err(|error| classify(addr, &error))
}

fn late(addr: &str, awaited: &'static str, after: Duration) -> ConnectError {
    ConnectError::Timeout { addr: addr.to_owned(), awaited, after }
}

fn closed(addr: &str) -> ConnectError {
    ConnectError::Handshake { addr: addr.to_owned(), reason: "the server closed it".into() }
}

fn handshake_failed(addr: &str, error: &dyn StdError) -> ConnectError {
    ConnectError::Handshake { addr: addr.to_owned(), reason: error.to_string() }
}

/// The system's words without Rust's "(os error 111)", in lower case.
fn plain_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        io::ErrorKind::TimedOut => "connection timed out".into(),
        _ => error.to_string(),
    }
}

/// Turns a failure of the TLS stream into what it means.
fn classify(addr: &str, error: &io::Error) -> ConnectError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => closed(addr),
            _ => ConnectError::Handshake { addr: addr.to_owned(), reason: plain_reason(error) },
        };
    };
    match tls {
        rustls::Error::InvalidCertificate(reason) => bad_certificate(addr, reason),
        rustls::Error::AlertReceived(alert) => refused(addr, *alert),
        rustls::Error::InvalidMessage(_) => {
            ConnectError::NotANode { addr: addr.to_owned(), reason: "it does not speak TLS".into() }
        }
        other => handshake_failed(addr, other),
    }
}

fn bad_certificate(addr: &str, error: &CertificateError) -> ConnectError {
    let addr = addr.to_owned();
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ConnectError::NotValidNow { addr, reason: "has expired" }
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ConnectError::NotValidNow { addr, reason: "is not valid yet; check the clocks" }
        }
        // A CA of the same name with another key shows as a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ConnectError::UntrustedCa { addr }
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<PeerMismatch>() {
            Some(mismatch) => ConnectError::WrongPeer { addr, mismatch: mismatch.clone() },
            None if other.0.is::<PinMismatch>() => ConnectError::CaMismatch { addr },
            None => ConnectError::NotANode { addr, reason: other.to_string() },
        },
        other => ConnectError::NotANode { addr, reason: other.to_string() },
    }
}

/// Why a certificate of an authority that is not trusted any more is refused, and what helps.
const NOT_OUR_CA: &str = "it is not from the cluster's CA; if that was rotated while this node was away: use \"swarmctl leave --force\" here, then it can join again";

/// What our server means by an alert, see `verify.rs` and rustls' mapping from `CertificateError`.
fn refused(addr: &str, alert: AlertDescription) -> ConnectError {
    let addr = addr.to_owned();
    let reason = match alert {
        AlertDescription::CertificateExpired => "it has expired, or the clocks differ".into(),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => NOT_OUR_CA.into(),
        AlertDescription::CertificateUnknown | AlertDescription::BadCertificate => {
            "its names are not those of a node of the cluster".into()
        }
        AlertDescription::HandshakeFailure | AlertDescription::AccessDenied => {
            let reason = "the server has no certificate yet, or allows no common cipher".into();
            return ConnectError::Handshake { addr, reason };
        }
        other => {
            return ConnectError::Handshake {
                addr,
                reason: format!("the server reports {other:?}"),
            };
        }
    };
    ConnectError::Refused { addr, reason }
}
