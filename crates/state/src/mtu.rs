//! What of an underlay's MTU is left to the tasks of an overlay network.

use swarm_model::{Node, NodeDescription};

/// Ethernet's MTU, assumed while no node has said better.
const ETHERNET_MTU: u32 = 1500;
/// What VXLAN puts before a task's IP packet: outer UDP 8, VXLAN 8, inner Ethernet 14 bytes (RFC 7348).
const VXLAN: u32 = 8 + 8 + 14;
/// ESP's header: SPI and sequence number (RFC 4303).
const ESP_HEADER: u32 = 8;
/// The initialization vector that each packet carries, and its integrity check value (RFC 4106).
const ESP_IV: u32 = 8;
const ESP_ICV: u32 = 16;
/// The length of the padding, and the next header (RFC 4303).
const ESP_TRAILER: u32 = 2;
/// What ESP encrypts is padded to a multiple of this.
const ESP_ALIGNMENT: u32 = 4;

/// The MTUs of networks without and with encryption, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverlayMtu {
    pub(crate) plain: u32,
    pub(crate) encrypted: u32,
}

impl Default for OverlayMtu {
    fn default() -> OverlayMtu {
        let fits = |encrypted| inner(ETHERNET_MTU, false, encrypted).unwrap_or_default();
        OverlayMtu { plain: fits(false), encrypted: fits(true) }
    }
}

/// What fits between all these nodes. A node whose underlay is too small for any overlay says nothing.
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
    inner(node.underlay_mtu, v6, encrypted)
}

/// The largest IP packet of a task that fits into one packet of the underlay.
fn inner(underlay: u32, v6: bool, encrypted: bool) -> Option<u32> {
    let ip = if v6 { 40 } else { 20 };
    let payload = underlay.checked_sub(ip)?;
    if !encrypted {
        return payload.checked_sub(VXLAN);
    }
    let ciphertext = payload.checked_sub(ESP_HEADER + ESP_IV + ESP_ICV)?;
    let aligned = ciphertext - ciphertext % ESP_ALIGNMENT;
    aligned.checked_sub(ESP_TRAILER + VXLAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn well_known_underlays() {
        assert_eq!(OverlayMtu::default(), OverlayMtu { plain: 1450, encrypted: 1416 });
        assert_eq!((inner(1500, true, false), inner(1500, true, true)), (Some(1430), Some(1396)));
        assert_eq!((inner(9000, false, false), inner(9000, false, true)), (Some(8950), Some(8916)));
        assert_eq!((inner(40, false, false), inner(80, false, true)), (None, None));
    }

    /// The length of the packet on the wire for an inner one, built up from the inside as the kernel does.
    fn on_the_wire(inner: u32, v6: bool) -> u32 {
        let udp = inner + 14 + 8 + 8;
        let padded = (udp + 2).next_multiple_of(4);
        padded + 8 + 8 + 16 + if v6 { 40 } else { 20 }
    }

    proptest! {
        #[test]
        fn the_largest_packet_fits_and_one_byte_more_does_not(
            underlay in 200u32..65536, v6: bool,
        ) {
            let fits = inner(underlay, v6, true).unwrap();
            prop_assert!(on_the_wire(fits, v6) <= underlay);
            prop_assert!(on_the_wire(fits + 1, v6) > underlay);
        }
    }
}
