//! Properties of the request path: whatever arrives, it neither panics nor sends what a client could not take.

use std::net::Ipv4Addr;
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, Query as ProtoQuery};
use proptest::prelude::*;

use super::*;
use crate::names::NetworkNames;

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40000);

fn tasks(count: u8) -> Vec<IpAddr> {
    (0..count).map(|n| [10, 0, 1, n].into()).collect()
}

fn published(name: &str, answer: Answer) -> Names {
    let mut network = NetworkNames::new();
    network.insert(name, answer).unwrap();
    network.insert_reverse([10, 0, 1, 2].into(), "web.1.abc.net").unwrap();
    Names { networks: [("net".into(), Arc::new(network))].into() }
}

fn scope() -> Scope {
    Scope { networks: vec!["net".into()], relay: true }
}

fn question(name: Name, kind: RecordType, payload: Option<u16>) -> Message {
    let mut message = Message::query();
    message.add_query(ProtoQuery::query(name, kind));
    if let Some(size) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message
}

fn reply_to(names: &Names, message: &Message, protocol: Protocol) -> Option<Message> {
    match respond(message.to_vec().unwrap(), CLIENT, protocol, names, &scope(), 0) {
        Verdict::Reply(bytes) => Some(Message::from_vec(&bytes).unwrap()),
        Verdict::Relay(_) | Verdict::Ignore => None,
    }
}

/// Holds for every reply to every message: it is a response with the client's id, within the size limit, decodable.
fn check(raw: Vec<u8>, protocol: Protocol) {
    let names = published("tasks.web", Answer::Addresses(tasks(200)));
    match respond(raw.clone(), CLIENT, protocol, &names, &scope(), 0) {
        Verdict::Reply(reply) => {
            assert_eq!(reply[..2], raw[..2], "the id");
            assert_eq!(reply[2] & 0x80, 0x80, "a response");
            assert_eq!(raw[2] & 0x80, 0, "responses are not replied to");
            let limit = if protocol == Protocol::Udp { 4096 } else { 65535 };
            assert!(reply.len() <= limit, "{} octets", reply.len());
        }
        Verdict::Relay(query) => {
            assert_eq!(query.raw(), raw);
            let refusal = without_resolver(&query).expect("every query can be refused");
            assert_eq!(refusal[..2], raw[..2]);
        }
        Verdict::Ignore => assert!(raw.len() < 12 || raw[2] & 0x80 != 0, "ignored {raw:?}"),
    }
}

fn protocols() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Udp), Just(Protocol::Tcp)]
}

