//! A destination of a virtual service: a real server, its weight and how packets reach it.

use std::{fmt, net::SocketAddr};

use crate::{
    Family, Stats,
    attribute::{Attribute, Malformed, need, optional, unknown},
    uapi::{dest, forward, tunnel},
};

/// How packets reach a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forwarding {
    /// The destination address and port are rewritten, and answers the other way round (NAT).
    Masquerade,
    /// The packet goes unchanged to the destination's link address, which must own the virtual address.
    Direct,
    /// The packet is put into another.
    Tunnel(Encapsulation),
    /// What else the kernel says: `IP_VS_CONN_F_LOCALNODE` (1), `IP_VS_CONN_F_BYPASS` (4).
    Other(u32),
}

/// What a tunnelled packet is put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encapsulation {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// The destination's UDP port.
        port: u16,
        /// `IP_VS_TUNNEL_ENCAP_FLAG_*`: 1 for checksums, 2 for remote checksum offload.
        flags: u16,
    },
    /// GRE.
    Gre {
        /// As for GUE.
        flags: u16,
    },
    /// A type of newer kernels.
    Other {
        /// `IP_VS_CONN_F_TUNNEL_TYPE_*`.
        kind: u8,
        /// The port, if it has one.
        port: u16,
        /// As for GUE.
        flags: u16,
    },
}

impl Forwarding {
    fn number(self) -> u32 {
        match self {
            Self::Masquerade => forward::MASQ,
            Self::Direct => forward::DROUTE,
            Self::Tunnel(_) => forward::TUNNEL,
            Self::Other(number) => number,
        }
    }

    /// Tunnel type, port and flags; zero where they mean nothing, as `ipvsadm` sends them.
    fn encapsulation(self) -> (u8, u16, u16) {
        match self {
            Self::Tunnel(Encapsulation::Gue { port, flags }) => (tunnel::GUE, port, flags),
            Self::Tunnel(Encapsulation::Gre { flags }) => (tunnel::GRE, 0, flags),
            Self::Tunnel(Encapsulation::Other { kind, port, flags }) => (kind, port, flags),
            _ => (tunnel::IPIP, 0, 0),
        }
    }

    fn decode(attributes: &[Attribute]) -> Result<Self, Malformed> {
        let port = optional(attributes, dest::TUN_PORT, Attribute::as_be16, 0)?;
        let flags = optional(attributes, dest::TUN_FLAGS, Attribute::as_u16, 0)?;
        Ok(match need(attributes, dest::FWD_METHOD, "forwarding method")?.as_u32()? {
            forward::MASQ => Self::Masquerade,
            forward::DROUTE => Self::Direct,
            forward::TUNNEL => Self::Tunnel(
                match optional(attributes, dest::TUN_TYPE, Attribute::as_u8, tunnel::IPIP)? {
                    tunnel::IPIP => Encapsulation::Ipip,
                    tunnel::GUE => Encapsulation::Gue { port, flags },
                    tunnel::GRE => Encapsulation::Gre { flags },
                    kind => Encapsulation::Other { kind, port, flags },
                },
            ),
            other => Self::Other(other),
        })
    }
}

/// As `ipvsadm` calls it: `Masq`, `Route`, `Tunnel`.
impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Masquerade => "Masq",
            Self::Direct => "Route",
            Self::Tunnel(_) => "Tunnel",
            Self::Other(1) => "Local",
            Self::Other(_) => "other",
        })
    }
}

/// A destination as it should be; its address identifies it within its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Where it is. Port 0, for services by firewall mark: the port the client asked for.
    /// Flow label and scope of IPv6 addresses are ignored.
    pub address: SocketAddr,
    /// How packets reach it. Only a tunnel leads to the other address family.
    pub forwarding: Forwarding,
    /// Its share of new connections, up to `i32::MAX`; 0 gives it none while it keeps those it has.
    pub weight: u32,
    /// With so many connections it gets no more until they fall below the lower threshold; 0 for no limit.
    pub upper_threshold: u32,
    /// See the upper threshold; 0 for three quarters of that.
    pub lower_threshold: u32,
}

impl Destination {
    /// A destination of weight 1 without thresholds.
    pub fn new(address: impl Into<SocketAddr>, forwarding: Forwarding) -> Self {
        Self {
            address: address.into(),
            forwarding,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }

    /// Sets the weight.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the thresholds.
    #[must_use]
    pub fn thresholds(mut self, upper: u32, lower: u32) -> Self {
        (self.upper_threshold, self.lower_threshold) = (upper, lower);
        self
    }

    /// What identifies a destination.
    pub(crate) fn key_attributes(address: SocketAddr) -> Vec<Attribute> {
        vec![
            Attribute::u16(dest::ADDR_FAMILY, Family::of(&address).number()),
            Attribute::address(dest::ADDR, address.ip()),
            Attribute::be16(dest::PORT, address.port()),
        ]
    }

    pub(crate) fn attributes(&self) -> Vec<Attribute> {
        let mut attributes = Self::key_attributes(self.address);
        let (kind, port, flags) = self.forwarding.encapsulation();
        attributes.extend([
            Attribute::u32(dest::FWD_METHOD, self.forwarding.number()),
            Attribute::u32(dest::WEIGHT, self.weight),
            Attribute::u8(dest::TUN_TYPE, kind),
            Attribute::be16(dest::TUN_PORT, port),
            Attribute::u16(dest::TUN_FLAGS, flags),
            Attribute::u32(dest::U_THRESH, self.upper_threshold),
            Attribute::u32(dest::L_THRESH, self.lower_threshold),
        ]);
        attributes
    }

    /// `family` is the service's: kernels before 3.18 do not say the destination's.
    pub(crate) fn decode(attributes: &[Attribute], family: Family) -> Result<Self, Malformed> {
        let read_family = |found: &Attribute| Family::from_number(found.as_u16()?);
        let family = optional(attributes, dest::ADDR_FAMILY, read_family, family)?;
        let ip = need(attributes, dest::ADDR, "address")?.as_address(family)?;
        let port = need(attributes, dest::PORT, "port")?.as_be16()?;
        Ok(Self {
            address: SocketAddr::new(ip, port),
            forwarding: Forwarding::decode(attributes)?,
            weight: need(attributes, dest::WEIGHT, "weight")?.as_u32()?,
            upper_threshold: optional(attributes, dest::U_THRESH, Attribute::as_u32, 0)?,
            lower_threshold: optional(attributes, dest::L_THRESH, Attribute::as_u32, 0)?,
        })
    }
}

/// A destination as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationEntry {
    /// The destination.
    pub destination: Destination,
    /// Connections established (TCP).
    pub active_connections: u32,
    /// Connections in any other state, UDP's too.
    pub inactive_connections: u32,
    /// Clients that persistence holds here.
    pub persistent_connections: u32,
    /// What went through it.
    pub stats: Stats,
    /// Attributes of newer kernels, as they came.
    pub unknown: Vec<Attribute>,
}

impl DestinationEntry {
    pub(crate) fn decode(attributes: Vec<Attribute>, family: Family) -> Result<Self, Malformed> {
        let count = |number| optional(&attributes, number, Attribute::as_u32, 0);
        Ok(Self {
            destination: Destination::decode(&attributes, family)?,
            active_connections: count(dest::ACTIVE_CONNS)?,
            inactive_connections: count(dest::INACT_CONNS)?,
            persistent_connections: count(dest::PERSIST_CONNS)?,
            stats: Stats::decode(&attributes, dest::STATS64, dest::STATS)?,
            unknown: unknown(attributes, dest::ADDR..=dest::TUN_FLAGS),
        })
    }
}
