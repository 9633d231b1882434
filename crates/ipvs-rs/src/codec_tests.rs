//! Whatever is said is read back the same, and nothing the kernel might send makes the reader panic.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use crate::{
    Destination, DestinationEntry, Encapsulation, Error, Family, Forwarding, Netmask, Protocol,
    Service, ServiceEntry, ServiceFlags, ServiceKey, Stats, Timeouts,
    attribute::Attribute,
    uapi::{dest, stats, svc},
};

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn key() -> impl Strategy<Value = ServiceKey> {
    let by_address = (any::<u16>(), address()).prop_map(|(protocol, address)| {
        ServiceKey::Address { protocol: Protocol(protocol), address }
    });
    let by_mark = (prop_oneof![Just(Family::V4), Just(Family::V6)], any::<std::num::NonZeroU32>())
        .prop_map(|(family, mark)| ServiceKey::mark(family, mark));
    prop_oneof![by_address, by_mark]
}

prop_compose! {
    fn service()(
        key in key(), scheduler in "[a-z]{1,15}", flags in any::<u32>(), timeout in any::<u32>(),
        mask in any::<u32>(), engine in prop::option::of("[a-z]{1,15}"),
    ) -> Service {
        let netmask = match key.family() {
            Family::V4 => Netmask::V4(mask.into()),
            Family::V6 => Netmask::V6(mask),
        };
        // The kernel's own bit is never said.
        let flags = ServiceFlags::from_bits_retain(flags & !2);
        Service { key, scheduler, flags, timeout, netmask, persistence_engine: engine }
    }
}

fn forwarding() -> impl Strategy<Value = Forwarding> {
    let tunnel =
        prop_oneof![
            Just(Encapsulation::Ipip),
            any::<(u16, u16)>().prop_map(|(port, flags)| Encapsulation::Gue { port, flags }),
            any::<u16>().prop_map(|flags| Encapsulation::Gre { flags }),
            (3u8.., any::<u16>(), any::<u16>())
                .prop_map(|(kind, port, flags)| Encapsulation::Other { kind, port, flags }),
        ];
    prop_oneof![
        Just(Forwarding::Masquerade),
        Just(Forwarding::Direct),
        tunnel.prop_map(Forwarding::Tunnel),
        (4u32..).prop_map(Forwarding::Other),
    ]
}

prop_compose! {
    fn destination()(
        address in address(), forwarding in forwarding(), weight in any::<u32>(), upper in any::<u32>(),
        lower in any::<u32>(),
    ) -> Destination {
        Destination::new(address, forwarding).weight(weight).thresholds(upper, lower)
    }
}

/// Statistics as the kernel nests them: `wide` has 64 bits throughout, the older form for bytes only.
fn nested_stats(number: u16, counts: [u64; 10], wide: bool) -> Attribute {
    let encode = |(index, count): (u16, u64)| {
        let number = stats::CONNS + index;
        if wide || number == stats::INBYTES || number == stats::OUTBYTES {
            Attribute::bytes(number, &count.to_ne_bytes())
        } else {
            Attribute::u32(number, u32::try_from(count).unwrap())
        }
    };
    Attribute::nest(number, &(0u16..).zip(counts).map(encode).collect::<Vec<_>>())
}

fn counted(counts: [u64; 10]) -> Stats {
    let [connections, packets_in, packets_out, bytes_in, bytes_out, c, pi, po, bi, bo] = counts;
    Stats {
        connections,
        packets_in,
        packets_out,
        bytes_in,
        bytes_out,
        connection_rate: c,
        packet_rate_in: pi,
        packet_rate_out: po,
        byte_rate_in: bi,
        byte_rate_out: bo,
    }
}

/// By way of bytes.
fn wire(attributes: &[Attribute]) -> Vec<Attribute> {
    Attribute::parse_all(&Attribute::emit_all(attributes)).unwrap()
}

