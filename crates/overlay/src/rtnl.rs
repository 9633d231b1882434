//! One rtnetlink connection to one network namespace: batches of changes, and dumps.
//!
//! `rtnetlink::Handle` sends one message per system call and waits for each. Here the connection beneath it is used directly, so
//! that a batch goes out as one datagram and is acknowledged in one read.

use std::io;
use std::time::Duration;

use futures::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::proto::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::proto::{ConnectionHandle, new_connection_with_socket};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Error;
use crate::message::{self, Request};
use crate::observed::{
    Link, Neighbour, Route, parse_address, parse_link, parse_neighbour, parse_route,
};

/// Changes per datagram: their acknowledgements must fit into the receive buffer.
const BATCH: usize = 128;
/// Bytes; an acknowledgement takes about 1 KiB of it, a dump waits for room.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The kernel answers at once but for the time it waits for its lock; after this it is not going to.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Readings of a table that changes under the reader.
const DUMP_ATTEMPTS: usize = 5;

/// A connection; closed when dropped.
#[derive(Debug)]
pub(crate) struct Rtnl {
    handle: ConnectionHandle<RouteNetlinkMessage>,
    driver: JoinHandle<()>,
    /// The kernel runs one dump at a time per socket and answers EBUSY to a second (net/netlink/af_netlink.c).
    dumping: Mutex<()>,
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Rtnl {
    /// Connects to the network namespace of the *calling thread*; `runtime` drives the connection from then on.
    pub(crate) fn open(runtime: &Handle) -> Result<Self, Error> {
        let failed = |e| Error::netlink("open rtnetlink socket", e);
        let _context = runtime.enter();
        let (mut connection, handle, _) =
            new_connection_with_socket::<RouteNetlinkMessage, TokioSocket>(NETLINK_ROUTE)
                .map_err(failed)?;
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        let socket = connection.socket_mut().socket_mut();
        socket.set_netlink_get_strict_chk(true).map_err(failed)?;
        socket.set_cap_ack(true).map_err(failed)?;
        setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).map_err(|e| failed(e.into()))?;
        Ok(Self { handle, driver: runtime.spawn(connection), dumping: Mutex::new(()) })
    }

