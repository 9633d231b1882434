//! Requests as bytes.

use std::net::{IpAddr, Ipv6Addr};

use zeroize::Zeroizing;

use super::{
    ACTION_ALLOW, ACTION_BLOCK, AEAD, ALGORITHM_NAME, AUTH, CIPHER, DENY_PRIORITY, ESP,
    EXTENDED_SEQUENCE, ICV_BITS, KEY_BITS, LIFETIMES, OWNER, PEER_PRIORITY, REPLAY_ESN,
    REPLAY_WINDOW, TEMPLATE, TEMPLATES, TRANSPORT, UDP, USERPOLICY_INFO, USERSA_INFO, family,
};
use crate::{
    desired::Key,
    table::{Direction, NewSa, PolicyId, Rule, SaId, Selector},
};

/// An association to be added (`XFRM_MSG_NEWSA`).
pub(crate) fn new_association(sa: &NewSa) -> Zeroizing<Vec<u8>> {
    let mut out = association_info(sa);
    let mut aead = algorithm(CIPHER, KEY_BITS);
    aead.extend(ICV_BITS.to_ne_bytes());
    aead.extend(sa.key.bytes());
    attribute(&mut out, AEAD, &aead);
    out
}

/// One that no kernel makes, as ESP needs a cipher: but one without ESP gives that as the reason.
pub(crate) fn without_cipher(sa: &NewSa) -> Zeroizing<Vec<u8>> {
    let mut out = association_info(sa);
    let mut authentication = algorithm(b"hmac(sha256)", KEY_BITS);
    authentication.extend(sa.key.bytes());
    attribute(&mut out, AUTH, &authentication);
    out
}

/// The beginning of `struct xfrm_algo` and its like, with room for a key.
fn algorithm(name: &[u8], key_bits: u32) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(ALGORITHM_NAME + 8 + Key::LENGTH));
    out.extend(name);
    out.resize(ALGORITHM_NAME, 0);
    out.extend(key_bits.to_ne_bytes());
    out
}

/// All but the algorithms, with room for them: growing would leave copies of a key behind.
fn association_info(sa: &NewSa) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(1024));
    selector(&mut out, &Selector::between(sa.source, sa.id.destination, sa.port));
    id(&mut out, &sa.id);
    out.extend(octets(sa.source));
    unlimited(&mut out);
    out.extend([0; 32 + 12 + 4]); // current lifetime, statistics, sequence number of an acquisition
    out.extend(sa.reqid.to_ne_bytes());
    out.extend(family(sa.source.is_ipv6()).to_ne_bytes());
    out.extend([TRANSPORT, 0, EXTENDED_SEQUENCE]);
    out.resize(USERSA_INFO, 0);
    let words = REPLAY_WINDOW / 32;
    let mut replay = [words, 0, 0, 0, 0, REPLAY_WINDOW].map(u32::to_ne_bytes).concat();
    replay.resize(replay.len() + words as usize * 4, 0);
    attribute(&mut out, REPLAY_ESN, &replay);
    out
}

/// Names an association (`XFRM_MSG_DELSA`).
pub(crate) fn association_id(sa: &SaId) -> Vec<u8> {
    let mut out = Vec::from(octets(sa.destination));
    out.extend(sa.spi.to_be_bytes());
    out.extend(family(sa.destination.is_ipv6()).to_ne_bytes());
    out.extend([ESP, 0]);
    out
}

/// A policy to be set (`XFRM_MSG_UPDPOLICY`).
pub(crate) fn policy((direction, selects): &PolicyId, rule: &Rule) -> Vec<u8> {
    let (priority, action) = match rule {
        Rule::Deny => (DENY_PRIORITY, ACTION_BLOCK),
        Rule::Protect { .. } => (PEER_PRIORITY, ACTION_ALLOW),
    };
    let mut out = Vec::with_capacity(256);
    selector(&mut out, selects);
    unlimited(&mut out);
    out.extend([0; 32]); // current lifetime
    out.extend(priority.to_ne_bytes());
    out.extend([0; 4]); // index: the kernel's choice
    out.extend([number(*direction), action, 0, 0]);
    out.resize(USERPOLICY_INFO, 0);
    if let Rule::Protect { reqid, spi } = rule {
        attribute(&mut out, TEMPLATES, &template(selects, *reqid, *spi));
    }
    out
}

/// `struct xfrm_user_tmpl`.
fn template(selects: &Selector, reqid: u32, spi: Option<u32>) -> Vec<u8> {
    let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let mut out = Vec::with_capacity(TEMPLATE);
    id(
        &mut out,
        &SaId { destination: selects.destination.unwrap_or(unspecified), spi: spi.unwrap_or(0) },
    );
    out.extend(family(selects.v6).to_ne_bytes());
    out.extend([0; 2]);
    out.extend(octets(selects.source.unwrap_or(unspecified)));
    out.extend(reqid.to_ne_bytes());
    out.extend([TRANSPORT, 0, 0, 0]); // share: any; not optional
    out.extend([0xff; 12]); // any algorithm: the association has the right one
    out
}

/// Names a policy (`XFRM_MSG_DELPOLICY`).
pub(crate) fn policy_id((direction, selects): &PolicyId) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    selector(&mut out, selects);
    out.extend([0; 4]); // index: any
    out.extend([number(*direction), 0, 0, 0]);
    out
}

/// `struct xfrm_selector`.
fn selector(out: &mut Vec<u8>, selects: &Selector) {
    let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    out.extend(octets(selects.destination.unwrap_or(unspecified)));
    out.extend(octets(selects.source.unwrap_or(unspecified)));
    out.extend(selects.port.to_be_bytes());
    out.extend([0xff, 0xff, 0, 0, 0, 0]); // mask of the destination port; any source port
    out.extend(family(selects.v6).to_ne_bytes());
    out.extend([selects.destination, selects.source].map(|address| prefix(selects.v6, address)));
    out.extend([UDP, 0, 0, 0]);
    out.extend([0; 4]); // any interface
    out.extend(OWNER.to_ne_bytes());
}

/// `struct xfrm_id`.
fn id(out: &mut Vec<u8>, sa: &SaId) {
    out.extend(octets(sa.destination));
    out.extend(sa.spi.to_be_bytes());
    out.extend([ESP, 0, 0, 0]);
}

/// `struct xfrm_lifetime_cfg`: no limit on bytes and packets, none on time.
fn unlimited(out: &mut Vec<u8>) {
    out.extend([0xff; LIFETIMES / 2]);
    out.extend([0; LIFETIMES / 2]);
}

/// `xfrm_address_t`: 16 bytes, of which IPv4 uses the first four.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            octets
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

pub(super) fn prefix(v6: bool, address: Option<IpAddr>) -> u8 {
    match address {
        None => 0,
        Some(_) if v6 => 128,
        Some(_) => 32,
    }
}

pub(super) fn number(direction: Direction) -> u8 {
    match direction {
        Direction::In => 0,
        Direction::Out => 1,
    }
}

/// Appends an attribute. Values are a few hundred bytes at most.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("attributes are small");
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}
