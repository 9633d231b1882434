//! Netlink attributes: type, length, value, padded to four bytes (`linux/netlink.h`, `struct nlattr`).

use std::net::IpAddr;

use netlink_packet_core::{Emitable, NLA_F_NESTED, NLA_TYPE_MASK, Nla, NlasIterator};

use crate::Family;

/// Why bytes are no IPVS message, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);

/// A netlink attribute as it is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    kind: u16,
    value: Vec<u8>,
}

impl Attribute {
    /// Its number, without the flags for nesting and byte order.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.kind & NLA_TYPE_MASK
    }

    /// Its value, without header and padding.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Takes a sequence of attributes apart, unknown ones too.
    ///
    /// # Errors
    /// If an attribute's length contradicts the bytes.
    pub(crate) fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        NlasIterator::new(bytes)
            .map(|found| {
                let buffer = found.map_err(|error| Malformed(error.to_string()))?;
                let nested = if buffer.nested_flag() { NLA_F_NESTED } else { 0 };
                let order = if buffer.network_byte_order_flag() { NLA_F_NET_BYTEORDER } else { 0 };
                Ok(Self { kind: buffer.kind() | nested | order, value: buffer.value().to_vec() })
            })
            .collect()
    }

    /// The attributes one after another, as bytes.
    pub(crate) fn emit_all(attributes: &[Self]) -> Vec<u8> {
        let mut bytes = vec![0; attributes.buffer_len()];
        attributes.emit(&mut bytes);
        bytes
    }

    pub(crate) fn bytes(kind: u16, value: &[u8]) -> Self {
        Self { kind, value: value.to_vec() }
    }

    pub(crate) fn u8(kind: u16, value: u8) -> Self {
        Self::bytes(kind, &[value])
    }

    pub(crate) fn u16(kind: u16, value: u16) -> Self {
        Self::bytes(kind, &value.to_ne_bytes())
    }

    pub(crate) fn be16(kind: u16, value: u16) -> Self {
        Self::bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn u32(kind: u16, value: u32) -> Self {
        Self::bytes(kind, &value.to_ne_bytes())
    }

    /// With the final NUL that `NLA_NUL_STRING` demands.
    pub(crate) fn string(kind: u16, value: &str) -> Self {
        Self::bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// `union nf_inet_addr`: 16 bytes, of which IPv4 uses the first four.
    pub(crate) fn address(kind: u16, address: IpAddr) -> Self {
        let mut value = [0; 16];
        match address {
            IpAddr::V4(v4) => value[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => value = v6.octets(),
        }
        Self::bytes(kind, &value)
    }

    pub(crate) fn nest(kind: u16, attributes: &[Self]) -> Self {
        Self { kind: kind | NLA_F_NESTED, value: Self::emit_all(attributes) }
    }

    pub(crate) fn as_u8(&self) -> Result<u8, Malformed> {
        self.array().map(u8::from_ne_bytes)
    }

    pub(crate) fn as_u16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(crate) fn as_be16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn as_u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    /// 32 or 64 bits: the older statistics use both.
    pub(crate) fn as_count(&self) -> Result<u64, Malformed> {
        if self.value.len() == 4 {
            self.as_u32().map(u64::from)
        } else {
            self.array().map(u64::from_ne_bytes)
        }
    }

    pub(crate) fn as_string(&self) -> Result<String, Malformed> {
        let text = self.value.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(text);
        text.map(str::to_owned).map_err(|_| self.wrong("is no text"))
    }

    /// An address of `family`; kernels send 16 bytes, for IPv4 perhaps four.
    pub(crate) fn as_address(&self, family: Family) -> Result<IpAddr, Malformed> {
        let length = if family == Family::V4 { 4 } else { 16 };
        let octets =
            self.value.get(..length).ok_or_else(|| self.wrong("is too short for an address"))?;
        Ok(match family {
            Family::V4 => <[u8; 4]>::try_from(octets).expect("four bytes").into(),
            Family::V6 => <[u8; 16]>::try_from(octets).expect("sixteen bytes").into(),
        })
    }

    pub(crate) fn as_nest(&self) -> Result<Vec<Self>, Malformed> {
        Self::parse_all(&self.value)
    }

    pub(crate) fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value.as_slice().try_into().map_err(|_| self.wrong(&format!("should have {N} bytes")))
    }

    fn wrong(&self, how: &str) -> Malformed {
        Malformed(format!("attribute {} of {} bytes {how}", self.number(), self.value.len()))
    }
}

/// `NLA_F_NET_BYTEORDER`.
const NLA_F_NET_BYTEORDER: u16 = 0x4000;

impl Nla for Attribute {
    fn value_len(&self) -> usize {
        self.value.len()
    }

    fn kind(&self) -> u16 {
        self.kind
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.value);
    }
}

/// The first attribute of a number.
pub(crate) fn find(attributes: &[Attribute], number: u16) -> Option<&Attribute> {
    attributes.iter().find(|attribute| attribute.number() == number)
}

/// The first attribute of a number, which must be there.
pub(crate) fn need<'a>(
    attributes: &'a [Attribute],
    number: u16,
    what: &str,
) -> Result<&'a Attribute, Malformed> {
    find(attributes, number).ok_or_else(|| Malformed(format!("no attribute {number} ({what})")))
}

/// What is known of an attribute that may be absent.
pub(crate) fn optional<T>(
    attributes: &[Attribute],
    number: u16,
    read: impl FnOnce(&Attribute) -> Result<T, Malformed>,
    absent: T,
) -> Result<T, Malformed> {
    find(attributes, number).map_or(Ok(absent), read)
}

/// The attributes that are none of the `known`.
pub(crate) fn unknown(
    attributes: Vec<Attribute>,
    known: std::ops::RangeInclusive<u16>,
) -> Vec<Attribute> {
    attributes.into_iter().filter(|attribute| !known.contains(&attribute.number())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// An attribute is nested or in network byte order, never both.
        #[test]
        fn attributes_survive_the_wire(
            raw in prop::collection::vec((0u16..0xc000, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let attributes: Vec<_> = raw.iter().map(|(kind, value)| Attribute::bytes(*kind, value)).collect();
            let bytes = Attribute::emit_all(&attributes);
            prop_assert_eq!(bytes.len() % 4, 0);
            prop_assert_eq!(Attribute::parse_all(&bytes).unwrap(), attributes);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for attribute in Attribute::parse_all(&bytes).unwrap_or_default() {
                let _ = (attribute.as_u8(), attribute.as_u16(), attribute.as_be16(), attribute.as_u32());
                let _ = (attribute.as_count(), attribute.as_string(), attribute.as_nest());
                let _ = (attribute.as_address(Family::V4), attribute.as_address(Family::V6));
            }
        }
    }

    #[test]
    fn a_truncated_attribute_is_an_error() {
        let bytes = Attribute::emit_all(&[Attribute::u32(1, 7)]);
        assert!(Attribute::parse_all(&bytes[..7]).is_err());
        assert!(Attribute::parse_all(&[3, 0, 1, 0]).is_err(), "shorter than its own header");
    }

    #[test]
    fn values_of_another_size_name_the_attribute() {
        let error = Attribute::u8(4, 1).as_u32().unwrap_err();
        assert_eq!(error.to_string(), "attribute 4 of 1 bytes should have 4 bytes");
    }
}
