//! The netfilter netlink of the calling thread's namespace: nftables' generation id, and deleting tracked connections.

mod conntrack;
mod message;

use std::{collections::BTreeSet, io, net::Ipv4Addr, os::fd::AsRawFd, os::fd::OwnedFd};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt,
            socket, sockopt,
        },
        time::TimeVal,
    },
};

use crate::{Error, Result};
pub(crate) use conntrack::Entry;
use message::Reply;

/// The kernel answers at once; this only keeps a kernel bug from holding a thread for ever.
const PATIENCE: TimeVal = TimeVal::new(10, 0);
/// Dumps come in datagrams of up to 32 KiB (`NLMSG_GOODSIZE`'s ceiling in `netlink_dump`).
const DATAGRAM: usize = 64 * 1024;

/// With more suspects than this, one look at the whole table is cheaper than a filtered one for each.
const MAX_FILTERED: usize = 16;

/// Whose tracked connections to look at: those answered by these addresses, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answerers {
    Any,
    These(BTreeSet<Ipv4Addr>),
}

impl Answerers {
    pub(crate) fn none() -> Self {
        Self::These(BTreeSet::new())
    }

    pub(crate) fn are_none(&self) -> bool {
        matches!(self, Self::These(addresses) if addresses.is_empty())
    }

    pub(crate) fn merge(&mut self, more: &Self) {
        match (&mut *self, more) {
            (Self::These(known), Self::These(more)) => known.extend(more),
            _ => *self = Self::Any,
        }
    }

    /// As filters for dumps.
    fn filters(&self) -> Vec<Option<Ipv4Addr>> {
        match self {
            Self::These(addresses) if addresses.len() <= MAX_FILTERED => {
                addresses.iter().copied().map(Some).collect()
            }
            _ => vec![None],
        }
    }
}

