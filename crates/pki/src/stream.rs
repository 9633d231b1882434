//! An established connection between nodes, and what the server knows about its client.

use crate::{PeerIdentity, name::Leaf};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tonic::transport::server::Connected;

/// What RPCs can know about their caller; in the extensions of every request that came through a
/// [`crate::TlsAcceptor`].
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Where the connection comes from.
    pub addr: SocketAddr,
    /// Who the client's certificate says it is; `None` if it presented none.
    pub identity: Option<Arc<PeerIdentity>>,
}

/// A client's connection, for tonic's `serve_with_incoming`. It ends when the client's certificate
/// expires, so that a certificate gives no access for longer than it says; the client connects
/// again with the one it has renewed.
pub struct NodeStream {
    io: Ending<tokio_rustls::server::TlsStream<TcpStream>>,
    info: PeerInfo,
    /// Gives the place of a client without a certificate to the next one when dropped.
    _place: Option<OwnedSemaphorePermit>,
}

impl NodeStream {
    /// The connection of a node whose certificate has been verified.
    pub(crate) fn of_node(
        io: tokio_rustls::server::TlsStream<TcpStream>,
        addr: SocketAddr,
        leaf: Leaf,
    ) -> Self {
        let io = Ending::at_expiry(io, leaf.not_after);
        let info = PeerInfo { addr, identity: Some(Arc::new(leaf.identity)) };
        Self { io, info, _place: None }
    }

    /// The connection of a client without a certificate, which may stay for `limit`.
    pub(crate) fn anonymous(
        io: tokio_rustls::server::TlsStream<TcpStream>,
        addr: SocketAddr,
        limit: Duration,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let io = Ending::after(io, limit, "a client without a certificate stayed too long");
        Self { io, info: PeerInfo { addr, identity: None }, _place: Some(place) }
    }

    /// Ends the connection with this reason too. Else calls that stream would go on with a server that is no more, as
    /// long as their clients like.
    #[must_use]
    pub fn ending_with(mut self, end: impl Future<Output = &'static str> + Send + 'static) -> Self {
        let first = std::mem::replace(&mut self.io.end, Box::pin(std::future::pending()));
        self.io.end = Box::pin(async {
            tokio::select! { reason = first => reason, reason = end => reason }
        });
        self
    }

    /// Who the client is.
    pub fn peer(&self) -> &PeerInfo {
        &self.info
    }
}

impl Connected for NodeStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

/// Why a stream ends.
type End = Pin<Box<dyn Future<Output = &'static str> + Send>>;

/// A stream that fails to read, which ends an HTTP/2 connection, once there is a reason to.
pub(crate) struct Ending<S> {
    io: S,
    end: End,
}

impl<S> Ending<S> {
    fn after(io: S, limit: Duration, reason: &'static str) -> Self {
        let sleep = tokio::time::sleep(limit);
        Self {
            io,
            end: Box::pin(async move {
                sleep.await;
                reason
            }),
        }
    }

    /// Limited by the end of the peer's certificate.
    pub(crate) fn at_expiry(io: S, not_after: OffsetDateTime) -> Self {
        // Negative if it expired since the handshake, which is no time at all.
        let left = Duration::try_from(not_after - OffsetDateTime::now_utc()).unwrap_or_default();
        Self::after(io, left, "the peer's certificate has expired")
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ending<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(reason) = self.end.as_mut().poll(cx) {
            self.end = Box::pin(std::future::ready(reason)); // for who reads again nevertheless
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason)));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ending<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl AsyncRead for NodeStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for NodeStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
