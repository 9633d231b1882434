//! Of which family an address is. What is kept and sent may be of either; networks are of IPv4 until IPv6 is served.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::Invalid;

/// The prefix, if networks can have one of its family; else why not, `what` (a `subnet`, say) it is for.
pub fn ipv4_net(what: &str, net: IpNet) -> Result<Ipv4Net, Invalid> {
    match net {
        IpNet::V4(net) => Ok(net),
        IpNet::V6(net) => Err(not_served(what, net)),
    }
}

/// As [`ipv4_net`], of one address.
pub fn ipv4_addr(what: &str, addr: IpAddr) -> Result<Ipv4Addr, Invalid> {
    match addr {
        IpAddr::V4(addr) => Ok(addr),
        IpAddr::V6(addr) => Err(not_served(what, addr)),
    }
}

fn not_served(what: &str, value: impl Display) -> Invalid {
    Invalid(format!("{what} {value} is IPv6, which is not served yet"))
}
