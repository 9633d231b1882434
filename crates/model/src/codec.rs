//! The binary encoding of what goes into the Raft log, snapshots and worker sessions: MessagePack with
//! field names, so that the absence of a newer field is a default. What is unknown is skipped between nodes, and never
//! in what is replicated.

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

/// Decodes what [`encode`] made, all of it: a field that is not known here, or bytes that are left over, are an error.
/// Replicas that skip them would differ from those that do not.
pub fn decode_whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let failed = |reason: String| DecodeError { what: std::any::type_name::<T>(), reason };
    let mut rest = bytes;
    let mut unknown = None;
    let value = {
        let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
        let mut note = |path: serde_ignored::Path<'_>| {
            unknown.get_or_insert_with(|| path.to_string());
        };
        T::deserialize(serde_ignored::Deserializer::new(&mut deserializer, &mut note))
    };
    let value = value.map_err(|e| failed(e.to_string()))?;
    match (unknown, rest.len()) {
        (None, 0) => Ok(value),
        (Some(path), _) => Err(failed(format!("{path} is not known here"))),
        (None, left) => Err(failed(format!("{left} bytes are left over"))),
    }
}

/// Decodes what [`encode`] made, and skips fields that are not known here.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    rmp_serde::from_slice(bytes)
        .map_err(|e| DecodeError { what: std::any::type_name::<T>(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Newer {
        known: u32,
        new: Option<u32>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind<T> {
        Variant { inner: Vec<T>, addr: std::net::IpAddr },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Older {
        known: u32,
    }

    #[test]
    fn nothing_that_is_replicated_is_skipped() {
        let addr = [192, 0, 2, 1].into();
        let newer = Kind::Variant { inner: vec![Newer { known: 1, new: Some(2) }], addr };
        let older = Kind::Variant { inner: vec![Older { known: 1 }], addr };
        let bytes = encode(&newer);
        assert_eq!(decode_whole::<Kind<Newer>>(&bytes).unwrap(), newer);
        assert_eq!(decode::<Kind<Older>>(&bytes).unwrap(), older, "between nodes it is");
        let error = decode_whole::<Kind<Older>>(&bytes).unwrap_err().to_string();
        assert!(error.contains("new is not known here"), "{error}");

        let written = encode(&older);
        assert_eq!(decode_whole::<Kind<Older>>(&written).unwrap(), older);
        assert!(decode_whole::<Kind<Newer>>(&written).is_ok(), "absent is a default");
        let error = decode_whole::<Kind<Older>>(&[&*written, &[0]].concat()).unwrap_err();
        assert!(error.to_string().contains("1 bytes are left over"), "{error}");
        assert!(decode_whole::<Kind<Older>>(&written[1..]).is_err());
    }
}
