//! What every object carries: its version and when it was made and changed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// User labels: key to value, in key order.
pub type Labels = BTreeMap<String, String>;

/// The revision (Raft log index) that last changed an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// The Raft log index.
    pub index: u64,
}

/// Version and times of an object; flattened into it, as Docker prints it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Meta {
    /// The revision that last changed the object.
    pub version: Version,
    /// When the object was created, by the leader's clock.
    pub created_at: Timestamp,
    /// When the object was last changed, by the leader's clock.
    pub updated_at: Timestamp,
}

impl Meta {
    /// The meta data of an object created at `revision`.
    pub fn created(revision: u64, now: Timestamp) -> Meta {
        Meta { version: Version { index: revision }, created_at: now, updated_at: now }
    }

    /// Records a change at `revision`.
    pub fn touch(&mut self, revision: u64, now: Timestamp) {
        self.version.index = revision;
        self.updated_at = now;
    }
}

/// A moment: nanoseconds since the Unix epoch. RFC 3339 in JSON, a number in binary encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment `later` after this one.
    pub fn plus(self, later: Duration) -> Timestamp {
        let nanos = i64::try_from(later.as_nanos()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(nanos))
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    fn to_offset(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0)).ok()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_offset().and_then(|t| t.format(&Rfc3339).ok()).ok_or(fmt::Error)?;
        f.pad(&text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_i64(self.0);
        }
        let moment = self.to_offset().ok_or_else(|| S::Error::custom("time out of range"))?;
        serializer.serialize_str(&moment.format(&Rfc3339).map_err(S::Error::custom)?)
    }
}

/// Takes either form, whatever the format says of itself: serde's `flatten` loses that.
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time or nanoseconds since the epoch")
            }

            fn visit_i64<E: de::Error>(self, nanos: i64) -> Result<Timestamp, E> {
                Ok(Timestamp(nanos))
            }

            fn visit_u64<E: de::Error>(self, nanos: u64) -> Result<Timestamp, E> {
                i64::try_from(nanos).map(Timestamp).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(E::custom)?;
                i64::try_from(moment.unix_timestamp_nanos()).map(Timestamp).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::{Meta, Timestamp};
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder {
        #[serde(flatten)]
        meta: Meta,
    }

    proptest! {
        #[test]
        fn timestamps_survive_json(nanos in 0i64..4_000_000_000_000_000_000) {
            let json = serde_json::to_string(&Timestamp(nanos)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), Timestamp(nanos));
        }

        #[test]
        fn flattened_meta_survives_the_binary_codec(index: u64, nanos in 0i64..i64::MAX) {
            let object = Holder { meta: Meta::created(index, Timestamp(nanos)) };
            let decoded: Holder = crate::codec::decode(&crate::codec::encode(&object)).unwrap();
            prop_assert_eq!(decoded, object);
        }
    }
}
