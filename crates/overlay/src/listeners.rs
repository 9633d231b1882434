//! What listens in a task's namespace, over sock_diag(7).
//!
//! `/proc/<pid>/net/tcp` has the same, at the price of a walk through the host's whole table of connections: milliseconds.
//! This walks the table of listeners alone, which takes microseconds.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use swarm_netns::Namespace;

use crate::Error;

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP` of linux/netlink.h.
const REQUEST_DUMP: u16 = 0x1 | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER: usize = 16;
/// `struct inet_diag_req_v2` of linux/inet_diag.h.
const REQUEST: usize = 56;
/// `TCP_LISTEN` of include/net/tcp_states.h.
const TCP_LISTEN: u32 = 10;
/// Dumps come in datagrams of up to 32 KiB (`NLMSG_GOODSIZE`'s ceiling in `netlink_dump`).
const DATAGRAM: usize = 32 * 1024;
/// The kernel answers at once; this only keeps a kernel bug from holding a thread for ever.
const PATIENCE: TimeVal = TimeVal::new(10, 0);

/// A look into one task's namespace; keeps it alive.
#[derive(Debug)]
pub struct Listeners {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listeners {
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        let open = || -> io::Result<OwnedFd> {
            let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkSockDiag);
            let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
            Ok(socket)
        };
        let opened = Namespace::open(path)?.run(open).await?;
        let socket = opened.map_err(|e| failed(path, e))?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// The TCP sockets that listen now. Takes microseconds, and waits for nothing but the kernel's own work.
    ///
    /// # Errors
    /// What the kernel said; that it lacks `tcp_diag`, say.
    pub fn now(&mut self) -> Result<Vec<SocketAddr>, Error> {
        let dump = |family| self.dump(family).map_err(|e| failed(&self.path, e));
        let mut found = dump(AddressFamily::Inet)?;
        match dump(AddressFamily::Inet6) {
            Ok(more) => found.extend(more),
            // A kernel without IPv6.
            Err(e) if e.errno() == Some(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        Ok(found)
    }

    fn dump(&self, family: AddressFamily) -> io::Result<Vec<SocketAddr>> {
        let socket = self.socket.as_raw_fd();
        send(socket, &request(family), MsgFlags::empty())?;
        let mut found = Vec::new();
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = match recv(socket, &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            if parse(&buffer[..length], &mut found)? {
                return Ok(found);
            }
        }
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Netlink { action: format!("list the listening sockets of {}", path.display()), source }
}

fn request(family: AddressFamily) -> [u8; NLMSG_HEADER + REQUEST] {
    let mut message = [0; NLMSG_HEADER + REQUEST];
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    let body = &mut message[NLMSG_HEADER..];
    body[0] = family as u8;
    body[1] = SockProtocol::Tcp as u8;
    body[4..8].copy_from_slice(&(1u32 << TCP_LISTEN).to_ne_bytes());
    message
}

/// Takes the sockets out of one datagram; whether it was the last.
fn parse(mut datagram: &[u8], found: &mut Vec<SocketAddr>) -> io::Result<bool> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "unexpected netlink answer");
    while !datagram.is_empty() {
        let header = datagram.first_chunk::<NLMSG_HEADER>().ok_or_else(malformed)?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = datagram.get(NLMSG_HEADER..length).ok_or_else(malformed)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            // Both carry an errno: a dump that fails on its way says so at its end (`netlink_dump_done`).
            kind @ (NLMSG_DONE | NLMSG_ERROR) => {
                let errno = i32::from_ne_bytes(*body.first_chunk::<4>().ok_or_else(malformed)?);
                return match (kind, errno) {
                    (NLMSG_DONE, 0) => Ok(true),
                    _ => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
            _ => found.push(listener(body).ok_or_else(malformed)?),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Family, port and address of a `struct inet_diag_msg`.
fn listener(message: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*message.get(4..)?.first_chunk()?);
    let address = message.get(8..)?;
    let address = if i32::from(*message.first()?) == AddressFamily::Inet as i32 {
        IpAddr::V4(Ipv4Addr::from(*address.first_chunk::<4>()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(*address.first_chunk::<16>()?))
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((NLMSG_HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(NLMSG_HEADER, 0);
        message.extend(body);
        message
    }

    #[test]
    fn what_is_cut_off_or_an_error_is_told() {
        let mut socket = [0u8; 72];
        socket[0] = AddressFamily::Inet as u8;
        socket[4..6].copy_from_slice(&80u16.to_be_bytes());
        let whole = [message(SOCK_DIAG_BY_FAMILY, &socket), message(NLMSG_DONE, &[0; 4])].concat();
        let mut found = Vec::new();
        assert!(parse(&whole, &mut found).unwrap());
        assert_eq!(found, ["0.0.0.0:80".parse().unwrap()]);
        for length in (1..whole.len()).filter(|length| *length != NLMSG_HEADER + socket.len()) {
            assert!(parse(&whole[..length], &mut Vec::new()).is_err(), "{length}");
        }
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let error = message(kind, &(-(Errno::ENOENT as i32)).to_ne_bytes());
            let error = parse(&error, &mut Vec::new()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::ENOENT as i32));
        }
    }
}
