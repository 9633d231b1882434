//! Checksummed encoding of log entries and markers, on disk and on the wire alike.
//!
//! A record is `crc32 (4, LE) | kind (1) | body`; the CRC-32 (IEEE) covers kind and body. Entries have
//! `term | node id | index` (8 each, LE) at the start of the body, then the command or the membership
//! (MessagePack). Kinds are never reused: what is persisted only grows.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::types::{Command, Entry, LogId, Membership, Payload, Vote, log_id};

const BLANK: u8 = 1;
const COMMAND: u8 = 2;
const MEMBERSHIP: u8 = 3;
const VOTE: u8 = 4;
const LOG_ID: u8 = 5;

const CRC: usize = 4;
const LOG_ID_LEN: usize = 24;

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Fewer bytes than a record of this kind has.
    #[error("{len} bytes are too few")]
    Short {
        /// What was found.
        len: usize,
    },
    /// The bytes are not those that were written.
    #[error("checksum is {found:08x}, expected {expected:08x}")]
    Checksum {
        /// Of the bytes found.
        found: u32,
        /// As written beside them.
        expected: u32,
    },
    /// Written by a newer version, or something else altogether.
    #[error("unexpected kind {0}")]
    Kind(u8),
    /// The membership in an entry is not readable.
    #[error("membership is not readable: {0}")]
    Membership(String),
}

/// Encodes a log entry.
pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let membership;
    let (kind, body): (u8, &[u8]) = match &entry.payload {
        Payload::Blank => (BLANK, &[]),
        Payload::Normal(command) => (COMMAND, &command.0),
        Payload::Membership(value) => {
            membership =
                rmp_serde::to_vec(value).expect("a membership of numbers and strings encodes");
            (MEMBERSHIP, &membership)
        }
    };
    let mut buf = start(kind, LOG_ID_LEN + body.len());
    put_log_id(&mut buf, &entry.log_id);
    buf.put_slice(body);
    finish(buf)
}

/// Decodes a log entry; its command shares the memory of `record`.
pub(crate) fn decode_entry(record: Bytes) -> Result<Entry, RecordError> {
    let (kind, mut body) = open(record)?;
    if body.len() < LOG_ID_LEN {
        return Err(RecordError::Short { len: body.len() });
    }
    let log_id = get_log_id(&mut body);
    let payload = match kind {
        BLANK => Payload::Blank,
        COMMAND => Payload::Normal(Command(body)),
        MEMBERSHIP => {
            let membership: Membership = rmp_serde::from_slice(&body)
                .map_err(|error| RecordError::Membership(error.to_string()))?;
            Payload::Membership(membership)
        }
        other => return Err(RecordError::Kind(other)),
    };
    Ok(Entry { log_id, payload })
}

/// Encodes a vote.
pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut buf = start(VOTE, 17);
    buf.put_u64_le(vote.leader_id.term);
    buf.put_u64_le(vote.leader_id.node_id);
    buf.put_u8(vote.committed.into());
    finish(buf)
}

/// Decodes a vote.
pub(crate) fn decode_vote(record: Bytes) -> Result<Vote, RecordError> {
    let mut body = expect(record, VOTE, 17)?;
    let (term, node_id, committed) = (body.get_u64_le(), body.get_u64_le(), body.get_u8() != 0);
    Ok(if committed { Vote::new_committed(term, node_id) } else { Vote::new(term, node_id) })
}

/// Encodes a log id, as a marker.
pub(crate) fn encode_log_id(log_id: &LogId) -> Bytes {
    let mut buf = start(LOG_ID, LOG_ID_LEN);
    put_log_id(&mut buf, log_id);
    finish(buf)
}

/// Decodes a log id.
pub(crate) fn decode_log_id(record: Bytes) -> Result<LogId, RecordError> {
    Ok(get_log_id(&mut expect(record, LOG_ID, LOG_ID_LEN)?))
}

fn start(kind: u8, body: usize) -> BytesMut {
    let mut buf = BytesMut::with_capacity(CRC + 1 + body);
    buf.put_u32_le(0);
    buf.put_u8(kind);
    buf
}

