//! The encoding against `ipvsadm`'s bytes and the kernel's answers, recorded in `tests/golden`.

use std::{net::SocketAddr, num::NonZeroU32};

use netlink_packet_core::{NLM_F_DUMP, NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::GenlMessage;

use crate::{
    Destination, Encapsulation, Family, Forwarding, Info, Netmask, Service, ServiceFlags,
    ServiceKey, Timeouts,
    attribute::{Attribute, find},
    message::Message,
    socket::encode,
    uapi::{command, top},
};

const RECORDED: &str = include_str!("../tests/golden/ipvsadm-1.31.txt");
/// The family number in the messages that the tests make.
const FAMILY: u16 = 33;

/// A message of the record: netlink flags, then all that follows the netlink header.
struct Recorded {
    flags: u16,
    bytes: Vec<u8>,
}

/// The lines of a command that begin with `mark`.
fn lines(invocation: &str, mark: char) -> Vec<&'static str> {
    let start = format!("$ {invocation}");
    let lines = RECORDED.lines().skip_while(|line| *line != start).skip(1);
    let found: Vec<_> = lines.take_while(|line| !line.starts_with('$')).collect();
    assert!(!found.is_empty(), "{invocation} is not recorded");
    found.into_iter().filter_map(|line| line.strip_prefix(mark)).map(|line| &line[1..]).collect()
}

fn messages(invocation: &str, mark: char) -> Vec<Recorded> {
    let read = |line: &str| {
        let (flags, hex) = line.split_once(' ').expect("flags and bytes");
        let digits = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
        Recorded {
            flags: u16::from_str_radix(flags, 16).unwrap(),
            bytes: digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect(),
        }
    };
    lines(invocation, mark).into_iter().map(read).collect()
}

/// The last request is the command's own; before it some look at what is there.
fn request(invocation: &str) -> Recorded {
    messages(invocation, '>').pop().expect("a request")
}

