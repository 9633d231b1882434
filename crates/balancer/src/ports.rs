//! The ports of a VIP: which of them are balanced, and to which port of the backends.

use std::{collections::HashSet, fmt};

/// A protocol that has ports, and that every engine balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The protocol of an IP protocol number; none if it is another one.
    pub(crate) fn of(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// As nft and users write it: `tcp`, `udp`.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// The ports on which a VIP answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// TCP and UDP on every port, which is the backends' port too.
    All,
    /// These, in any order; the others are refused at once, as all are of a service without backends.
    Only(Vec<PortMap>),
}

/// A port of a VIP, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMap {
    /// The protocol.
    pub protocol: Protocol,
    /// The port that clients call, not 0; with its protocol unique in the service.
    pub port: u16,
    /// The backends' port, not 0.
    pub target: u16,
}

impl Ports {
    /// What contradicts what, if anything does.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let Self::Only(maps) = self else { return None };
        let mut ports = HashSet::new();
        maps.iter().find_map(|map| {
            let PortMap { protocol, port, target } = *map;
            if port == 0 || target == 0 {
                return Some(format!("leads port {port}/{protocol} to port {target}: 0 is none"));
            }
            let twice = !ports.insert((protocol, port));
            twice.then(|| format!("lists port {port}/{protocol} twice"))
        })
    }
}

/// Some ports for unit tests, each with where it leads.
#[cfg(test)]
pub(crate) fn only(maps: &[(Protocol, u16, u16)]) -> Ports {
    let map = |&(protocol, port, target): &(Protocol, u16, u16)| PortMap { protocol, port, target };
    Ports::Only(maps.iter().map(map).collect())
}
