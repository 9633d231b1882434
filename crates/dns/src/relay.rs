//! Asks the node's resolvers what the swarm does not know: each in turn, UDP first, TCP for what was truncated, all in
//! bounded time. Replies go back as they came, with the client's id.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use crate::LISTEN_ADDRESS;
use crate::query::{HEADER_SIZE, MAX_UDP_SIZE, Query};

/// How long a resolver that did not reply is asked after all others only.
const DISTRUST: Duration = Duration::from_secs(10);
const FLAG_RESPONSE: u8 = 0x80;
const FLAG_TRUNCATED: u8 = 0x02;
const RCODE_MASK: u8 = 0x0f;

/// The node's resolvers.
pub(crate) struct Relay {
    upstreams: ArcSwap<Vec<Upstream>>,
    attempt: Duration,
    total: Duration,
    started: Instant,
}

struct Upstream {
    address: SocketAddr,
    /// Until when it is distrusted, in milliseconds after the relay was made.
    distrusted_until: AtomicU64,
}

impl Relay {
    /// A relay that gives each resolver `attempt` and all of them together `total`.
    pub(crate) fn new(upstreams: &[SocketAddr], attempt: Duration, total: Duration) -> Self {
        Self {
            upstreams: ArcSwap::from_pointee(trusted(upstreams)),
            attempt,
            total,
            started: Instant::now(),
        }
    }

    /// Replaces the resolvers, for queries from now on.
    pub(crate) fn set_upstreams(&self, upstreams: &[SocketAddr]) {
        self.upstreams.store(Arc::new(trusted(upstreams)));
    }

    /// Whether there is no resolver to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.upstreams.load().is_empty()
    }

    /// The reply to send to the client: the first that settles the question; else the last error a resolver sent; else, if none
    /// replied in time, nothing. Who did not reply is asked once more, as UDP loses packets.
    pub(crate) async fn ask(&self, query: &Query) -> Option<Vec<u8>> {
        let deadline = Instant::now() + self.total;
        let upstreams = self.upstreams.load_full();
        let mut silent = self.in_order(&upstreams);
        let mut refusal = None;
        for _round in 0..2 {
            let mut still_silent = Vec::new();
            for upstream in silent {
                let attempt = deadline.min(Instant::now() + self.attempt);
                match exchange(upstream.address, query, attempt).await {
                    Ok(reply) if settles(&reply) => return Some(reply),
                    Ok(reply) => refusal = Some(reply),
                    Err(error) => {
                        tracing::debug!(resolver = %upstream.address, %error, "a resolver did not answer");
                        self.distrust(upstream);
                        still_silent.push(upstream);
                    }
                }
                if Instant::now() >= deadline {
                    return refusal;
                }
            }
            silent = still_silent;
        }
        refusal
    }

    /// As configured, but with those that did not reply lately at the end.
    fn in_order<'a>(&self, upstreams: &'a [Upstream]) -> Vec<&'a Upstream> {
        let now = self.started.elapsed().as_millis() as u64;
        let mut order: Vec<&Upstream> = upstreams.iter().collect();
        order.sort_by_key(|upstream| upstream.distrusted_until.load(Ordering::Relaxed) > now);
        order
    }

    fn distrust(&self, upstream: &Upstream) {
        let until = (self.started.elapsed() + DISTRUST).as_millis() as u64;
        upstream.distrusted_until.store(until, Ordering::Relaxed);
    }
}

fn trusted(upstreams: &[SocketAddr]) -> Vec<Upstream> {
    let not_ourselves = upstreams.iter().filter(|&&address| address != LISTEN_ADDRESS);
    not_ourselves
        .map(|&address| Upstream { address, distrusted_until: AtomicU64::new(0) })
        .collect()
}

/// Whether no other resolver need be asked. These errors speak of the resolver, not of the name; the C library goes on
/// to the next one, too.
fn settles(reply: &[u8]) -> bool {
    let code = ResponseCode::from_low(reply[3] & RCODE_MASK);
    !matches!(code, ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp)
}

/// One reply of one resolver, no larger than the client takes, with the client's id.
async fn exchange(resolver: SocketAddr, query: &Query, deadline: Instant) -> io::Result<Vec<u8>> {
    let question = Question::new(query);
    let mut reply = within(deadline, over_udp(resolver, &question)).await?;
    if reply[2] & FLAG_TRUNCATED != 0 {
        match within(deadline, over_tcp(resolver, &question)).await {
            Ok(whole) => reply = whole,
            Err(error) if query.is_over_tcp() => return Err(error),
            // The part that is there, marked as such, serves the client as well as it would have without a relay.
            Err(error) => tracing::debug!(%resolver, %error, "no answer over TCP"),
        }
    }
    if reply.len() > query.size_limit() {
        reply = cut(&reply, query);
    }
    reply[..2].copy_from_slice(&query.id().to_be_bytes());
    Ok(reply)
}

async fn within<T>(deadline: Instant, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout_at(deadline, work).await?
}

/// Only the header and the question, marked as truncated, so that the client asks again over TCP.
fn cut(reply: &[u8], query: &Query) -> Vec<u8> {
    let mut cut = [&reply[..HEADER_SIZE], query.question_bytes()].concat();
    cut[2] |= FLAG_TRUNCATED;
    cut[4..HEADER_SIZE].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    cut
}

/// A client's message under an id of our own: random, so that nobody can guess it and forge a reply (RFC 5452).
struct Question<'a> {
    message: Vec<u8>,
    section: &'a [u8],
}

impl<'a> Question<'a> {
    fn new(query: &'a Query) -> Self {
        let mut message = query.raw().to_vec();
        message[..2].copy_from_slice(&rand::random::<u16>().to_be_bytes());
        Self { message, section: query.question_bytes() }
    }

    /// Whether `reply` answers this question: same id, a response, the same question; some servers leave the question out of
    /// an error.
    fn is_answered_by(&self, reply: &[u8]) -> bool {
        if reply.len() < HEADER_SIZE
            || reply[..2] != self.message[..2]
            || reply[2] & FLAG_RESPONSE == 0
        {
            return false;
        }
        let bare_error = reply[4..6] == [0, 0] && reply[3] & RCODE_MASK != 0;
        let section = reply.get(HEADER_SIZE..HEADER_SIZE + self.section.len());
        bare_error || section.is_some_and(|section| section.eq_ignore_ascii_case(self.section))
    }
}

/// A socket of its own for each question: another random port to guess, and the kernel drops what others send.
async fn over_udp(resolver: SocketAddr, question: &Question<'_>) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(&question.message).await?;
    loop {
        socket.readable().await?;
        // One octet more than is sent on, to notice what is larger.
        let mut reply = Vec::with_capacity(MAX_UDP_SIZE + 1);
        match socket.try_recv_buf(&mut reply) {
            Ok(_) if question.is_answered_by(&reply) => return Ok(whole_or_marked(reply)),
            // Late, forged or malformed: the right one may still come.
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
    }
}

/// A reply that did not fit the buffer has lost its end: marked as truncated, it is asked for again over TCP.
fn whole_or_marked(mut reply: Vec<u8>) -> Vec<u8> {
    if reply.len() > MAX_UDP_SIZE {
        reply[2] |= FLAG_TRUNCATED;
    }
    reply
}

async fn over_tcp(resolver: SocketAddr, question: &Question<'_>) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = (question.message.len() as u16).to_be_bytes();
    stream.write_all(&[&length, question.message.as_slice()].concat()).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    if question.is_answered_by(&reply) {
        Ok(reply)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the reply is to another question"))
    }
}
