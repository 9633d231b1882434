//! Our bytes are those of `ip xfrm` (iproute2 6.1, seen with strace), but for the owner; and what we read is what we wrote.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::table::{Association, Direction, NewSa, PolicyId, Protection, Rule, SaId, Selector};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
/// Of a selector, within it.
const USER: std::ops::Range<usize> = 52..56;

/// `ip xfrm policy update src 10.0.0.1/32 dst 10.0.0.2/32 proto udp dport 4790 dir out priority 100
/// tmpl src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x1001 reqid 7 mode transport`
const POLICY: &str = "0a000002 00*12 0a000001 00*12 12b6ffff 00*4 02002020 11000000 00*8 ff*32 00*64
    64000000 00*4 01000000 00*4 44000500 0a000002 00*12 00001001 32000000 02000000 0a000001 00*12 07000000 00*4 ff*12";
/// `ip xfrm policy update src ::/0 dst ::/0 proto udp dport 4790 dir in priority 1000 action block`
const DENY: &str =
    "00*32 12b6ffff 00*4 0a000000 11000000 00*8 ff*32 00*64 e8030000 00*4 00010000 00*4";
/// `ip xfrm policy delete src 10.0.0.1/32 dst 10.0.0.2/32 proto udp dport 4790 dir out`
const DELETE_POLICY: &str =
    "0a000002 00*12 0a000001 00*12 12b6ffff 00*4 02002020 11000000 00*8 00*4 01000000";
/// `ip xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x1001 reqid 7 mode transport flag esn replay-window 128
/// aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128
/// sel src 10.0.0.1/32 dst 10.0.0.2/32 proto udp dport 4790`, without its last attribute, the replay window.
const STATE: &str = "0a000002 00*12 0a000001 00*12 12b6ffff 00*4 02002020 11000000 00*8
    0a000002 00*12 00001001 32000000 0a000001 00*12 ff*32 00*80 07000000 02000000 80000000 00*4
    60001200 72666334 31303628 67636d28 61657329 29000000 00*44 a0000000 80000000
    01020304 05060708 090a0b0c 0d0e0f10 11121314";
/// `ip xfrm state delete dst 10.0.0.2 proto esp spi 0x1001`, without the source address that it adds.
const DELETE_STATE: &str = "0a000002 00*12 00001001 02003200";

/// Bytes in hexadecimal; `XX*N` is a byte N times.
fn bytes(text: &str) -> Vec<u8> {
    let byte = |pair: &str| u8::from_str_radix(pair, 16).unwrap();
    let word = |word: &str| match word.split_once('*') {
        Some((pair, count)) => vec![byte(pair); count.parse().unwrap()],
        None => (0..word.len()).step_by(2).map(|at| byte(&word[at..at + 2])).collect(),
    };
    text.split_whitespace().flat_map(word).collect()
}

/// Checks that the selector at the beginning is marked as ours, and takes the mark away.
fn unmarked(mut message: Vec<u8>) -> Vec<u8> {
    assert_eq!(message[USER], OWNER.to_ne_bytes());
    message[USER].fill(0);
    message
}

fn example() -> NewSa {
    let key = Key::new(std::array::from_fn(|at| u8::try_from(at + 1).unwrap()));
    NewSa { id: SaId { destination: B, spi: 0x1001 }, source: A, reqid: 7, port: 4790, key }
}

fn example_policy() -> (PolicyId, Rule) {
    let id = (Direction::Out, Selector::between(A, B, 4790));
    (id, Rule::Protect { reqid: 7, spi: Some(0x1001) })
}

#[test]
fn policies_are_those_of_iproute2() {
    let (id, rule) = example_policy();
    assert_eq!(unmarked(policy(&id, &rule)), bytes(POLICY));
    assert_eq!(unmarked(policy_id(&id)), bytes(DELETE_POLICY));
    let deny = (Direction::In, Selector::any(true, 4790));
    assert_eq!(unmarked(policy(&deny, &Rule::Deny)), bytes(DENY));
}

#[test]
fn associations_are_those_of_iproute2() {
    let message = unmarked(new_association(&example()).to_vec());
    let (window, rest): (Vec<_>, Vec<_>) = {
        let at = USERSA_INFO;
        let length = usize::from(u16::from_ne_bytes([message[at], message[at + 1]]));
        (message[at..at + length].to_vec(), [&message[..at], &message[at + length..]].concat())
    };
    assert_eq!(rest, bytes(STATE));
    assert_eq!(window, bytes("9c001700 20000000 00*16 00040000 00*128"));
    assert_eq!(association_id(&example().id), bytes(DELETE_STATE));
}