fn finish(mut buf: BytesMut) -> Bytes {
    let crc = crc32fast::hash(&buf[CRC..]);
    buf[..CRC].copy_from_slice(&crc.to_le_bytes());
    buf.freeze()
}

fn open(mut record: Bytes) -> Result<(u8, Bytes), RecordError> {
    if record.len() < CRC + 1 {
        return Err(RecordError::Short { len: record.len() });
    }
    let expected = record.get_u32_le();
    let found = crc32fast::hash(&record);
    if found != expected {
        return Err(RecordError::Checksum { found, expected });
    }
    let kind = record.get_u8();
    Ok((kind, record))
}

fn expect(record: Bytes, kind: u8, len: usize) -> Result<Bytes, RecordError> {
    let (found, body) = open(record)?;
    if found != kind {
        return Err(RecordError::Kind(found));
    }
    if body.len() != len {
        return Err(RecordError::Short { len: body.len() });
    }
    Ok(body)
}

fn put_log_id(buf: &mut BytesMut, log_id: &LogId) {
    buf.put_u64_le(log_id.leader_id.term);
    buf.put_u64_le(log_id.leader_id.node_id);
    buf.put_u64_le(log_id.index);
}

fn get_log_id(body: &mut Bytes) -> LogId {
    let (term, node_id, index) = (body.get_u64_le(), body.get_u64_le(), body.get_u64_le());
    log_id(term, node_id, index)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::BasicNode;
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let payload = prop_oneof![
            Just(Payload::Blank),
            proptest::collection::vec(any::<u8>(), 0..200)
                .prop_map(|b| Payload::Normal(Command(b.into()))),
            proptest::collection::btree_map(any::<u64>(), "[a-z0-9:.]{0,20}", 1..5).prop_map(
                |nodes| {
                    let ids: BTreeSet<u64> = nodes.keys().copied().collect();
                    let nodes: BTreeMap<u64, BasicNode> =
                        nodes.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
                    Payload::Membership(Membership::new(vec![ids], nodes).unwrap())
                }
            ),
        ];
        (any::<u64>(), any::<u64>(), any::<u64>(), payload).prop_map(
            |(term, node, index, payload)| Entry { log_id: log_id(term, node, index), payload },
        )
    }

    proptest! {
        #[test]
        fn an_entry_survives_the_round_trip(entry in entry()) {
            prop_assert_eq!(decode_entry(encode_entry(&entry)).unwrap(), entry);
        }

        #[test]
        fn any_flipped_bit_is_noticed(entry in entry(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = encode_entry(&entry).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode_entry(bytes.into()).is_err());
        }

        #[test]
        fn a_torn_record_is_noticed(entry in entry(), at in any::<prop::sample::Index>()) {
            let bytes = encode_entry(&entry);
            prop_assert!(decode_entry(bytes.slice(..at.index(bytes.len()))).is_err());
        }

        #[test]
        fn a_vote_survives_the_round_trip(term in any::<u64>(), node in any::<u64>(), committed in any::<bool>()) {
            let vote = if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) };
            prop_assert_eq!(decode_vote(encode_vote(&vote)).unwrap(), vote);
        }
    }

    /// Of the first version, which ordered candidates in another way.
    #[test]
    fn votes_and_log_ids_ever_written_are_still_read() {
        let record = |text: &str| -> Bytes {
            let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        };
        let vote = record("5d4a2b22040400000000000000050000000000000001");
        assert_eq!(decode_vote(vote).unwrap(), Vote::new_committed(4, 5));
        let id = record("b49ec96205040000000000000005000000000000000600000000000000");
        assert_eq!(decode_log_id(id).unwrap(), log_id(4, 5, 6));
    }

    #[test]
    fn one_kind_is_not_taken_for_another() {
        let vote = encode_vote(&Vote::new(1, 2));
        assert_eq!(decode_log_id(vote), Err(RecordError::Kind(VOTE)));
    }
}
