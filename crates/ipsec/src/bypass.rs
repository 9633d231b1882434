//! Kernel parameters that let packets go round IPsec on the interface of the data path.
//!
//! `disable_xfrm` sends in clear whatever policies say, `disable_policy` accepts what they forbid. Both are per interface;
//! people set them on tunnels of other software.

use std::{fs, net::IpAddr};

use nix::ifaddrs::getifaddrs;

use crate::Error;

/// Refuses to go on if such a parameter is set in the calling thread's network namespace.
pub(crate) fn refuse(local: IpAddr) -> Result<(), Error> {
    let family = if local.is_ipv4() { "ipv4" } else { "ipv6" };
    for interface in interface(local)?.into_iter().chain(["all".to_owned()]) {
        for name in ["disable_xfrm", "disable_policy"] {
            // What a kernel has no such parameter for, it does not do.
            let value =
                fs::read_to_string(format!("/proc/sys/net/{family}/conf/{interface}/{name}"));
            if value.is_ok_and(|value| value.trim() != "0") {
                let sysctl = format!("net.{family}.conf.{interface}.{name}");
                return Err(Error::Bypassed { sysctl });
            }
        }
    }
    Ok(())
}

/// The interface that has the address; none while it is not configured.
fn interface(local: IpAddr) -> Result<Option<String>, Error> {
    let addresses = getifaddrs().map_err(|e| Error::netlink("list addresses", e.into()))?;
    let has = |address: &nix::sys::socket::SockaddrStorage| match local {
        IpAddr::V4(v4) => address.as_sockaddr_in().is_some_and(|found| found.ip() == v4),
        IpAddr::V6(v6) => address.as_sockaddr_in6().is_some_and(|found| found.ip() == v6),
    };
    let mut found = addresses.filter(|interface| interface.address.as_ref().is_some_and(has));
    Ok(found.next().map(|interface| interface.interface_name))
}
