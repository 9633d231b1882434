//! The connections that the kernel remembers.
//!
//! Netlink offers no listing of them; the kernel prints them in `/proc/net/ip_vs_conn` (`ip_vs_conn_seq_show` in
//! `net/netfilter/ipvs/ip_vs_conn.c`), which is what `ipvsadm -Lnc` reads too.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use swarm_netns::Namespace;

use crate::{Error, Object, Protocol, Result};

/// The calling thread's network namespace, whatever the process's.
const FILE: &str = "/proc/thread-self/net/ip_vs_conn";

/// A connection, or a template that keeps a client with its destination (persistence): then the client's port is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Its protocol; [`Protocol::IP`] for templates of firewall marks.
    pub protocol: Protocol,
    /// Where it comes from.
    pub client: SocketAddr,
    /// What the client called.
    pub virtual_address: SocketAddr,
    /// Who answers.
    pub destination: SocketAddr,
    /// The kernel's word for its state, as `ESTABLISHED` or `UDP`.
    pub state: String,
    /// The time after which it is forgotten unless a packet comes.
    pub expires: Duration,
}

/// The connections of the calling thread's network namespace, in no particular order. While others come and go, one may
/// be missed.
///
/// # Errors
/// [`Error::NoIpvs`] if the module is not loaded; [`Error::Malformed`] for a line that makes no sense.
pub fn connections() -> Result<Vec<Connection>> {
    let text = fs::read_to_string(FILE).map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::NoIpvs,
        _ => Error::Connections { source },
    })?;
    parse(&text)
}

/// [`connections`] of the network namespace at `path`.
///
/// # Errors
/// [`Error::Namespace`] too, if it cannot be entered.
pub async fn connections_in(path: impl AsRef<Path>) -> Result<Vec<Connection>> {
    Namespace::open(path.as_ref())?.run(connections).await?
}

fn parse(text: &str) -> Result<Vec<Connection>> {
    text.lines()
        .skip(1) // the columns' names
        .map(|line| {
            connection(line).ok_or_else(|| Error::Malformed {
                action: "list",
                object: Object::Connections,
                reason: format!("no connection: {line:?}"),
            })
        })
        .collect()
}

/// `TCP 0A00010A D431 0A000102 0050 0A00010B 1F90 ESTABLISHED     899`, then what a persistence engine adds.
fn connection(line: &str) -> Option<Connection> {
    let mut words = line.split_whitespace();
    let protocol = protocol(words.next()?)?;
    let mut address = || Some(SocketAddr::new(ip(words.next()?)?, hex16(words.next()?)?));
    let (client, virtual_address, destination) = (address()?, address()?, address()?);
    let state = words.next()?.to_owned();
    let expires = Duration::from_secs(words.next()?.parse().ok()?);
    Some(Connection { protocol, client, virtual_address, destination, state, expires })
}

fn protocol(word: &str) -> Option<Protocol> {
    match word {
        "IP" => Some(Protocol::IP),
        "TCP" => Some(Protocol::TCP),
        "UDP" => Some(Protocol::UDP),
        "SCTP" => Some(Protocol::SCTP),
        other => other.strip_prefix("IP_")?.parse().ok().map(Protocol),
    }
}

/// IPv4 as eight hexadecimal digits, IPv6 as eight groups of four.
fn ip(word: &str) -> Option<IpAddr> {
    if word.contains(':') {
        return word.parse().ok();
    }
    (word.len() == 8)
        .then(|| u32::from_str_radix(word, 16).ok())?
        .map(Ipv4Addr::from)
        .map(Into::into)
}

fn hex16(word: &str) -> Option<u16> {
    u16::from_str_radix(word, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Debian's 6.1 prints it.
    const LISTING: &str = "\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A00010A D431 0A000102 0050 0A00010B 1F90 ESTABLISHED     899
UDP fd00:0000:0000:0000:0000:0000:0000:000a 8000 fd00:0000:0000:0000:0000:0000:0000:0002 0035 fd00:0000:0000:0000:0000:0000:0000:0011 0035 UDP             300
IP  0A00010A 0000 00000101 0000 0A00010B 0000 NONE            290
";

    #[test]
    fn what_the_kernel_prints_is_read() {
        let [tcp, udp, template] = &parse(LISTING).unwrap()[..] else { panic!("three lines") };
        assert_eq!(
            *tcp,
            Connection {
                protocol: Protocol::TCP,
                client: ([10, 0, 1, 10], 54321).into(),
                virtual_address: ([10, 0, 1, 2], 80).into(),
                destination: ([10, 0, 1, 11], 8080).into(),
                state: "ESTABLISHED".into(),
                expires: Duration::from_secs(899),
            }
        );
        assert_eq!(udp.virtual_address, "[fd00::2]:53".parse().unwrap());
        assert_eq!(
            (template.protocol, template.virtual_address.ip()),
            (Protocol::IP, [0, 0, 1, 1].into())
        );
    }

    #[test]
    fn a_line_without_sense_is_an_error() {
        let error = parse("Pro\nTCP 0A00010A\n").unwrap_err().to_string();
        assert!(error.starts_with("cannot list all connections: the kernel's answer"), "{error}");
    }

    proptest! {
        #[test]
        fn anything_is_read_without_panic(text in ".{0,200}", words in prop::collection::vec("[0-9A-F]{0,9}", 9)) {
            let _ = parse(&text);
            let _ = parse(&format!("\n{}", words.join(" ")));
        }
    }
}
