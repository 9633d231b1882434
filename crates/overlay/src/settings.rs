//! What VXLAN devices and bridge ports are made from, and compared with.

use std::net::IpAddr;

/// What a VXLAN device is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vxlan {
    pub(crate) vni: u32,
    pub(crate) local: IpAddr,
    pub(crate) port: u16,
    pub(crate) learning: bool,
    pub(crate) proxy: bool,
}

/// Settings of a bridge port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortSettings {
    /// Frames may leave by the port they came from: a task that is balanced to itself.
    pub(crate) hairpin: bool,
    /// No frames to other isolated ports.
    pub(crate) isolated: bool,
    /// Source addresses of frames become forwarding entries.
    pub(crate) learning: bool,
    /// Frames to unknown addresses leave here.
    pub(crate) unicast_flood: bool,
}

impl PortSettings {
    /// A task on an overlay network. Its MAC is a static entry, so nothing needs flooding to it and nothing is learned from it.
    pub(crate) const TASK: Self =
        Self { hairpin: true, isolated: false, learning: false, unicast_flood: false };
    /// The VXLAN device takes all frames to MACs that are not local, and drops what it has no entry for. Learning here would
    /// keep a task's MAC on this port after the task came to this node.
    pub(crate) const VXLAN: Self =
        Self { hairpin: false, isolated: false, learning: false, unicast_flood: true };
    /// A task on the egress bridge: it reaches the bridge itself and no other task.
    pub(crate) const EGRESS: Self =
        Self { hairpin: false, isolated: true, learning: false, unicast_flood: false };
}
