//! What dumps hold, as values. Objects of others are told from ours by their selector and otherwise not looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};

use super::{
    ACTION_ALLOW, ACTION_BLOCK, AEAD, ALGORITHM_NAME, AUTH, CIPHER, CRYPT, DENY_PRIORITY, ESP,
    EXTENDED_SEQUENCE, ICV_BITS, KEY_BITS, OWNER, PEER_PRIORITY, SELECTOR, TEMPLATE, TEMPLATES,
    TRANSPORT, UDP, USERPOLICY_INFO, USERSA_INFO, family,
    write::{number, prefix},
};
use crate::{
    desired::Key,
    table::{Association, Direction, PolicyId, Protection, Rule, SaId, Selector},
};

/// An association in a dump.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Ours(SaId, Association),
    /// ESP without a key: made by the kernel for a packet, until somebody gives it one.
    Larval(SaId),
}

/// Reads an association (`struct xfrm_usersa_info`); `None` if it is another's.
pub(crate) fn found_association(body: &[u8]) -> Option<Found> {
    let info = body.get(..USERSA_INFO)?;
    let attributes = &body[USERSA_INFO..];
    let v6 = is_v6(info, 212)?;
    let id = SaId { destination: address(info, 56, v6)?, spi: be32(info, 72)? };
    if info[76] != ESP {
        return None;
    }
    let Some(selects) = selector(info) else {
        let keyless = ![AEAD, CRYPT, AUTH].into_iter().any(|kind| find(attributes, kind).is_some());
        return keyless.then_some(Found::Larval(id));
    };
    let transport = info[214] == TRANSPORT && info[216] & EXTENDED_SEQUENCE != 0;
    let protection = if transport { protection(attributes) } else { Protection::Strange };
    let association = Association {
        source: address(info, 80, v6)?,
        reqid: ne32(info, 208)?,
        port: selects.port,
        protection,
        added: ne64(info, 176)?,
        bytes: ne64(info, 160)?,
        packets: ne64(info, 168)?,
    };
    Some(Found::Ours(id, association))
}

/// `struct xfrm_algo_aead`.
fn protection(attributes: &[u8]) -> Protection {
    let read = || {
        let aead = find(attributes, AEAD)?;
        let name = aead.get(..ALGORITHM_NAME)?.split(|byte| *byte == 0).next()?;
        let (key_bits, icv_bits) = (ne32(aead, ALGORITHM_NAME)?, ne32(aead, ALGORITHM_NAME + 4)?);
        let ours = name == CIPHER && key_bits == KEY_BITS && icv_bits == ICV_BITS;
        let key = aead.get(ALGORITHM_NAME + 8..ALGORITHM_NAME + 8 + Key::LENGTH)?;
        ours.then(|| <[u8; Key::LENGTH]>::try_from(key).expect("as long"))
    };
    match read() {
        None => Protection::Strange,
        Some(key) if key == [0; Key::LENGTH] => Protection::Secret,
        Some(key) => Protection::Key(Key::new(key)),
    }
}

/// Reads a policy (`struct xfrm_userpolicy_info`) and what it does, unless that is none of our rules; `None` if it is another's.
pub(crate) fn found_policy(body: &[u8]) -> Option<(PolicyId, Option<Rule>)> {
    let info = body.get(..USERPOLICY_INFO)?;
    let selects = selector(info)?;
    let direction =
        [Direction::In, Direction::Out].into_iter().find(|d| number(*d) == info[160])?;
    let templates = find(&body[USERPOLICY_INFO..], TEMPLATES).unwrap_or_default();
    let rule = match (ne32(info, 152)?, info[161]) {
        (DENY_PRIORITY, ACTION_BLOCK) if templates.is_empty() => Some(Rule::Deny),
        (PEER_PRIORITY, ACTION_ALLOW) => template(templates, &selects),
        _ => None,
    };
    Some(((direction, selects), rule))
}

/// Reads the only template of a policy, if it is as ours are.
fn template(templates: &[u8], selects: &Selector) -> Option<Rule> {
    let template: &[u8; TEMPLATE] = templates.try_into().ok()?;
    let ends = [address(template, 28, selects.v6), address(template, 0, selects.v6)];
    let fixed = [template[20], template[48], template[50]];
    let ours = ends == [selects.source, selects.destination] && fixed == [ESP, TRANSPORT, 0];
    let (reqid, spi) = (ne32(template, 44)?, be32(template, 16)?);
    ours.then_some(Rule::Protect { reqid, spi: (spi != 0).then_some(spi) })
}

/// Reads `struct xfrm_selector`; `None` if it is none of ours.
fn selector(bytes: &[u8]) -> Option<Selector> {
    let bytes = bytes.get(..SELECTOR)?;
    let v6 = is_v6(bytes, 40)?;
    let end = |offset, length: u8| match length {
        0 => Some(None),
        full if full == prefix(v6, Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED))) => {
            address(bytes, offset, v6).map(Some)
        }
        _ => None,
    };
    let selects = Selector {
        v6,
        destination: end(0, bytes[42])?,
        source: end(16, bytes[43])?,
        port: u16::from_be_bytes([bytes[32], bytes[33]]),
    };
    let ours = bytes[34..40] == [0xff, 0xff, 0, 0, 0, 0]
        && bytes[44] == UDP
        && ne32(bytes, 48)? == 0
        && ne32(bytes, 52)? == OWNER;
    ours.then_some(selects)
}

/// The value of the first attribute of a kind.
pub(crate) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut sound = NlasIterator::new(attributes).map_while(Result::ok);
    let found = sound.find(|nla| nla.kind() == kind)?;
    let length = found.value_length();
    found.into_inner().get(NLA_HEADER_SIZE..NLA_HEADER_SIZE + length)
}

fn is_v6(bytes: &[u8], offset: usize) -> Option<bool> {
    let found = u16::from_ne_bytes(array(bytes, offset)?);
    [false, true].into_iter().find(|v6| family(*v6) == found)
}

fn address(bytes: &[u8], offset: usize, v6: bool) -> Option<IpAddr> {
    Some(if v6 {
        Ipv6Addr::from(array::<16>(bytes, offset)?).into()
    } else {
        Ipv4Addr::from(array::<4>(bytes, offset)?).into()
    })
}

fn be32(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_be_bytes)
}

fn ne32(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_ne_bytes)
}

fn ne64(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_ne_bytes)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset + N)?.try_into().ok()
}
