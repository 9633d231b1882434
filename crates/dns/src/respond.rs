//! Decides, without waiting for anything, what becomes of a query: an answer from the snapshot, an error, or the
//! verdict that the node's resolvers must be asked.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::net::xfer::Protocol;
use rand::seq::SliceRandom;

use crate::names::{Answer, Names};
use crate::query::{Query, Rejected};
use crate::scope::Scope;

#[cfg(test)]
mod tests;

/// What becomes of the bytes of a client.
pub(crate) enum Verdict {
    /// This reply is sent.
    Reply(Vec<u8>),
    /// The node's resolvers are asked.
    Relay(Box<Query>),
    /// Nothing is sent.
    Ignore,
}

impl From<Option<Vec<u8>>> for Verdict {
    fn from(reply: Option<Vec<u8>>) -> Self {
        reply.map_or(Self::Ignore, Self::Reply)
    }
}

/// Decides about the message `raw` that `source`, a client with `scope`, sent. `ttl` is in seconds.
pub(crate) fn respond(
    raw: Vec<u8>,
    source: SocketAddr,
    protocol: Protocol,
    names: &Names,
    scope: &Scope,
    ttl: u32,
) -> Verdict {
    let query = match Query::parse(raw, source, protocol) {
        Ok(query) => query,
        Err(Rejected::Silently) => return Verdict::Ignore,
        Err(Rejected::With(reply)) => return Verdict::Reply(reply),
    };
    if query.edns_version() > 0 {
        return query.status(ResponseCode::BADVERS).into();
    }
    let kind = query.question().query_type();
    if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
        return query.status(ResponseCode::Refused).into();
    }
    match local_records(&query, names, scope, ttl) {
        Some(records) => query.answer(records).into(),
        None => Verdict::Relay(Box::new(query)),
    }
}

/// The reply to a name that is not known here when nobody else is to be asked. Nobody outside knows single-label names,
/// so they do not exist; of others this server cannot tell.
pub(crate) fn without_resolver(query: &Query) -> Option<Vec<u8>> {
    query.status(match query.name().num_labels() {
        0 | 1 => ResponseCode::NXDomain,
        _ => ResponseCode::ServFail,
    })
}

/// The records of a name that exists in the client's networks, none if it has no records of that type (NODATA); `None`
/// if the name does not exist there.
fn local_records(query: &Query, names: &Names, scope: &Scope, ttl: u32) -> Option<Vec<Record>> {
    if !matches!(query.question().query_class(), DNSClass::IN | DNSClass::ANY) {
        return None;
    }
    let kind = query.question().query_type();
    let name = query.name();
    let key = lookup_key(name)?;
    if let Some(address) = reverse_address(&key) {
        let owner = names.find_reverse(&scope.networks, address)?;
        let wanted = matches!(kind, RecordType::PTR | RecordType::ANY);
        let data = wanted.then(|| RData::PTR(PTR(owner.clone())));
        return Some(records(name, ttl, data));
    }
    let answer = names.find(&scope.networks, &key)?;
    let addresses = answer.addresses().iter().map(|&address| RData::from(address));
    let wanted = |data: &RData| kind == RecordType::ANY || kind == data.record_type();
    let mut records = records(name, ttl, addresses.filter(wanted));
    if matches!(answer, Answer::Addresses(_)) {
        records.shuffle(&mut rand::rng());
    }
    Some(records)
}

fn records(name: &Name, ttl: u32, data: impl IntoIterator<Item = RData>) -> Vec<Record> {
    data.into_iter().map(|data| Record::from_rdata(name.clone(), ttl, data)).collect()
}

/// The name as the snapshot spells it. `None` if no published name can be spelled so: a dot inside a label would
/// otherwise make two different names one.
fn lookup_key(name: &Name) -> Option<String> {
    let mut key = String::with_capacity(name.len());
    for label in name.iter() {
        if !label.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'.') {
            return None;
        }
        if !key.is_empty() {
            key.push('.');
        }
        key.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    Some(key)
}

/// 10.0.1.2 for `2.1.0.10.in-addr.arpa` (RFC 1035 section 3.5); an IPv6 address for its 32 digits, the last one first,
/// and `.ip6.arpa` (RFC 3596 section 2.5).
fn reverse_address(key: &str) -> Option<IpAddr> {
    if let Some(reversed) = key.strip_suffix(".in-addr.arpa") {
        let octets: Vec<&str> = reversed.rsplit('.').collect();
        return octets.join(".").parse().ok().map(IpAddr::V4);
    }
    let digits: Vec<&str> = key.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    let is_digit = |part: &&str| matches!(part.as_bytes(), [one] if one.is_ascii_hexdigit());
    if digits.len() != 32 || !digits.iter().all(is_digit) {
        return None;
    }
    let bits = u128::from_str_radix(&digits.concat(), 16).ok()?;
    Some(Ipv6Addr::from(bits).into())
}
