//! Object ids: 25 base-36 characters, as Docker's.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

const LENGTH: usize = 25;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The id of an object: 25 characters of `[0-9a-z]`, about 129 bits.
///
/// Cheap to clone. Ids are never reused.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(Arc<str>);

/// The id of a [`crate::Node`].
pub type NodeId = Id;
/// The id of a [`crate::Service`].
pub type ServiceId = Id;
/// The id of a [`crate::Task`].
pub type TaskId = Id;
/// The id of a [`crate::Network`].
pub type NetworkId = Id;
/// The id of a [`crate::Cluster`].
pub type ClusterId = Id;

impl Id {
    /// Makes an id of 128 random bits, which the caller supplies: this crate has no random numbers.
    pub fn from_random(mut bits: u128) -> Id {
        let mut text = [b'0'; LENGTH];
        for digit in text.iter_mut().rev() {
            *digit = DIGITS[(bits % 36) as usize];
            bits /= 36;
        }
        Id(String::from_utf8_lossy(&text).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 characters, as lists show ids of networks and tasks.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }

    /// Whether this is the empty id: an object that is not there (a task without a node, say).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Id {
    fn default() -> Id {
        Id("".into())
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Id {
        Id(text.into())
    }
}

impl From<String> for Id {
    fn from(text: String) -> Id {
        Id(text.into())
    }
}

impl Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Id;
    use proptest::prelude::*;

    #[test]
    fn the_largest_value_needs_all_digits() {
        assert_eq!(Id::from_random(u128::MAX).as_str(), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!(Id::from_random(35).as_str(), "000000000000000000000000z");
    }

    proptest! {
        #[test]
        fn ids_are_25_characters_and_distinct(a: u128, b: u128) {
            let (x, y) = (Id::from_random(a), Id::from_random(b));
            prop_assert_eq!(x.as_str().len(), 25);
            prop_assert_eq!(a == b, x == y);
        }
    }
}
