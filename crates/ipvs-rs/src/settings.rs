//! What concerns a network namespace's IPVS as a whole.

use std::fmt;

use crate::{
    attribute::{Attribute, Malformed, need},
    uapi::{info, top},
};

/// How long idle connections are remembered, in seconds. When setting, 0 leaves a value as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connections; 900 unless set.
    pub tcp: u32,
    /// TCP connections after a FIN; 120 unless set.
    pub tcp_fin: u32,
    /// UDP; 300 unless set.
    pub udp: u32,
}

impl Timeouts {
    pub(crate) fn attributes(self) -> Vec<Attribute> {
        vec![
            Attribute::u32(top::TIMEOUT_TCP, self.tcp),
            Attribute::u32(top::TIMEOUT_TCP_FIN, self.tcp_fin),
            Attribute::u32(top::TIMEOUT_UDP, self.udp),
        ]
    }

    pub(crate) fn decode(attributes: &[Attribute]) -> Result<Self, Malformed> {
        Ok(Self {
            tcp: need(attributes, top::TIMEOUT_TCP, "TCP timeout")?.as_u32()?,
            tcp_fin: need(attributes, top::TIMEOUT_TCP_FIN, "TCP FIN timeout")?.as_u32()?,
            udp: need(attributes, top::TIMEOUT_UDP, "UDP timeout")?.as_u32()?,
        })
    }
}

/// The kernel's IPVS. Displayed as `ipvsadm` does: `1.2.1 (size=4096)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Its version, a byte each for major, minor and patch.
    pub version: u32,
    /// Buckets of its connection table.
    pub connection_table_size: u32,
}

impl Info {
    pub(crate) fn decode(attributes: &[Attribute]) -> Result<Self, Malformed> {
        Ok(Self {
            version: need(attributes, info::VERSION, "version")?.as_u32()?,
            connection_table_size: need(attributes, info::CONN_TAB_SIZE, "table size")?.as_u32()?,
        })
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, major, minor, patch] = self.version.to_be_bytes();
        write!(f, "{major}.{minor}.{patch} (size={})", self.connection_table_size)
    }
}