    /// Whether the connection broke and must be opened anew.
    pub(crate) fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }

    /// Sends all requests, in order. A failure does not stop those behind it; all failures are returned together.
    pub(crate) async fn apply(&self, object: &str, requests: Vec<Request>) -> Result<(), Error> {
        let mut errors = Vec::new();
        let mut requests = requests.into_iter();
        loop {
            let batch: Vec<Request> = requests.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Error::collect(object, errors);
            }
            errors.extend(self.send(batch).await?);
        }
    }

    /// Sends one datagram; the failures among its requests.
    async fn send(&self, batch: Vec<Request>) -> Result<Vec<Error>, Error> {
        let (messages, labels): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|r| (frame(r.message, r.flags | NLM_F_ACK), (r.action, r.tolerate)))
            .unzip();
        let mut answers = self.request(messages)?;
        let mut errors = Vec::new();
        for (action, tolerate) in labels {
            let code = match timeout(ANSWER_TIMEOUT, answers.next()).await {
                Ok(Some(NetlinkMessage { payload: NetlinkPayload::Error(e), .. })) => e.code,
                Ok(_) => return Err(Error::netlink(action, closed())),
                Err(_) => return Err(Error::netlink(action, io::ErrorKind::TimedOut.into())),
            };
            if let Some(code) = code {
                let errno = Errno::from_raw(-code.get());
                if !tolerate.contains(&errno) {
                    errors.push(Error::netlink(action, errno.into()));
                }
            }
        }
        Ok(errors)
    }

    fn request(
        &self,
        messages: Vec<NetlinkMessage<RouteNetlinkMessage>>,
    ) -> Result<impl futures::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin, Error>
    {
        self.handle
            .request_batch(messages, SocketAddr::new(0, 0))
            .map_err(|_| Error::netlink("send rtnetlink request", closed()))
    }

    /// Reads a whole table; anew if it changed meanwhile, as entries may then be missing from what was read.
    async fn dump<T>(
        &self,
        what: &'static str,
        message: RouteNetlinkMessage,
        parse: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let _turn = self.dumping.lock().await;
        let mut attempts = 0;
        loop {
            let (found, interrupted) = self.dump_once(what, message.clone(), &parse).await?;
            attempts += 1;
            // In a table that never rests the last reading has to do; what it lacks, the next audit sees.
            if !interrupted || attempts == DUMP_ATTEMPTS {
                return Ok(found);
            }
        }
    }

    /// What was read, and whether the table changed meanwhile.
    async fn dump_once<T>(
        &self,
        what: &'static str,
        message: RouteNetlinkMessage,
        parse: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<(Vec<T>, bool), Error> {
        let failed = |e| Error::netlink(what, e);
        let mut answers = self.request(vec![frame(message, NLM_F_DUMP)])?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        loop {
            let answer = timeout(ANSWER_TIMEOUT, answers.next()).await;
            let answer = answer.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
            // Without its end a dump is not whole.
            let answer = answer.ok_or_else(|| failed(closed()))?;
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => found.extend(parse(inner)),
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(failed(io::Error::from_raw_os_error(-done.code)));
                }
                NetlinkPayload::Done(_) => return Ok((found, interrupted)),
                NetlinkPayload::Error(e) => return Err(failed(e.to_io())),
                _ => {}
            }
        }
    }

    /// All links of the namespace.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, Error> {
        self.dump("list links", message::get_links(), |m| match m {
            RouteNetlinkMessage::NewLink(link) => Some(parse_link(link)),
            _ => None,
        })
        .await
    }

    /// The link of this name, if there is one.
    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let failed = |e| Error::netlink(format!("look up link {name}"), e);
        let mut answers = self.request(vec![frame(message::get_link(name), 0)])?;
        match timeout(ANSWER_TIMEOUT, answers.next()).await {
            Ok(Some(answer)) => match answer.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    Ok(Some(parse_link(link)))
                }
                NetlinkPayload::Error(e) => match e.to_io() {
                    e if e.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(None),
                    e => Err(failed(e)),
                },
                _ => Err(failed(closed())),
            },
            Ok(None) => Err(failed(closed())),
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    /// All addresses of the namespace: interface index, address, prefix length.
    pub(crate) async fn addresses(&self) -> Result<Vec<(u32, std::net::IpAddr, u8)>, Error> {
        self.dump("list addresses", message::get_addresses(), |m| match m {
            RouteNetlinkMessage::NewAddress(address) => parse_address(&address),
            _ => None,
        })
        .await
    }

    /// All IPv4 unicast routes but those of the table `local`.
    pub(crate) async fn routes(&self) -> Result<Vec<Route>, Error> {
        self.dump("list routes", message::get_routes(), |m| match m {
            RouteNetlinkMessage::NewRoute(route) => parse_route(&route),
            _ => None,
        })
        .await
    }

    /// All IPv4 neighbours.
    pub(crate) async fn neighbours(&self) -> Result<Vec<Neighbour>, Error> {
        self.dump("list neighbours", message::get_neighbours(), |m| match m {
            RouteNetlinkMessage::NewNeighbour(n) => Some(parse_neighbour(n)),
            _ => None,
        })
        .await
    }

    /// All forwarding entries, of bridges as well as of VXLAN devices.
    pub(crate) async fn fdb(&self) -> Result<Vec<Neighbour>, Error> {
        self.dump("list fdb entries", message::get_fdb(), |m| match m {
            RouteNetlinkMessage::NewNeighbour(n) => Some(parse_neighbour(n)),
            _ => None,
        })
        .await
    }
}

fn frame(message: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message))
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the rtnetlink connection is closed")
}