fn parse(recorded: &Recorded) -> Message {
    let length = u32::try_from(16 + recorded.bytes.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([FAMILY, recorded.flags].map(u16::to_ne_bytes).concat());
    bytes.extend([0; 8]);
    bytes.extend(&recorded.bytes);
    let message = NetlinkMessage::<GenlMessage<Message>>::deserialize(&bytes).unwrap();
    let NetlinkPayload::InnerMessage(message) = message.payload else {
        panic!("no message of the family: {message:?}");
    };
    message.payload
}

/// Asserts that a request is to the byte what `ipvsadm` sends.
fn same(invocation: &str, flags: u16, message: Message) {
    let recorded = request(invocation);
    let ours = encode(FAMILY, flags, 0, message);
    assert_eq!(ours[6..8], recorded.flags.to_ne_bytes(), "flags of {invocation}");
    assert_eq!(ours[16..], recorded.bytes, "{invocation}");
}

fn mark(family: Family, mark: u32) -> ServiceKey {
    ServiceKey::mark(family, NonZeroU32::new(mark).unwrap())
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn web() -> ServiceKey {
    ServiceKey::tcp(address("10.0.1.2:80"))
}

fn create(service: &Service) -> Message {
    Message::service(command::NEW_SERVICE, service).unwrap()
}

#[test]
fn services_are_created_with_ipvsadms_bytes() {
    let marked = Service::new(mark(Family::V4, 257), "rr");
    same("-A -f 257 -s rr", 0, create(&marked));
    same("-A -f 258 -6 -s wrr", 0, create(&Service::new(mark(Family::V6, 258), "wrr")));
    same("-A -t 10.0.1.2:80 -s wlc", 0, create(&Service::new(web(), "wlc")));
    let dns = Service::new(ServiceKey::udp(address("[fd00::2]:53")), "sh")
        .flags(ServiceFlags::SCHEDULER_2);
    same("-A -u [fd00::2]:53 -s sh -b sh-port", 0, create(&dns));
    let mut sticky = Service::new(ServiceKey::tcp(address("10.0.1.3:0")), "rr").persistent(300);
    sticky.netmask = Netmask::V4([255, 255, 255, 0].into());
    same("-A -t 10.0.1.3:0 -s rr -p 300 -M 255.255.255.0", 0, create(&sticky));
    let one =
        Service::new(ServiceKey::udp(address("10.0.1.4:53")), "rr").flags(ServiceFlags::ONE_PACKET);
    same("-A -u 10.0.1.4:53 -s rr -o", 0, create(&one));
    let changed = Service { scheduler: "wrr".into(), ..marked };
    same("-E -f 257 -s wrr", 0, Message::service(command::SET_SERVICE, &changed).unwrap());
}

#[test]
fn the_rest_has_ipvsadms_bytes() {
    same("-Z", 0, Message::plain(command::ZERO));
    same("-C", 0, Message::plain(command::FLUSH));
    same("-Ln --timeout", 0, Message::plain(command::GET_CONFIG));
    let timeouts = Timeouts { tcp: 900, tcp_fin: 120, udp: 300 }.attributes();
    same("--set 900 120 300", 0, Message { command: command::SET_CONFIG, attributes: timeouts });
    same("-Ln -f 257", NLM_F_DUMP, Message::about(command::GET_DEST, &mark(Family::V4, 257)));
}

/// Where we only name a service, `ipvsadm` says more of it, which the kernel ignores.
fn names(invocation: &str, message: &Message) {
    let recorded = parse(&request(invocation));
    let key = |message: &Message| {
        let service = find(&message.attributes, top::SERVICE).unwrap().as_nest().unwrap();
        ServiceKey::decode(&service).unwrap()
    };
    assert_eq!(recorded.command, message.command, "{invocation}");
    assert_eq!(key(&recorded), key(message), "{invocation}");
}

fn destination_bytes(invocation: &str, message: &Message) -> (Vec<Attribute>, Vec<Attribute>) {
    names(invocation, message);
    let nested =
        |message: &Message| find(&message.attributes, top::DEST).unwrap().as_nest().unwrap();
    (nested(&parse(&request(invocation))), nested(message))
}

#[test]
fn destinations_are_created_and_changed_with_ipvsadms_bytes() {
    let marked = mark(Family::V4, 257);
    let backend = Destination::new(address("10.0.1.11:0"), Forwarding::Masquerade);
    let gue = Forwarding::Tunnel(Encapsulation::Gue { port: 6080, flags: 0 });
    let to_web =
        |last: &str, forwarding| Destination::new(address(&format!("10.0.1.{last}")), forwarding);
    let dns = ServiceKey::udp(address("[fd00::2]:53"));
    for (invocation, number, key, destination) in [
        ("-a -f 257 -r 10.0.1.11 -m -w 3", command::NEW_DEST, marked, backend.weight(3)),
        ("-e -f 257 -r 10.0.1.11 -m -w 0", command::SET_DEST, marked, backend.weight(0)),
        (
            "-a -t 10.0.1.2:80 -r 10.0.1.11:8080 -m -w 2 -x 100 -y 50",
            command::NEW_DEST,
            web(),
            to_web("11:8080", Forwarding::Masquerade).weight(2).thresholds(100, 50),
        ),
        (
            "-a -t 10.0.1.2:80 -r 10.0.1.12:80 -g",
            command::NEW_DEST,
            web(),
            to_web("12:80", Forwarding::Direct),
        ),
        (
            "-a -t 10.0.1.2:80 -r 10.0.1.13:80 -i",
            command::NEW_DEST,
            web(),
            to_web("13:80", Forwarding::Tunnel(Encapsulation::Ipip)),
        ),
        (
            "-a -t 10.0.1.2:80 -r 10.0.1.14:80 -i --tun-type gue --tun-port 6080",
            command::NEW_DEST,
            web(),
            to_web("14:80", gue),
        ),
        (
            "-a -u [fd00::2]:53 -r [fd00::11]:53 -m",
            command::NEW_DEST,
            dns,
            Destination::new(address("[fd00::11]:53"), Forwarding::Masquerade),
        ),
    ] {
        let message = Message::whole_destination(number, &key, &destination);
        let (recorded, ours) = destination_bytes(invocation, &message);
        assert_eq!(ours, recorded, "{invocation}");
    }
}

#[test]
fn what_is_deleted_is_named_as_ipvsadm_names_it() {
    let key = mark(Family::V4, 257);
    names("-D -f 257", &Message::about(command::DEL_SERVICE, &key));
    let named = Destination::key_attributes(address("10.0.1.11:0"));
    let message = Message::destination(command::DEL_DEST, &key, &named);
    let (recorded, ours) = destination_bytes("-d -f 257 -r 10.0.1.11", &message);
    assert_eq!(ours, recorded[..ours.len()]);
}

#[test]
fn the_kernels_listing_says_what_ipvsadm_prints() {
    let (mut printed, mut service) = (Vec::new(), None);
    for answer in messages("-Ln --stats", '<').iter().map(parse) {
        match answer.command {
            command::NEW_SERVICE => {
                let entry = answer.service_entry().unwrap();
                assert_eq!(entry.unknown, []);
                printed.push((entry.service.key.to_string(), entry.stats));
                service = Some(entry.service.key.family());
            }
            command::NEW_DEST => {
                // Their family is said, so it does not matter which service's they are.
                let entry = answer.destination_entry(service.unwrap()).unwrap();
                assert_eq!(entry.unknown, []);
                printed.push((format!("-> {}", entry.destination.address), entry.stats));
            }
            _ => assert_eq!(
                Info::decode(&answer.attributes).unwrap().to_string(),
                "1.2.1 (size=4096)"
            ),
        }
    }
    let mut ours: Vec<_> = printed
        .iter()
        .map(|(name, s)| {
            let counts = [s.connections, s.packets_in, s.packets_out, s.bytes_in, s.bytes_out];
            format!("{name} {}", counts.map(|count| count.to_string()).join(" "))
        })
        .collect();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut theirs: Vec<_> = lines("-Ln --stats", '|').into_iter().skip(3).map(words).collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn the_kernels_service_is_the_one_that_was_created() {
    let entries: Vec<_> = messages("-Ln -f 257", '<').iter().map(parse).collect();
    let service = entries[0].service_entry().unwrap().service;
    assert_eq!(service, Service::new(mark(Family::V4, 257), "wrr"));
    let destination = entries[1].destination_entry(Family::V4).unwrap().destination;
    let expected = Destination::new(address("10.0.1.11:0"), Forwarding::Masquerade).weight(0);
    assert_eq!(destination, expected);
    let timeouts = parse(&messages("-Ln --timeout", '<')[0]);
    let expected = Timeouts { tcp: 900, tcp_fin: 120, udp: 300 };
    assert_eq!(Timeouts::decode(&timeouts.attributes).unwrap(), expected);
}
