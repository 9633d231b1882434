//! Entries of the connection tracking table as ctnetlink sends them, and the request that deletes one.
//!
//! Sources: `linux/netfilter/nfnetlink_conntrack.h`, `linux/netfilter/nf_conntrack_common.h`,
//! `net/netfilter/nf_conntrack_netlink.c`.

use std::net::Ipv4Addr;

use super::message::{ACK, DUMP, attr, attribute, attributes, nest, push_raw, request};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`.
const GET: u16 = 1 << 8 | 1;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 1 << 8 | 2;
const AF_INET: u8 = 2;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_F_CTA_IP_SRC`, in `net/netfilter/nf_conntrack_netlink.c`.
const FILTER_BY_SOURCE: u32 = 1;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
/// `IPS_DST_NAT`.
const DST_NAT: u32 = 1 << 5;

/// A tracked IPv4 connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the client sent it: the VIP, for a balanced connection.
    pub(crate) destination: Ipv4Addr,
    /// The port there; 0 for protocols without ports.
    pub(crate) port: u16,
    /// Who answers: the backend, for a balanced connection.
    pub(crate) answerer: Ipv4Addr,
    /// The port there; 0 for protocols without ports.
    pub(crate) answerer_port: u16,
    /// The IP protocol (6 TCP, 17 UDP).
    pub(crate) protocol: u8,
    /// Its destination was rewritten.
    pub(crate) dnat: bool,
    /// The attributes that name this very entry, as received: see [`Entry::delete_request`].
    key: Vec<u8>,
}

impl Entry {
    /// Reads an entry from a message's attributes; `None` for what is not IPv4 or lacks a part.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let orig = attribute(payload, TUPLE_ORIG)?;
        let reply = attribute(payload, TUPLE_REPLY)?;
        let status = u32::from_be_bytes(attribute(payload, STATUS)?.try_into().ok()?);
        let mut key = Vec::new();
        for (_, _, whole) in
            attributes(payload).filter(|(kind, _, _)| [TUPLE_REPLY, ID, ZONE].contains(kind))
        {
            push_raw(&mut key, whole);
        }
        Some(Self {
            destination: address(orig, IP_V4_DST)?,
            port: port(orig, PROTO_DST_PORT),
            answerer: address(reply, IP_V4_SRC)?,
            answerer_port: port(reply, PROTO_SRC_PORT),
            protocol: *attribute(attribute(orig, TUPLE_PROTO)?, PROTO_NUM)?.first()?,
            dnat: status & DST_NAT != 0,
            key,
        })
    }

    /// It goes elsewhere than the client asked for. IPVS rewrites destinations without saying so in the status.
    pub(crate) fn balanced_elsewhere(&self) -> bool {
        self.dnat || self.answerer != self.destination
    }

    /// A connection to port 80 that a balancer made, as the tests of its judge need it.
    #[cfg(test)]
    pub(crate) fn balanced(destination: Ipv4Addr, answerer: Ipv4Addr, protocol: u8) -> Self {
        let (port, answerer_port) = (80, 80);
        let key = Vec::new();
        Self { destination, port, answerer, answerer_port, protocol, dnat: true, key }
    }

    /// Asks to delete this entry. The kernel answers ENOENT if it is gone, or if another took its place. The name is the
    /// reply tuple and the id. The id is a hash of the original tuple and of the entry's place in memory (`nf_ct_get_id`):
    /// a client that opens its next connection from the same port gets both again, with another answerer.
    pub(super) fn delete_request(&self, sequence: u32) -> Vec<u8> {
        request(DELETE, ACK, sequence, AF_INET, &self.key)
    }
}

/// Asks for the namespace's IPv4 entries: all, or those that a certain address answers. Kernels before 5.8 do not know
/// the filter and send all.
pub(super) fn dump_request(sequence: u32, answerer: Option<Ipv4Addr>) -> Vec<u8> {
    let filter = answerer.map(|addr| {
        let mut attributes = nest(TUPLE_REPLY, &nest(TUPLE_IP, &attr(IP_V4_SRC, &addr.octets())));
        attributes.extend(nest(FILTER, &attr(FILTER_REPLY_FLAGS, &FILTER_BY_SOURCE.to_ne_bytes())));
        attributes
    });
    request(GET, DUMP, sequence, AF_INET, &filter.unwrap_or_default())
}

