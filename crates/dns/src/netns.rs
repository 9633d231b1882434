//! Opens the sockets of a task inside the task's network namespace. They stay in the namespace they were made in, whoever
//! uses them.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use swarm_netns::Namespace;

use crate::{Error, LISTEN_ADDRESS};

/// The two sockets of one task, both at [`LISTEN_ADDRESS`].
pub(crate) struct Sockets {
    pub(crate) udp: tokio::net::UdpSocket,
    pub(crate) tcp: tokio::net::TcpListener,
}

/// Opens both sockets in the namespace behind `path` (`/proc/PID/ns/net`, `/run/netns/NAME`).
pub(crate) async fn open(path: &Path) -> Result<Sockets, Error> {
    let failed = |transport| move |cause| Error::Bind { transport, path: path.to_owned(), cause };
    let (udp, tcp) = Namespace::open(path)?.run(|| (bind_udp(), bind_tcp())).await?;
    Ok(Sockets { udp: udp.map_err(failed("udp"))?, tcp: tcp.map_err(failed("tcp"))? })
}

fn bind_udp() -> io::Result<tokio::net::UdpSocket> {
    let socket = UdpSocket::bind(LISTEN_ADDRESS)?;
    socket.set_nonblocking(true)?;
    tokio::net::UdpSocket::from_std(socket)
}

fn bind_tcp() -> io::Result<tokio::net::TcpListener> {
    // std sets SO_REUSEADDR, so connections of a server that was killed do not hold the port for a minute.
    let listener = TcpListener::bind(LISTEN_ADDRESS)?;
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}
