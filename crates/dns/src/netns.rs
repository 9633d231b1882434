//! Opens the sockets of a task inside the task's network namespace. `setns(2)` moves the calling thread, so a
//! thread of its own does it and ends: no thread of the runtime is ever in a foreign namespace. The sockets stay
//! in the namespace they were made in, whoever uses them.

use std::fs::File;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use crate::{Error, LISTEN_ADDRESS};

/// The two sockets of one task, both at [`LISTEN_ADDRESS`].
pub(crate) struct Sockets {
    pub(crate) udp: tokio::net::UdpSocket,
    pub(crate) tcp: tokio::net::TcpListener,
}

/// Opens both sockets in the namespace behind `path` (`/proc/PID/ns/net`, `/run/netns/NAME`).
pub(crate) async fn open(path: &Path) -> Result<Sockets, Error> {
    let (send, receive) = oneshot::channel();
    let inside = path.to_owned();
    std::thread::Builder::new()
        .name("dns-netns".into())
        .spawn(move || {
            // Nobody is left to take the sockets if attach was cancelled; they are closed then.
            let _ = send.send(bind_inside(inside));
        })
        .map_err(|cause| open_sockets(path, cause))?;
    let (udp, tcp) = receive
        .await
        .map_err(|_| open_sockets(path, io::Error::other("the thread ended early")))??;
    register(udp, tcp).map_err(|cause| open_sockets(path, cause))
}

fn bind_inside(path: PathBuf) -> Result<(UdpSocket, TcpListener), Error> {
    let enter = || {
        let namespace = File::open(&path)?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(())
    };
    if let Err(cause) = enter() {
        return Err(Error::EnterNamespace { path, cause });
    }
    let bind = |transport, cause| Error::Bind { transport, path: path.clone(), cause };
    let udp = UdpSocket::bind(LISTEN_ADDRESS).map_err(|cause| bind("udp", cause))?;
    // std sets SO_REUSEADDR, so connections of a server that was killed do not hold the port for a minute.
    let tcp = TcpListener::bind(LISTEN_ADDRESS).map_err(|cause| bind("tcp", cause))?;
    Ok((udp, tcp))
}

fn register(udp: UdpSocket, tcp: TcpListener) -> io::Result<Sockets> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok(Sockets {
        udp: tokio::net::UdpSocket::from_std(udp)?,
        tcp: tokio::net::TcpListener::from_std(tcp)?,
    })
}

fn open_sockets(path: &Path, cause: io::Error) -> Error {
    Error::OpenSockets { path: path.to_owned(), cause }
}