/// A well-formed query with some octets overwritten and its end cut off or grown.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let valid = (0u16..300, proptest::option::of(any::<u16>())).prop_map(|(kind, payload)| {
        let name = Name::from_ascii("tasks.web.").unwrap();
        question(name, RecordType::from(kind), payload).to_vec().unwrap()
    });
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let tail = proptest::collection::vec(any::<u8>(), 0..40);
    (valid, damage, tail, 0usize..8).prop_map(|(mut bytes, damage, tail, cut)| {
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(bytes.len() - cut);
        bytes.extend(tail);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES can ask for more.
        cases: ProptestConfig::default().cases.max(2000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn arbitrary_bytes_do_no_harm(raw in proptest::collection::vec(any::<u8>(), 0..600), protocol in protocols()) {
        check(raw, protocol);
    }

    #[test]
    fn mangled_queries_do_no_harm(raw in mangled(), protocol in protocols()) {
        check(raw, protocol);
    }

    #[test]
    fn every_published_name_is_found_in_any_case(
        name in "[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9])?(\\.[a-z0-9_][a-z0-9-]{0,20}){0,3}",
        upper in any::<u64>(),
    ) {
        let names = published(&name, Answer::Vip([10, 0, 1, 9].into()));
        let asked: String = name.chars().enumerate()
            .map(|(at, letter)| if upper >> (at % 64) & 1 == 1 { letter.to_ascii_uppercase() } else { letter })
            .collect();
        let labels = Name::from_labels(asked.split('.').map(str::as_bytes)).unwrap();
        let reply = reply_to(&names, &question(labels.clone(), RecordType::A, None), Protocol::Udp).unwrap();
        prop_assert_eq!(reply.answers.len(), 1);
        prop_assert_eq!(reply.queries[0].name().to_ascii(), labels.to_ascii(), "the case comes back as asked");
    }

    #[test]
    fn replies_fit_the_client_and_say_when_they_are_cut(count in 0u8..=255, payload in proptest::option::of(any::<u16>())) {
        let names = published("web", Answer::Addresses(tasks(count)));
        let message = question(Name::from_ascii("web.").unwrap(), RecordType::A, payload);
        let reply = reply_to(&names, &message, Protocol::Udp).unwrap();
        let limit = usize::from(payload.unwrap_or(512)).clamp(512, 4096);
        let size = reply.to_vec().unwrap().len();
        prop_assert!(size <= limit, "{} octets, limit {}", size, limit);
        prop_assert_eq!(reply.metadata.truncation, reply.answers.len() < usize::from(count));
        prop_assert_eq!(reply.edns.is_some(), payload.is_some());
        // As many as fit: some C libraries use a truncated answer as it is. (hickory compresses 120 names of a message.)
        let room = limit - 12 - 9 - if payload.is_some() { 11 } else { 0 };
        let expected = (room / 16).min(usize::from(count)).min(120);
        prop_assert!(reply.answers.len() + 2 >= expected, "{} of {}", reply.answers.len(), expected);

        let whole = reply_to(&names, &message, Protocol::Tcp).unwrap();
        prop_assert!(!whole.metadata.truncation);
        prop_assert_eq!(whole.answers.len(), usize::from(count));
    }
}

#[test]
fn an_address_is_given_to_who_asks_for_its_family() {
    let six: IpAddr = "fd00::9".parse().unwrap();
    let mut network = NetworkNames::new();
    network.insert("web", Answer::Addresses(vec![[10, 0, 1, 9].into(), six])).unwrap();
    network.insert_reverse(six, "web.1.abc.net").unwrap();
    let names = Names { networks: [("net".into(), Arc::new(network))].into() };
    let answer = |name: &str, kind| {
        let message = question(Name::from_ascii(name).unwrap(), kind, None);
        let reply = reply_to(&names, &message, Protocol::Udp)?;
        let mut texts: Vec<_> = reply.answers.iter().map(|r| r.data.to_string()).collect();
        texts.sort();
        Some(texts.join(" "))
    };
    assert_eq!(answer("web.", RecordType::A).as_deref(), Some("10.0.1.9"));
    assert_eq!(answer("web.", RecordType::AAAA).as_deref(), Some("fd00::9"));
    assert_eq!(answer("web.", RecordType::ANY).as_deref(), Some("10.0.1.9 fd00::9"));
    assert_eq!(answer("web.", RecordType::TXT).as_deref(), Some(""));
    let reverse = format!("9.{}d.f.ip6.arpa.", "0.".repeat(29));
    assert_eq!(answer(&reverse, RecordType::PTR).as_deref(), Some("web.1.abc.net."));
    // Other ways to write the same address are no names of it.
    let grouped = "9000.0.0.0.0.0.0.00df.ip6.arpa.";
    assert_eq!(answer(grouped, RecordType::PTR), None);
}

#[test]
fn a_dot_inside_a_label_makes_it_another_name() {
    let names = published("tasks.web", Answer::Addresses(tasks(3)));
    let odd = Name::from_labels([b"tasks.web".as_slice()]).unwrap();
    assert_eq!(reply_to(&names, &question(odd, RecordType::A, None), Protocol::Udp), None);
}

#[test]
fn what_is_no_plain_query_is_refused() {
    let names = published("web", Answer::Addresses(tasks(1)));
    let web = Name::from_ascii("web.").unwrap();
    let code = |message: &Message| {
        reply_to(&names, message, Protocol::Udp).map(|reply| reply.metadata.response_code)
    };
    let transfer = question(web.clone(), RecordType::AXFR, None);
    assert_eq!(code(&transfer), Some(ResponseCode::Refused));

    let mut update = question(web.clone(), RecordType::A, None);
    update.metadata.op_code = hickory_proto::op::OpCode::Update;
    assert_eq!(code(&update), Some(ResponseCode::NotImp));

    let mut two = question(web.clone(), RecordType::A, None);
    two.add_query(ProtoQuery::query(web.clone(), RecordType::AAAA));
    assert_eq!(code(&two), Some(ResponseCode::FormErr));

    let mut version = question(web.clone(), RecordType::A, Some(1232));
    version.edns.as_mut().unwrap().set_version(1);
    assert_eq!(code(&version), Some(ResponseCode::BADSIG), "16, also called BADVERS");

    let response = question(web, RecordType::A, None).into_response();
    assert_eq!(code(&response), None);
}

#[test]
fn a_header_that_claims_65535_questions_is_cheap_to_refuse() {
    let mut raw = vec![0; 12];
    raw[4..6].copy_from_slice(&[0xff, 0xff]);
    let names = Names::default();
    let verdict = respond(raw, CLIENT, Protocol::Udp, &names, &scope(), 0);
    let Verdict::Reply(reply) = verdict else {
        panic!("no reply");
    };
    assert_eq!(Message::from_vec(&reply).unwrap().metadata.response_code, ResponseCode::FormErr);
}
