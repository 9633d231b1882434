//! Addresses come in of either family. What is programmed is IPv4; IPv6 is refused here until it is served.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// The address, or why `what` (a `gateway`, say) cannot have it.
pub(crate) fn ipv4_addr(what: &str, addr: IpAddr) -> Result<Ipv4Addr, String> {
    match addr {
        IpAddr::V4(addr) => Ok(addr),
        IpAddr::V6(addr) => Err(not_served(what, addr)),
    }
}

/// As [`ipv4_addr`], of a prefix.
pub(crate) fn ipv4_net(what: &str, net: IpNet) -> Result<Ipv4Net, String> {
    match net {
        IpNet::V4(net) => Ok(net),
        IpNet::V6(net) => Err(not_served(what, net)),
    }
}

fn not_served(what: &str, value: impl Display) -> String {
    format!("{what} {value} is IPv6, which is not served yet")
}
