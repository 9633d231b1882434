//! Object ids: 25 base-36 characters, as Docker's. Each kind of object has a type of its own, so that one is never
//! taken for another.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

const LENGTH: usize = 25;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Writes 128 bits as 25 digits.
fn digits(mut bits: u128) -> Arc<str> {
    let mut text = [b'0'; LENGTH];
    for digit in text.iter_mut().rev() {
        *digit = DIGITS[(bits % 36) as usize];
        bits /= 36;
    }
    String::from_utf8_lossy(&text).into()
}

/// An id of any kind of object.
pub trait Id: Sized {
    /// Makes an id of 128 random bits, which the caller supplies: this crate has no random numbers.
    fn from_random(bits: u128) -> Self;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 25 characters of `[0-9a-z]`, about 129 bits. Cheap to clone. Ids are never reused.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 characters, as lists show ids.
            pub fn short(&self) -> &str {
                self.0.get(..12).unwrap_or(&self.0)
            }
        }

        impl Id for $name {
            fn from_random(bits: u128) -> $name {
                $name(digits(bits))
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> $name {
                $name(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> $name {
                $name(text.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// The id of a [`crate::Node`].
    NodeId
}
id! {
    /// The id of a [`crate::Service`].
    ServiceId
}
id! {
    /// The id of a [`crate::Task`].
    TaskId
}
id! {
    /// The id of a [`crate::Network`].
    NetworkId
}
id! {
    /// The id of a [`crate::Cluster`].
    ClusterId
}

#[cfg(test)]
mod tests {
    use super::{Id, NodeId};
    use proptest::prelude::*;

    #[test]
    fn the_largest_value_needs_all_digits() {
        assert_eq!(NodeId::from_random(u128::MAX).as_str(), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!(NodeId::from_random(35).as_str(), "000000000000000000000000z");
    }

    proptest! {
        #[test]
        fn ids_are_25_characters_and_distinct(a: u128, b: u128) {
            let (x, y) = (NodeId::from_random(a), NodeId::from_random(b));
            prop_assert_eq!(x.as_str().len(), 25);
            prop_assert_eq!(a == b, x == y);
        }
    }
}
