//! Of which family an address is. What is kept and sent may be of either; networks are of IPv4 until IPv6 is served.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// An address or prefix of a family that networks cannot have yet, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotServed(String);

/// The prefix, if networks can have one of its family. `what` it is for (a `subnet`, say) is named in the refusal.
///
/// # Errors
/// [`NotServed`] for IPv6.
pub fn ipv4_net(what: &str, net: IpNet) -> Result<Ipv4Net, NotServed> {
    match net {
        IpNet::V4(net) => Ok(net),
        IpNet::V6(net) => Err(not_served(what, net)),
    }
}

/// As [`ipv4_net`], of one address.
///
/// # Errors
/// [`NotServed`] for IPv6.
pub fn ipv4_addr(what: &str, addr: IpAddr) -> Result<Ipv4Addr, NotServed> {
    match addr {
        IpAddr::V4(addr) => Ok(addr),
        IpAddr::V6(addr) => Err(not_served(what, addr)),
    }
}

fn not_served(what: &str, value: impl Display) -> NotServed {
    NotServed(format!("{what} {value} is IPv6, which is not served yet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_passes_and_ipv6_is_named() {
        let (four, six): (IpNet, IpNet) =
            ("10.9.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap());
        assert_eq!(ipv4_net("subnet", four).map(IpNet::V4), Ok(four));
        assert_eq!(ipv4_addr("gateway", four.addr()).map(IpAddr::V4), Ok(four.addr()));
        assert_eq!(
            ipv4_net("subnet", six).unwrap_err().to_string(),
            "subnet fd00::/64 is IPv6, which is not served yet"
        );
        assert_eq!(
            ipv4_addr("gateway", six.addr()).unwrap_err().to_string(),
            "gateway fd00:: is IPv6, which is not served yet"
        );
    }
}
