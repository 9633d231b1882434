//! UDP: the responder of the server, and the client that asks it.

use crate::args::{Args, Failure};
use crate::stats::Stats;
use crate::{identity, lookup};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn serve_forever(socket: &UdpSocket) {
    let mut packet = [0u8; 2048];
    loop {
        // An ICMP error for an answer to a client that is gone shows up here; it concerns nobody else.
        let Ok((_, client)) = socket.recv_from(&mut packet) else {
            continue;
        };
        if let Err(error) = answer(socket, client) {
            eprintln!("udp {client}: {error}");
        }
    }
}

fn answer(socket: &UdpSocket, client: SocketAddr) -> io::Result<()> {
    let own = SocketAddr::new(own_address_towards(client)?.ip(), socket.local_addr()?.port());
    socket.send_to(identity::udp_line(own, client).as_bytes(), client).map(drop)
}

/// The address that packets to `client` come from: connecting a UDP socket sends nothing, it only chooses the route.
fn own_address_towards(client: SocketAddr) -> io::Result<SocketAddr> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    probe.connect(client)?;
    probe.local_addr()
}

pub(crate) fn run(mut args: Args) -> Result<(), Failure> {
    let count = args.option::<u64>("-n")?.unwrap_or(1);
    let timeout = args.seconds("--timeout")?.unwrap_or(DEFAULT_TIMEOUT);
    let summary = args.flag("--summary") || count > 1;
    let [target] = args.words("HOST:PORT")?;
    let (host, port) = target
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
        .ok_or_else(|| Failure::Usage(format!("{target:?} is not HOST:PORT")))?;
    let mut stats = Stats::new();
    for _ in 0..count {
        let started = Instant::now();
        match ask(host, port, timeout) {
            Ok(answer) if !summary => print!("{}", String::from_utf8_lossy(&answer)),
            Ok(answer) => stats.success(started.elapsed(), identity::parse_udp(&answer)),
            Err(error) if !summary => return Err(Failure::failed(error)),
            Err(error) => stats.failure(&error),
        }
    }
    let failed = stats.failed();
    if summary {
        println!("{}", stats.summary());
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::failed(format!("{failed} of {count} calls failed")))
    }
}

/// One question from a new port, so that each is a flow of its own to a balancer.
fn ask(host: &str, port: u16, timeout: Duration) -> io::Result<Vec<u8>> {
    let address = lookup::address(host)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect((address, port))?;
    socket.send(b"who are you?")?;
    let mut answer = vec![0u8; 2048];
    let length = socket.recv(&mut answer).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {address}:{port}"))
        }
        _ => error,
    })?;
    answer.truncate(length);
    Ok(answer)
}