/// A netlink socket in the namespace of the thread that opened it.
struct Netfilter {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Netfilter {
    /// Opens a socket.
    fn open() -> io::Result<Self> {
        let family = AddressFamily::Netlink;
        let socket =
            socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM], sequence: 0 })
    }

    /// The id of the namespace's nftables generation: it grows by one with every committed transaction, whoever's,
    /// and skips 0 when it wraps (`nf_tables_commit`).
    fn generation(&mut self) -> io::Result<u32> {
        let sequence = self.next_sequence();
        self.send(&message::generation_request(sequence))?;
        for (_, reply) in self.receive(sequence)? {
            match reply {
                Reply::Payload(payload) => {
                    return message::generation(payload).ok_or_else(unexpected);
                }
                Reply::Ack(errno) | Reply::Done(errno) => succeeded(errno)?,
            }
        }
        Err(unexpected())
    }

    /// Deletes the tracked connections of the answerers that `stale` picks; returns how many.
    fn delete_connections(
        mut self,
        answerers: &Answerers,
        stale: impl Fn(&Entry) -> bool,
    ) -> io::Result<usize> {
        answerers.filters().into_iter().map(|answerer| self.sweep(answerer, &stale)).sum()
    }

    fn sweep(
        &mut self,
        answerer: Option<Ipv4Addr>,
        stale: impl Fn(&Entry) -> bool,
    ) -> io::Result<usize> {
        // A second socket deletes while the first dumps, so that memory is bounded whatever the table's size.
        let mut deleter = Self::open()?;
        let sequence = self.next_sequence();
        self.send(&conntrack::dump_request(sequence, answerer))?;
        let mut deleted = 0;
        loop {
            for (_, reply) in self.receive(sequence)? {
                match reply {
                    Reply::Payload(payload) => {
                        let entry = Entry::parse(payload).filter(&stale);
                        deleted += entry.map_or(Ok(0), |entry| deleter.delete(&entry))?;
                    }
                    Reply::Ack(errno) => succeeded(errno)?,
                    Reply::Done(errno) => return succeeded(errno).map(|()| deleted),
                }
            }
        }
    }

    fn delete(&mut self, entry: &Entry) -> io::Result<usize> {
        let sequence = self.next_sequence();
        self.send(&entry.delete_request(sequence))?;
        match self.receive(sequence)?.first() {
            Some((_, Reply::Ack(0))) => Ok(1),
            // It ended by itself in the meantime.
            Some((_, Reply::Ack(errno))) if -errno == Errno::ENOENT as i32 => Ok(0),
            Some((_, Reply::Ack(errno))) => succeeded(*errno).map(|()| 0),
            _ => Err(unexpected()),
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = send(self.socket.as_raw_fd(), bytes, MsgFlags::empty())?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The messages of the next datagram, all answers to `sequence`.
    fn receive(&mut self, sequence: u32) -> io::Result<Vec<(u32, Reply<'_>)>> {
        let received = loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        let replies = message::replies(&self.buffer[..received])?;
        if replies.iter().all(|(answered, _)| *answered == sequence) {
            Ok(replies)
        } else {
            Err(unexpected())
        }
    }
}

/// The id of the calling thread's nftables generation.
pub(crate) fn generation() -> Result<u32> {
    let read = Netfilter::open().and_then(|mut socket| socket.generation());
    read.map_err(failed("read nftables' generation"))
}

/// The generation after one more transaction. If another came between, the number differs and the next look finds out.
pub(crate) fn following(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

/// Deletes the tracked connections of the answerers that `stale` picks; returns how many.
pub(crate) fn drop_connections(
    answerers: &Answerers,
    stale: impl Fn(&Entry) -> bool,
) -> Result<usize> {
    if answerers.are_none() {
        return Ok(0);
    }
    Netfilter::open()
        .and_then(|socket| socket.delete_connections(answerers, stale))
        .map_err(failed("delete tracked connections that contradict what is programmed"))
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Netlink { action, source }
}

fn succeeded(errno: i32) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-errno)) }
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unexpected netlink answer")
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::nft::Nft;

    fn these(count: u32) -> Answerers {
        Answerers::These((0..count).map(Ipv4Addr::from_bits).collect())
    }

    #[test]
    fn few_answerers_are_asked_for_one_by_one_and_many_at_once() {
        assert_eq!(these(0).filters(), []);
        assert_eq!(these(2).filters(), [0, 1].map(|bits| Some(Ipv4Addr::from_bits(bits))));
        assert_eq!(these(17).filters(), [None]);
        assert_eq!(Answerers::Any.filters(), [None]);
    }

    /// Between the look at a connection and its deletion the client may open the next one from the same port. The kernel
    /// tends to put that into the memory of the last one.
    #[tokio::test]
    async fn the_next_connection_from_the_same_port_is_left_alone() {
        const TURNS: &str = "table ip turns {
  chain output {
    type nat hook output priority -100;
    ip daddr 127.0.0.2 dnat to numgen inc mod 2 map { 0 : 127.0.0.3, 1 : 127.0.0.4 }
  }
}";
        let checked = swarm_netns::in_new(|| {
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
            assert!(up.expect("ip").success());
            let server = |n| UdpSocket::bind((Ipv4Addr::new(127, 0, 0, n), 53)).expect("a server");
            let _servers = [3, 4].map(server);
            let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            client.connect((Ipv4Addr::new(127, 0, 0, 2), 53)).expect("UDP connects at once");
            Nft::find().and_then(|nft| nft.commit(TURNS)).expect("a chain that balances");
            let mut socket = Netfilter::open().expect("a socket");
            for _ in 0..5 {
                client.send(b"first").expect("a datagram");
                let [first] = &tracked()[..] else { panic!("{:?}", tracked()) };
                assert_eq!(socket.delete(first).expect("an answer"), 1);
                client.send(b"next").expect("a datagram");
                let [next] = &tracked()[..] else { panic!("{:?}", tracked()) };
                assert_ne!(next.answerer, first.answerer);
                assert_eq!(socket.delete(first).expect("an answer"), 0, "gone already");
                assert_eq!(socket.delete(next).expect("an answer"), 1, "still there");
            }
        });
        checked.await.expect("a namespace");
    }

    /// What is balanced in the calling thread's namespace.
    fn tracked() -> Vec<Entry> {
        let found = std::cell::RefCell::new(Vec::new());
        let note = |entry: &Entry| {
            found.borrow_mut().extend(entry.dnat.then(|| entry.clone()));
            false
        };
        drop_connections(&Answerers::Any, note).expect("a look at all connections");
        found.into_inner()
    }

    #[test]
    fn merging_forgets_nobody() {
        let mut merged = these(1);
        merged.merge(&these(3));
        assert_eq!(merged, these(3));
        merged.merge(&Answerers::Any);
        merged.merge(&these(3));
        assert_eq!(merged, Answerers::Any);
    }
}
