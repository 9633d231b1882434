//! The room that encrypted VXLAN leaves for a packet.
//!
//! On the wire (RFC 7348, RFC 4303 section 2, RFC 4106), with the part that is encrypted in brackets:
//!
//! `IP | SPI, sequence number 8 | IV 8 | [ UDP 8 | VXLAN 8 | Ethernet 14 | packet | padding 0-3 | pad length, next header 2 ] | ICV 16`
//!
//! What is encrypted is padded to a multiple of four.

use std::net::IpAddr;

/// SPI and sequence number, IV, ICV.
const ESP: u32 = 8 + 8 + 16;
/// UDP, VXLAN, the inner frame's header.
const VXLAN: u32 = 8 + 8 + 14;
/// Pad length and next header.
const TRAILER: u32 = 2;
/// RFC 4303, section 2.4.
const ALIGNMENT: u32 = 4;

/// The largest packet (MTU) of an encrypted network whose underlay takes packets of `underlay` bytes and has addresses of
/// the family of `endpoint`:
/// `floor4(underlay - outer IP header - 32) - 32`, the header being 20 bytes (IPv6: 40). 1500 gives 1416 (IPv6: 1396).
/// 0 if nothing fits.
#[must_use]
pub fn inner_mtu(underlay: u32, endpoint: IpAddr) -> u32 {
    let header = if endpoint.is_ipv4() { 20 } else { 40 };
    let encrypted = underlay.saturating_sub(header + ESP);
    (encrypted - encrypted % ALIGNMENT).saturating_sub(VXLAN + TRAILER)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Built up from the inside, as the kernel does it (`esp_output`).
    fn on_the_wire(packet: u32, header: u32) -> u32 {
        let plain = 14 + packet + 8 + 8;
        let padding = (4 - (plain + 2) % 4) % 4;
        header + 8 + 8 + plain + padding + 2 + 16
    }

    #[test]
    fn usual_links() {
        let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        assert_eq!(
            [1500, 1501, 1503, 1504, 9000].map(|mtu| inner_mtu(mtu, v4)),
            [1416, 1416, 1416, 1420, 8916]
        );
        assert_eq!([1500, 9000].map(|mtu| inner_mtu(mtu, v6)), [1396, 8896]);
        assert_eq!(inner_mtu(70, v4), 0);
    }

    proptest! {
        #[test]
        fn the_largest_packet_fits_and_one_byte_more_does_not(underlay in 200u32..70_000, v6: bool) {
            let endpoint = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            let header = if v6 { 40 } else { 20 };
            let packet = inner_mtu(underlay, endpoint);
            prop_assert!(on_the_wire(packet, header) <= underlay);
            prop_assert!(on_the_wire(packet + 1, header) > underlay);
            prop_assert!(underlay - on_the_wire(packet, header) < 4);
        }
    }
}
