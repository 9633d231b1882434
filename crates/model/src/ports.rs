//! Ports of a virtual address: which of them are balanced, and to which port of the tasks.

use serde::{Deserialize, Serialize};

/// A protocol that has ports. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The ports that a virtual address answers on. Only additions are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ports {
    /// TCP and UDP on every port, which is the tasks' port too.
    #[default]
    All,
    /// These; the others are refused at once.
    Only(Vec<PortMap>),
}

impl Ports {
    /// Whether it is [`Ports::All`].
    pub fn are_all(&self) -> bool {
        *self == Ports::All
    }
}

/// A port of a virtual address, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMap {
    /// The protocol.
    pub protocol: Protocol,
    /// The port that clients call, not 0; with its protocol no other one's of the same address.
    pub port: u16,
    /// The tasks' port, not 0.
    pub target: u16,
}
