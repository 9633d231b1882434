//! Which address a node is known by: what the user gave, an interface's, or the only one it has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use anyhow::{Context, Result, anyhow, bail};
use swarm_overlay::InterfaceAddress;

/// The port of all gRPC between nodes, Docker's.
pub(crate) const SWARM_PORT: u16 = 2377;
/// The bridge that tasks reach the outside through: never an address to be known by.
const EGRESS_BRIDGE: &str = "swarm_gwbridge";

/// Where a node listens and what it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Where other nodes reach it.
    pub(crate) advertise: SocketAddr,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// The source of its VXLAN packets.
    pub(crate) data_path: IpAddr,
    /// The interface that has [`Addresses::data_path`].
    pub(crate) interface: String,
}

/// What the user gave; empty for nothing.
pub(crate) struct Given<'a> {
    pub(crate) advertise: &'a str,
    pub(crate) listen: &'a str,
    pub(crate) data_path: &'a str,
}

impl Addresses {
    /// Chooses. `default` is the address used if `--advertise-addr` was not given; none means "the only
    /// one".
    pub(crate) async fn choose(given: Given<'_>, default: Option<IpAddr>) -> Result<Addresses> {
        let own =
            swarm_overlay::addresses(None).await.context("cannot list this host's addresses")?;
        let listen = match given.listen {
            "" => None,
            text => Some(with_port(text, &own, SWARM_PORT).context("invalid --listen-addr")?),
        };
        let port = listen.map_or(SWARM_PORT, |listen| listen.port());
        let advertise = match (given.advertise, default) {
            ("", Some(addr)) => SocketAddr::new(addr, port),
            ("", None) => SocketAddr::new(only_address(&own)?, port),
            (text, _) => with_port(text, &own, port).context("invalid --advertise-addr")?,
        };
        let listen = listen.unwrap_or(SocketAddr::new(any(advertise.ip()), SWARM_PORT));
        if advertise.ip().is_unspecified() {
            bail!(
                "invalid --advertise-addr: {} is no address that others can reach",
                advertise.ip()
            );
        }
        let data_path = match given.data_path {
            "" => advertise.ip(),
            text => one_address(text, &own).context("invalid --data-path-addr")?,
        };
        let Some(holder) = own.into_iter().find(|addr| addr.address == data_path) else {
            bail!("{data_path} is not an address of this host: give one with --data-path-addr");
        };
        Ok(Addresses { advertise, listen, data_path, interface: holder.interface })
    }
}

/// The local address that packets to `remote` are sent from.
pub(crate) fn local_towards(remote: &str) -> Result<IpAddr> {
    let mut last = None;
    let resolved = remote.to_socket_addrs().with_context(|| format!("cannot find {remote}"))?;
    for addr in resolved {
        // Connecting a UDP socket sends nothing: it only chooses a route.
        let route = || {
            let socket = UdpSocket::bind((any(addr.ip()), 0))?;
            socket.connect(addr)?;
            socket.local_addr()
        };
        match route() {
            Ok(own) => return Ok(own.ip()),
            Err(e) => last = Some(e),
        }
    }
    Err(last.map_or_else(|| anyhow!("it has no address"), anyhow::Error::from))
        .with_context(|| format!("there is no route to {remote}"))
}

/// All addresses of the same family.
fn any(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn with_port(text: &str, own: &[InterfaceAddress], default_port: u16) -> Result<SocketAddr> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return if addr.port() == 0 { bail!("port 0 is none") } else { Ok(addr) };
    }
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if text.parse::<IpAddr>().is_err()
        && let Some((name, port)) = text.rsplit_once(':')
        && let Ok(port) = port.parse::<u16>()
    {
        return Ok(SocketAddr::new(one_address(name, own)?, port));
    }
    Ok(SocketAddr::new(one_address(text, own)?, default_port))
}

/// An IP address, or the only one of an interface.
fn one_address(text: &str, own: &[InterfaceAddress]) -> Result<IpAddr> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(addr);
    }
    let of_interface: Vec<IpAddr> = own
        .iter()
        .filter(|addr| addr.interface == text && addr.address.is_ipv4())
        .map(|addr| addr.address)
        .collect();
    match of_interface.as_slice() {
        [one] => Ok(*one),
        [] => bail!("{text:?} is neither an IP address nor an interface with one"),
        _ => bail!("interface {text} has several addresses: give one of them"),
    }
}

fn only_address(own: &[InterfaceAddress]) -> Result<IpAddr> {
    let usable: Vec<&InterfaceAddress> = own
        .iter()
        .filter(|addr| addr.address.is_ipv4() && !addr.address.is_loopback())
        .filter(|addr| addr.interface != EGRESS_BRIDGE)
        .collect();
    match usable.as_slice() {
        [one] => Ok(one.address),
        [] => bail!("this host has no address to be known by: give one with --advertise-addr"),
        several => {
            let list: Vec<String> =
                several.iter().map(|a| format!("{} on {}", a.address, a.interface)).collect();
            bail!(
                "cannot choose an address to advertise, since this host has several ({}): give one with --advertise-addr",
                list.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vec<InterfaceAddress> {
        let addr = |interface: &str, address: &str| InterfaceAddress {
            interface: interface.into(),
            address: address.parse().unwrap(),
            prefix_len: 24,
        };
        vec![addr("lo", "127.0.0.1"), addr("eth0", "192.0.2.7"), addr("eth0", "fe80::1")]
    }

    #[test]
    fn addresses_and_interfaces_are_understood() {
        let parse = |text| with_port(text, &own(), 2377).map(|addr| addr.to_string()).ok();
        assert_eq!(parse("192.0.2.9"), Some("192.0.2.9:2377".into()));
        assert_eq!(parse("192.0.2.9:99"), Some("192.0.2.9:99".into()));
        assert_eq!(parse("eth0"), Some("192.0.2.7:2377".into()));
        assert_eq!(parse("eth0:99"), Some("192.0.2.7:99".into()));
        assert_eq!(parse("2001:db8::1"), Some("[2001:db8::1]:2377".into()));
        assert_eq!(parse("[2001:db8::1]"), Some("[2001:db8::1]:2377".into()));
        assert_eq!(parse("[2001:db8::1]:99"), Some("[2001:db8::1]:99".into()));
        assert_eq!(parse("192.0.2.9:0"), None);
        assert_eq!(parse("eth1"), None);
    }

    #[test]
    fn the_way_to_a_manager_has_its_family() {
        assert_eq!(local_towards("127.0.0.1:2377").unwrap().to_string(), "127.0.0.1");
        assert!(local_towards("no.such.host.invalid:2377").is_err());
        // Where there is IPv6 at all.
        if let Ok(addr) = local_towards("[::1]:2377") {
            assert_eq!(addr.to_string(), "::1");
        }
        assert_eq!(any("::1".parse().unwrap()).to_string(), "::");
    }

    #[test]
    fn several_addresses_are_not_guessed_among() {
        assert_eq!(only_address(&own()).unwrap().to_string(), "192.0.2.7");
        let mut two = own();
        two.push(InterfaceAddress {
            interface: "eth1".into(),
            address: "198.51.100.7".parse().unwrap(),
            prefix_len: 24,
        });
        let error = only_address(&two).unwrap_err().to_string();
        assert!(error.contains("192.0.2.7 on eth0, 198.51.100.7 on eth1"), "{error}");
    }
}
