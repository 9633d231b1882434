//! Which virtual service: by protocol, address and port, or by firewall mark.

use std::{fmt, net::SocketAddr, num::NonZeroU32};

use crate::{
    attribute::{Attribute, Malformed, find, need},
    uapi::svc,
};

/// An address family, `AF_INET` or `AF_INET6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: &SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(crate) fn number(self) -> u16 {
        // AF_INET and AF_INET6.
        if self == Self::V4 { 2 } else { 10 }
    }

    pub(crate) fn from_number(number: u16) -> Result<Self, Malformed> {
        match number {
            2 => Ok(Self::V4),
            10 => Ok(Self::V6),
            other => Err(Malformed(format!("address family {other} is neither IPv4 nor IPv6"))),
        }
    }
}

/// An IP protocol number, as IANA assigns them. Kernels balance TCP, UDP and SCTP (and AH, ESP for marks).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u16);

impl Protocol {
    /// Any, 0: what a connection of a firewall mark has.
    pub const IP: Self = Self(0);
    /// TCP, 6.
    pub const TCP: Self = Self(6);
    /// UDP, 17.
    pub const UDP: Self = Self(17);
    /// SCTP, 132.
    pub const SCTP: Self = Self(132);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TCP => f.write_str("TCP"),
            Self::UDP => f.write_str("UDP"),
            Self::SCTP => f.write_str("SCTP"),
            Self(number) => write!(f, "protocol {number}"),
        }
    }
}

/// What identifies a virtual service in a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKey {
    /// What comes for an address and port. Port 0 is any port, which the kernel allows to persistent services only.
    /// Flow label and scope of IPv6 addresses are ignored.
    Address {
        /// The protocol.
        protocol: Protocol,
        /// The virtual address and port.
        address: SocketAddr,
    },
    /// What the firewall marked (`meta mark set`), whatever its protocol, address and port.
    Mark {
        /// Packets of this family only.
        family: Family,
        /// The mark; the kernel takes 0 for none.
        mark: NonZeroU32,
    },
}

impl ServiceKey {
    /// A TCP service.
    pub fn tcp(address: impl Into<SocketAddr>) -> Self {
        Self::Address { protocol: Protocol::TCP, address: address.into() }
    }

    /// A UDP service.
    pub fn udp(address: impl Into<SocketAddr>) -> Self {
        Self::Address { protocol: Protocol::UDP, address: address.into() }
    }

    /// A service by firewall mark.
    #[must_use]
    pub fn mark(family: Family, mark: NonZeroU32) -> Self {
        Self::Mark { family, mark }
    }

    /// The address family.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(address),
            Self::Mark { family, .. } => *family,
        }
    }

    pub(crate) fn attributes(&self) -> Vec<Attribute> {
        let mut attributes = vec![Attribute::u16(svc::AF, self.family().number())];
        match self {
            Self::Address { protocol, address } => attributes.extend([
                Attribute::u16(svc::PROTOCOL, protocol.0),
                Attribute::address(svc::ADDR, address.ip()),
                Attribute::be16(svc::PORT, address.port()),
            ]),
            Self::Mark { mark, .. } => attributes.push(Attribute::u32(svc::FWMARK, mark.get())),
        }
        attributes
    }

    pub(crate) fn decode(attributes: &[Attribute]) -> Result<Self, Malformed> {
        let family = Family::from_number(need(attributes, svc::AF, "address family")?.as_u16()?)?;
        if let Some(mark) = find(attributes, svc::FWMARK) {
            let mark = NonZeroU32::new(mark.as_u32()?);
            let mark = mark.ok_or_else(|| Malformed("a service by firewall mark 0".into()))?;
            return Ok(Self::Mark { family, mark });
        }
        let protocol = Protocol(need(attributes, svc::PROTOCOL, "protocol")?.as_u16()?);
        let ip = need(attributes, svc::ADDR, "address")?.as_address(family)?;
        let port = need(attributes, svc::PORT, "port")?.as_be16()?;
        Ok(Self::Address { protocol, address: SocketAddr::new(ip, port) })
    }
}

/// As `ipvsadm` writes it: `TCP 10.0.1.2:80`, `FWM 257`, `FWM 257 IPv6`.
impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, address } => write!(f, "{protocol} {address}"),
            Self::Mark { family: Family::V4, mark } => write!(f, "FWM {mark}"),
            Self::Mark { family: Family::V6, mark } => write!(f, "FWM {mark} IPv6"),
        }
    }
}