proptest! {
    #[test]
    fn services_with_statistics_and_unknown_attributes_survive(
        service in service(), counts in any::<[u64; 10]>(), strange in 13u16..0x3fff, value in any::<[u8; 5]>(),
    ) {
        let unknown = Attribute::bytes(strange, &value);
        let mut attributes = service.attributes().unwrap();
        attributes.insert(0, unknown.clone());
        attributes.push(nested_stats(svc::STATS64, counts, true));
        let entry = ServiceEntry::decode(wire(&attributes)).unwrap();
        prop_assert_eq!(entry, ServiceEntry { service, stats: counted(counts), unknown: vec![unknown] });
    }

    #[test]
    fn destinations_with_statistics_and_unknown_attributes_survive(
        destination in destination(), numbers in any::<[u32; 10]>(), strange in 16u16..0x3fff,
        [active, inactive, persistent] in any::<[u32; 3]>(),
    ) {
        let unknown = Attribute::nest(strange, &[Attribute::u8(1, 2)]);
        let counts = numbers.map(u64::from);
        let mut attributes = destination.attributes();
        attributes.extend([
            Attribute::u32(dest::ACTIVE_CONNS, active),
            Attribute::u32(dest::INACT_CONNS, inactive),
            Attribute::u32(dest::PERSIST_CONNS, persistent),
            nested_stats(dest::STATS, counts, false),
            unknown.clone(),
        ]);
        let entry = DestinationEntry::decode(wire(&attributes), Family::V4).unwrap();
        prop_assert_eq!(entry, DestinationEntry {
            destination,
            active_connections: active,
            inactive_connections: inactive,
            persistent_connections: persistent,
            stats: counted(counts),
            unknown: vec![unknown],
        });
    }

    #[test]
    fn timeouts_survive([tcp, tcp_fin, udp] in any::<[u32; 3]>()) {
        let timeouts = Timeouts { tcp, tcp_fin, udp };
        prop_assert_eq!(Timeouts::decode(&wire(&timeouts.attributes())).unwrap(), timeouts);
    }

    #[test]
    fn attributes_of_any_size_are_read_without_panic(
        raw in prop::collection::vec((0u16..20, prop::collection::vec(any::<u8>(), 0..24)), 0..16),
    ) {
        let attributes: Vec<_> = raw.iter().map(|(kind, value)| Attribute::bytes(*kind, value)).collect();
        let _ = ServiceEntry::decode(attributes.clone());
        let _ = (DestinationEntry::decode(attributes.clone(), Family::V6), Timeouts::decode(&attributes));
    }

    /// A damaged listing reaches deeper than noise does.
    #[test]
    fn damaged_entries_are_read_without_panic(
        service in service(), destination in destination(), counts in any::<[u64; 10]>(), at in any::<usize>(),
        to in any::<u8>(),
    ) {
        let mut attributes = service.attributes().unwrap();
        attributes.push(nested_stats(svc::STATS64, counts, true));
        attributes.extend(destination.attributes());
        let mut bytes = Attribute::emit_all(&attributes);
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(damaged) = Attribute::parse_all(&bytes) {
            let _ = (ServiceEntry::decode(damaged.clone()), DestinationEntry::decode(damaged, Family::V4));
        }
    }

    #[test]
    fn a_name_that_is_too_long_or_has_nul_is_refused(name in "[a-z\\x00]{0,20}") {
        let service = Service::new(ServiceKey::tcp(([10, 0, 1, 2], 80)), name.clone());
        let valid = (1..=15).contains(&name.len()) && !name.contains('\0');
        prop_assert_eq!(service.attributes().is_ok(), valid);
    }
}

#[test]
fn what_is_invalid_is_named() {
    let mut service = Service::new(ServiceKey::tcp(([10, 0, 1, 2], 80)), "rr");
    service.netmask = Netmask::V6(128);
    let error = service.attributes().unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }));
    assert_eq!(
        error.to_string(),
        "service TCP 10.0.1.2:80 is invalid: its netmask is of the other address family"
    );
}

#[test]
fn the_older_statistics_are_used_only_where_there_are_no_newer() {
    let (old, new) = ([1; 10], [2; 10]);
    let both = [nested_stats(svc::STATS, old, false), nested_stats(svc::STATS64, new, true)];
    assert_eq!(Stats::decode(&both, svc::STATS64, svc::STATS).unwrap(), counted(new));
    assert_eq!(Stats::decode(&both[..1], svc::STATS64, svc::STATS).unwrap(), counted(old));
}

#[test]
fn a_listing_without_a_key_says_what_is_missing() {
    let error = ServiceEntry::decode(vec![Attribute::u16(svc::AF, 2)]).unwrap_err();
    assert_eq!(error.to_string(), "no attribute 2 (protocol)");
    let error = ServiceEntry::decode(vec![Attribute::u16(svc::AF, 7)]).unwrap_err();
    assert_eq!(error.to_string(), "address family 7 is neither IPv4 nor IPv6");
}
