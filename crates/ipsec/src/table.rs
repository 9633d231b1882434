//! Policies and security associations as values: what the kernel holds of ours, and what it can be told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::desired::Key;

/// Of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    In,
    Out,
}

/// Packets: UDP to a port, from an address or any to an address or any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Selector {
    pub(crate) v6: bool,
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: Option<IpAddr>,
    pub(crate) port: u16,
}

impl Selector {
    pub(crate) fn any(v6: bool, port: u16) -> Self {
        Self { v6, source: None, destination: None, port }
    }

    pub(crate) fn between(source: IpAddr, destination: IpAddr, port: u16) -> Self {
        let v6 = source.is_ipv6();
        Self { v6, source: Some(source), destination: Some(destination), port }
    }

    /// The other end, for packets in a direction.
    pub(crate) fn remote(&self, direction: Direction) -> Option<IpAddr> {
        match direction {
            Direction::In => self.source,
            Direction::Out => self.destination,
        }
    }
}

/// What becomes of the packets that a selector matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Deny,
    /// ESP in transport mode, by any association with the number, or by one only.
    Protect {
        reqid: u32,
        spi: Option<u32>,
    },
}

/// What identifies a policy.
pub(crate) type PolicyId = (Direction, Selector);

/// What identifies an ESP association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SaId {
    pub(crate) destination: IpAddr,
    pub(crate) spi: u32,
}

/// An association to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewSa {
    pub(crate) id: SaId,
    pub(crate) source: IpAddr,
    pub(crate) reqid: u32,
    pub(crate) port: u16,
    pub(crate) key: Key,
}

/// How an association that exists protects packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Protection {
    /// As ours do, with this key.
    Key(Key),
    /// As ours do, with a key that the kernel does not tell (lockdown in confidentiality mode).
    Secret,
    /// In another way.
    Strange,
}

/// An association of ours that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Association {
    pub(crate) source: IpAddr,
    pub(crate) reqid: u32,
    pub(crate) port: u16,
    pub(crate) protection: Protection,
    /// Seconds since the epoch.
    pub(crate) added: u64,
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

impl Association {
    /// Whether it is the one that `wanted` would make.
    pub(crate) fn is(&self, wanted: &NewSa) -> bool {
        let key = match &self.protection {
            Protection::Key(key) => *key == wanted.key,
            Protection::Secret => true,
            Protection::Strange => false,
        };
        key && (self.source, self.reqid, self.port) == (wanted.source, wanted.reqid, wanted.port)
    }
}

/// What the kernel holds of ours.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// Without a rule: somebody changed the policy into something that is none of ours.
    pub(crate) policies: BTreeMap<PolicyId, Option<Rule>>,
    pub(crate) associations: BTreeMap<SaId, Association>,
    /// Associations without a key that the kernel made for a packet which found none; they take their id from ours.
    pub(crate) larval: BTreeSet<SaId>,
}