fn address(tuple: &[u8], which: u16) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = attribute(attribute(tuple, TUPLE_IP)?, which)?.try_into().ok()?;
    Some(octets.into())
}

fn port(tuple: &[u8], which: u16) -> u16 {
    let found = attribute(tuple, TUPLE_PROTO).and_then(|proto| attribute(proto, which));
    found.and_then(|port| port.try_into().ok()).map_or(0, u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::{super::message::replies, *};
    use crate::netlink::message::Reply;

    fn tuple(kind: u16, src: [u8; 4], dst: [u8; 4]) -> Vec<u8> {
        let ip = nest(TUPLE_IP, &[attr(IP_V4_SRC, &src), attr(IP_V4_DST, &dst)].concat());
        let ports = [attr(PROTO_SRC_PORT, &[0x9c, 0x40]), attr(PROTO_DST_PORT, &[0, 53])].concat();
        let proto = nest(TUPLE_PROTO, &[attr(PROTO_NUM, &[17]), ports].concat());
        nest(kind, &[ip, proto].concat())
    }

    fn message() -> Vec<u8> {
        let orig = tuple(TUPLE_ORIG, [10, 0, 1, 11], [10, 0, 1, 2]);
        let reply = tuple(TUPLE_REPLY, [10, 0, 1, 13], [10, 0, 1, 11]);
        [
            orig,
            reply,
            attr(STATUS, &[0, 0, 1, 0xae]),
            attr(7, &[0, 0, 0, 30]),
            attr(ID, &[1, 2, 3, 4]),
        ]
        .concat()
    }

    #[test]
    fn a_balanced_connection_is_read() {
        let entry = Entry::parse(&message()).expect("an IPv4 entry");
        assert_eq!(entry.destination, Ipv4Addr::new(10, 0, 1, 2));
        assert_eq!(entry.answerer, Ipv4Addr::new(10, 0, 1, 13));
        assert_eq!((entry.port, entry.answerer_port), (53, 40_000));
        assert_eq!(entry.protocol, 17);
        assert!(entry.dnat);
    }

    #[test]
    fn it_is_deleted_by_its_reply_tuple_and_id_alone() {
        let bytes = Entry::parse(&message()).expect("an IPv4 entry").delete_request(3);
        let expected =
            [tuple(TUPLE_REPLY, [10, 0, 1, 13], [10, 0, 1, 11]), attr(ID, &[1, 2, 3, 4])].concat();
        assert_eq!(replies(&bytes).unwrap(), [(3, Reply::Payload(&expected))]);
    }

    /// The bytes are what `conntrack -L --reply-src 10.0.1.13` means in `ctnetlink_alloc_filter`'s terms.
    #[test]
    fn a_dump_can_be_narrowed_to_an_answerer() {
        let bytes = dump_request(5, Some(Ipv4Addr::new(10, 0, 1, 13)));
        #[rustfmt::skip]
        let expected = [
            16, 0, 2, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 1, 13,
            12, 0, 25, 0x80, 8, 0, 2, 0, 1, 0, 0, 0,
        ];
        assert_eq!(replies(&bytes).unwrap(), [(5, Reply::Payload(&expected))]);
        assert_eq!(replies(&dump_request(6, None)).unwrap(), [(6, Reply::Payload(&[]))]);
    }

    #[test]
    fn a_cut_message_is_no_entry() {
        let whole = message();
        let status = 2 * tuple(TUPLE_ORIG, [0; 4], [0; 4]).len();
        let without_status = [&whole[..status], &whole[status + 8..]].concat();
        assert!(Entry::parse(&without_status).is_none());
        for length in 0..status + 8 {
            assert!(Entry::parse(&whole[..length]).is_none(), "{length} bytes");
        }
    }
}