#[test]
fn a_changed_policy_is_no_rule_of_ours() {
    let (id, rule) = example_policy();
    let sound = policy(&id, &rule);
    assert_eq!(found_policy(&sound), Some((id, Some(rule))));
    let template = USERPOLICY_INFO + 4;
    for (what, at) in [
        ("priority", 152),
        ("action", 161),
        ("destination of the template", template),
        ("protocol", template + 20),
        ("source of the template", template + 28),
        ("mode", template + 48),
        ("optional", template + 50),
    ] {
        let mut changed = sound.clone();
        changed[at] ^= 1;
        assert_eq!(found_policy(&changed), Some((id, None)), "{what}");
    }
    assert_eq!(
        found_policy(&sound[..USERPOLICY_INFO]),
        Some((id, None)),
        "no template: all in clear"
    );
    let deny = (Direction::In, Selector::any(false, 4790));
    let mut allow = policy(&deny, &Rule::Deny);
    allow[161] = ACTION_ALLOW;
    assert_eq!(found_policy(&allow), Some((deny, None)));
}

#[test]
fn a_changed_association_is_strange() {
    let sound = new_association(&example()).to_vec();
    let aead = sound.len() - 96;
    for (what, at) in [
        ("mode", 214),
        ("64-bit sequence numbers", 216),
        ("cipher", aead + 4),
        ("bits of the key", aead + 68),
        ("bits of the check value", aead + 72),
    ] {
        let mut changed = sound.clone();
        changed[at] ^= 0x80;
        let Some(Found::Ours(_, association)) = found_association(&changed) else {
            panic!("{what}")
        };
        assert_eq!(association.protection, Protection::Strange, "{what}");
    }
    let mut secret = sound.clone();
    secret[aead + 76..].fill(0);
    let Some(Found::Ours(_, association)) = found_association(&secret) else { panic!("ours") };
    assert_eq!(association.protection, Protection::Secret);
}

#[test]
fn others_objects_are_passed_over() {
    let association = unmarked(new_association(&example()).to_vec());
    assert_eq!(found_association(&association), None);
    assert_eq!(found_association(&association[..USERSA_INFO]), Some(Found::Larval(example().id)));
    let (id, rule) = example_policy();
    assert_eq!(found_policy(&unmarked(policy(&id, &rule))), None);
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into()));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into()));
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn associations_are_read_back(
        ends in addresses(), spi: u32, reqid: u32, port: u16, key in any::<[u8; 20]>(),
    ) {
        prop_assume!(key != [0; 20]);
        let id = SaId { destination: ends.1, spi };
        let sa = NewSa { id, source: ends.0, reqid, port, key: Key::new(key) };
        let Some(Found::Ours(found, association)) = found_association(&new_association(&sa)) else {
            panic!("not ours");
        };
        let Association { added, bytes, packets, .. } = association;
        prop_assert_eq!((found, added, bytes, packets), (id, 0, 0, 0));
        prop_assert!(association.is(&sa));
    }

    #[test]
    fn policies_are_read_back(
        ends in addresses(), deny: bool, out: bool, reqid: u32, spi in prop::option::of(1u32..), port: u16,
    ) {
        let direction = if out { Direction::Out } else { Direction::In };
        let (selector, rule) = if deny {
            (Selector::any(ends.0.is_ipv6(), port), Rule::Deny)
        } else {
            (Selector::between(ends.0, ends.1, port), Rule::Protect { reqid, spi })
        };
        let id = (direction, selector);
        prop_assert_eq!(found_policy(&policy(&id, &rule)), Some((id, Some(rule))));
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        noise in prop::collection::vec(any::<u8>(), 0..600), at in 0usize..500, to: u8, cut in 0usize..500,
    ) {
        let _ = (found_association(&noise), found_policy(&noise));
        let (id, rule) = example_policy();
        for mut message in [new_association(&example()).to_vec(), policy(&id, &rule)] {
            let at = at % message.len();
            message[at] = to;
            let _ = (found_association(&message), found_policy(&message));
            message.truncate(cut);
            let _ = (found_association(&message), found_policy(&message));
        }
    }
}
