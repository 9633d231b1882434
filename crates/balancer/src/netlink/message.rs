//! Netlink messages of the netfilter subsystems, as bytes: built and taken apart without touching a socket.
//!
//! Sources: `linux/netlink.h`, `linux/netfilter/nfnetlink.h`, `linux/netfilter/nf_tables.h`.

use std::io;

/// `NLM_F_REQUEST`.
pub(super) const REQUEST: u16 = 0x01;
/// `NLM_F_ACK`: the kernel answers with an error message, 0 for success.
pub(super) const ACK: u16 = 0x04;
/// `NLM_F_DUMP`.
pub(super) const DUMP: u16 = 0x300;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// `struct nfgenmsg`: family, version, resource id.
const GENERIC: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_TYPE_MASK`: without the flags for nesting and byte order.
const TYPE_MASK: u16 = 0x3fff;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`.
const GET_GENERATION: u16 = 10 << 8 | 16;
/// `NFTA_GEN_ID`.
const GENERATION_ID: u16 = 1;

/// A request of a netfilter subsystem. `kind` is `subsystem << 8 | message`.
pub(super) fn request(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    attributes: &[u8],
) -> Vec<u8> {
    let length = HEADER + GENERIC + attributes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).expect("requests are small").to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]); // port id: the kernel knows
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

/// Asks for the generation id of the namespace's nftables.
pub(super) fn generation_request(sequence: u32) -> Vec<u8> {
    request(GET_GENERATION, 0, sequence, 0, &[])
}

/// The generation id that an answer to [`generation_request`] carries.
pub(super) fn generation(payload: &[u8]) -> Option<u32> {
    let id = attribute(payload, GENERATION_ID)?;
    Some(u32::from_be_bytes(id.try_into().ok()?))
}

/// What a message from the kernel is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// `NLMSG_ERROR`: a negative errno, or 0 as an acknowledgement.
    Ack(i32),
    /// `NLMSG_DONE`: a dump's end, with a negative errno if it was cut short.
    Done(i32),
    /// A message of the subsystem: its attributes.
    Payload(&'a [u8]),
}

/// Takes a datagram apart into its messages with their sequence numbers.
pub(super) fn replies(datagram: &[u8]) -> io::Result<Vec<(u32, Reply<'_>)>> {
    let mut rest = datagram;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = u32_at(rest, 0)? as usize;
        let body = rest.get(HEADER..length).ok_or_else(malformed)?;
        let reply = match u16_at(rest, 4)? {
            NLMSG_ERROR => Reply::Ack(u32_at(body, 0)?.cast_signed()),
            NLMSG_DONE => Reply::Done(u32_at(body, 0).map_or(0, u32::cast_signed)),
            _ => Reply::Payload(body.get(GENERIC..).ok_or_else(malformed)?),
        };
        found.push((u32_at(rest, 8)?, reply));
        rest = rest.get(align(length)..).unwrap_or_default();
    }
    Ok(found)
}

/// The attributes in `bytes` as (type without flags, value, header and value); ends at the first malformed one.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0).ok()?);
        let kind = u16_at(rest, 2).ok()? & TYPE_MASK;
        let whole = rest.get(..length)?;
        let value = whole.get(ATTRIBUTE_HEADER..)?;
        rest = rest.get(align(length)..).unwrap_or_default();
        Some((kind, value, whole))
    })
}

/// The value of the first attribute of a type.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _, _)| *found == kind).map(|(_, value, _)| value)
}

/// An attribute, padded for the next one. Values are a few bytes.
pub(super) fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).expect("attributes are small");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    push_raw(&mut bytes, value);
    bytes
}

/// An attribute that holds attributes.
pub(super) fn nest(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attr(kind | NESTED, attributes)
}

/// Appends an attribute as it was received, padded for the next one.
pub(super) fn push_raw(bytes: &mut Vec<u8>, attribute: &[u8]) {
    bytes.extend(attribute);
    bytes.resize(align(bytes.len()), 0);
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    let raw = bytes.get(at..at + 2).ok_or_else(malformed)?;
    Ok(u16::from_ne_bytes(raw.try_into().expect("two bytes")))
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    let raw = bytes.get(at..at + 4).ok_or_else(malformed)?;
    Ok(u32::from_ne_bytes(raw.try_into().expect("four bytes")))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed netlink message")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_read_back_as_the_payload_it_carries() {
        let mut attributes = Vec::new();
        push_raw(&mut attributes, &[8, 0, 1, 0, 0, 0, 1, 2]);
        let bytes = request(GET_GENERATION, ACK, 7, 2, &attributes);
        let replies = replies(&bytes).unwrap();
        assert_eq!(replies, [(7, Reply::Payload(&attributes))]);
        assert_eq!(generation(&attributes), Some(0x102));
    }

    #[test]
    fn padding_separates_attributes() {
        let mut bytes = Vec::new();
        push_raw(&mut bytes, &[5, 0, 1, 0x80, 0xaa]);
        push_raw(&mut bytes, &[6, 0, 2, 0, 0xbb, 0xcc]);
        assert_eq!(attribute(&bytes, 1), Some(&[0xaa][..]), "flags are no part of the type");
        assert_eq!(attribute(&bytes, 2), Some(&[0xbb, 0xcc][..]));
        assert_eq!(attribute(&bytes, 3), None);
    }

    #[test]
    fn errors_and_ends_are_told_apart() {
        let message = |kind: u16, errno: i32| {
            let mut bytes = request(kind, 0, 9, 0, &[]);
            bytes[HEADER..HEADER + 4].copy_from_slice(&errno.to_ne_bytes());
            bytes
        };
        let datagram = [message(NLMSG_ERROR, -2), message(NLMSG_DONE, 0)].concat();
        assert_eq!(replies(&datagram).unwrap(), [(9, Reply::Ack(-2)), (9, Reply::Done(0))]);
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            // Only the absence of a panic and of an endless loop is claimed here.
            let _ = replies(&bytes);
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
