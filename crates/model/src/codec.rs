//! The binary encoding of what goes into the Raft log, snapshots and worker sessions: MessagePack with
//! field names, so that a newer version's fields are skipped and an older one's absence is a default.

use serde::{Serialize, de::DeserializeOwned};

/// Encoded bytes that are not what they should be: another version's, or damaged.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {what}: {reason}")]
pub struct DecodeError {
    what: &'static str,
    reason: String,
}

/// Encodes a value of this crate's or the state's types.
///
/// # Panics
/// Never for those types: encoding into memory fails only for maps of unknown length, which none has.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("plain data encodes into memory")
}

/// Decodes what [`encode`] made.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    rmp_serde::from_slice(bytes)
        .map_err(|e| DecodeError { what: std::any::type_name::<T>(), reason: e.to_string() })
}
