//! What of an underlay's MTU is left to the tasks of an overlay network.
//!
//! On the wire (RFC 7348, RFC 4303 section 2, RFC 4106), with what only encrypted networks have in braces:
//!
//! `IP | { SPI, sequence number 8 | IV 8 | } UDP 8 | VXLAN 8 | Ethernet 14 | packet { | padding 0-3 | pad length, next header 2 | ICV 16 }`

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

/// The largest IP packet of a task that fits into one packet of an underlay of `underlay` bytes, whose addresses are IPv6's
/// or IPv4's; none if nothing does.
pub fn overlay_mtu(underlay: u32, v6: bool, encrypted: bool) -> Option<u32> {
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
        let of = |v6, encrypted| {
            [1500, 1501, 1503, 1504, 9000].map(|mtu| overlay_mtu(mtu, v6, encrypted).unwrap())
        };
        assert_eq!(of(false, false), [1450, 1451, 1453, 1454, 8950]);
        assert_eq!(of(false, true), [1416, 1416, 1416, 1420, 8916]);
        assert_eq!(of(true, false)[0], 1430);
        assert_eq!((of(true, true)[0], of(true, true)[4]), (1396, 8896));
        assert_eq!((overlay_mtu(40, false, false), overlay_mtu(80, false, true)), (None, None));
    }

    /// The length of the packet on the wire for an inner one, built up from the inside as the kernel does (`esp_output`).
    fn on_the_wire(inner: u32, v6: bool, encrypted: bool) -> u32 {
        let udp = inner + 14 + 8 + 8;
        let esp = (udp + 2).next_multiple_of(4) + 8 + 8 + 16;
        (if encrypted { esp } else { udp }) + if v6 { 40 } else { 20 }
    }

    proptest! {
        #[test]
        fn the_largest_packet_fits_and_one_byte_more_does_not(
            underlay in 200u32..65536, v6: bool, encrypted: bool,
        ) {
            let fits = overlay_mtu(underlay, v6, encrypted).unwrap();
            prop_assert!(on_the_wire(fits, v6, encrypted) <= underlay);
            prop_assert!(on_the_wire(fits + 1, v6, encrypted) > underlay);
        }
    }
}
