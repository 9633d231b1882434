//! The MTU that all nodes' underlays have room for.

use swarm_model::{Node, NodeDescription, overlay_mtu};

/// Ethernet's MTU, assumed while no node has said better.
const ETHERNET_MTU: u32 = 1500;
/// The MTUs of networks without and with encryption, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverlayMtu {
    pub(crate) plain: u32,
    pub(crate) encrypted: u32,
}

impl Default for OverlayMtu {
    fn default() -> OverlayMtu {
        let fits = |encrypted| overlay_mtu(ETHERNET_MTU, false, encrypted).unwrap_or_default();
        OverlayMtu { plain: fits(false), encrypted: fits(true) }
    }
}

/// What fits between all these nodes. A node whose underlay is unknown, or too small for any overlay says nothing.
pub(crate) fn between<'a, I: Iterator<Item = &'a Node>>(nodes: impl Fn() -> I) -> OverlayMtu {
    let smallest =
        |encrypted| nodes().filter_map(|node| of_node(&node.description, encrypted)).min();
    let assumed = OverlayMtu::default();
    OverlayMtu {
        plain: smallest(false).unwrap_or(assumed.plain),
        encrypted: smallest(true).unwrap_or(assumed.encrypted),
    }
}

fn of_node(node: &NodeDescription, encrypted: bool) -> Option<u32> {
    let v6 = node.data_path_addr.is_some_and(|addr| addr.is_ipv6());
    overlay_mtu(node.underlay_mtu?, v6, encrypted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_is_assumed() {
        assert_eq!(OverlayMtu::default(), OverlayMtu { plain: 1450, encrypted: 1416 });
    }
}
