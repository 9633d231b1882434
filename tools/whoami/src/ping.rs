//! `whoami ping`: ICMP echo (RFC 792).

use crate::args::{Args, Failure};
use crate::sys::{IcmpKind, forbid_fragments, icmp_socket};
use crate::{http, lookup};
use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
const HEADER: usize = 8;
const MAX_SIZE: usize = 65_507;

pub(crate) fn run(mut args: Args) -> Result<(), Failure> {
    let count = args.option::<u16>("-n")?.unwrap_or(1);
    let size = args.option::<usize>("--size")?.unwrap_or(56).min(MAX_SIZE);
    let timeout = args.seconds("--timeout")?.unwrap_or(Duration::from_secs(2));
    let whole = args.flag("--dont-fragment");
    let [host] = args.words("one HOST")?;
    let address = lookup::address(&host).map_err(Failure::failed)?;
    let (socket, kind) =
        icmp_socket().map_err(|e| Failure::failed(format!("cannot open an ICMP socket: {e}")))?;
    socket.connect((address, 0)).map_err(Failure::failed)?;
    if whole {
        forbid_fragments(&socket).map_err(Failure::failed)?;
    }
    // Only a raw socket keeps it: it tells our replies from those to others.
    let identifier = (std::process::id() & 0xffff) as u16;
    let mut failed = 0;
    for sequence in 1..=count {
        let started = Instant::now();
        match echo(&socket, kind, &request(identifier, sequence, size), timeout) {
            Ok(()) => println!(
                "{size} bytes from {address}: seq={sequence} time={:.3} ms",
                started.elapsed().as_secs_f64() * 1e3
            ),
            Err(error) => {
                println!("seq={sequence}: {error}");
                failed += 1;
            }
        }
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::failed(format!("{failed} of {count} packets had no answer")))
    }
}

fn request(identifier: u16, sequence: u16, size: usize) -> Vec<u8> {
    let mut message = vec![ECHO, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(http::pattern(size));
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Sends `request` and waits for its reply, which carries the same sequence number and data.
fn echo(socket: &UdpSocket, kind: IcmpKind, request: &[u8], timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    socket.send(request)?;
    let mut buffer = vec![0u8; 65_536];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        }
        socket.set_read_timeout(Some(left))?;
        let received = match socket.recv(&mut buffer) {
            Ok(length) => &buffer[..length],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        };
        if is_reply(received, kind, request) {
            return Ok(());
        }
    }
}

fn is_reply(received: &[u8], kind: IcmpKind, request: &[u8]) -> bool {
    let message = match kind {
        IcmpKind::Datagram => Some(received),
        // The IP header's length is in its first byte, in words of four bytes.
        IcmpKind::Raw => {
            received.first().and_then(|first| received.get(usize::from(first & 0xf) * 4..))
        }
    };
    let Some(message) = message.filter(|m| m.len() == request.len() && m.len() >= HEADER) else {
        return false;
    };
    let same_identifier = kind == IcmpKind::Datagram || message[4..6] == request[4..6];
    message[0] == ECHO_REPLY && same_identifier && message[6..] == request[6..]
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let mut sum: u32 = message
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_its_checksum_sums_to_zero() {
        for size in [0, 1, 56, 1400] {
            assert_eq!(checksum(&request(7, 1, size)), 0);
        }
    }

    #[test]
    fn only_our_own_reply_counts() {
        let sent = request(7, 1, 4);
        let mut reply = sent.clone();
        reply[0] = ECHO_REPLY;
        let with_ip_header: Vec<u8> =
            [0x45].into_iter().chain([0; 19]).chain(reply.clone()).collect();
        assert!(is_reply(&reply, IcmpKind::Datagram, &sent));
        assert!(is_reply(&with_ip_header, IcmpKind::Raw, &sent));
        assert!(!is_reply(&sent, IcmpKind::Datagram, &sent), "our own request, seen on loopback");
        assert!(!is_reply(&with_ip_header, IcmpKind::Raw, &request(8, 1, 4)));
        assert!(!is_reply(&[], IcmpKind::Raw, &sent));
    }
}
