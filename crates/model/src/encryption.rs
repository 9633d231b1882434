//! Encrypted networks: what a node's kernel can do, and the key ring that the keys between each two
//! nodes are derived from.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The driver option that encrypts what a network's tasks send each other from node to node.
pub const ENCRYPTED_OPTION: &str = "encrypted";
/// The one cipher, as the kernel names it (RFC 4106).
pub const ESP_CIPHER: &str = "rfc4106(gcm(aes))";

/// Whether a node can be part of encrypted networks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeEncryption {
    /// The cipher, as the kernel names it; empty if it cannot.
    pub cipher: String,
    /// Why it cannot.
    pub reason: String,
    /// Differs whenever the kernel lost its keys, and with them the count of the packets sent: the same
    /// keys must not be used again.
    pub incarnation: u64,
}

impl NodeEncryption {
    /// Whether its kernel has IPsec ESP.
    pub fn is_capable(&self) -> bool {
        !self.cipher.is_empty()
    }
}

/// What the keys of one generation are derived from: 32 random bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSecret(pub [u8; 32]);

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkSecret(..)")
    }
}

/// One generation of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkKey {
    /// Counts from 1; the next one is greater by one.
    pub generation: u32,
    /// What the keys are derived from.
    pub secret: NetworkSecret,
    /// When it was made, by the leader's clock.
    pub created_at: Timestamp,
    /// The revision that added it: a node at that revision accepts it.
    pub revision: u64,
}

/// The generations that nodes accept, and the one they send with. A rotation adds one, has it sent with
/// once every node accepts it, and removes the former once no node sends with that any more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct KeyRing {
    /// By generation; empty until there is an encrypted network.
    pub keys: Vec<NetworkKey>,
    /// The generation that nodes send with.
    pub sending: u32,
    /// Since which revision they do.
    pub sending_revision: u64,
    /// Since when they do, by the leader's clock.
    pub sending_since: Timestamp,
    /// A user asked for a new generation.
    pub rotation_requested: bool,
}

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// There is one generation.
    Idle,
    /// This generation is to be sent with once every node is at this revision.
    Announced(u32, u64),
    /// This former generation is to be removed once every node is at this revision.
    Retiring(u32, u64),
}

impl KeyRing {
    /// The generation added last.
    pub fn newest(&self) -> Option<&NetworkKey> {
        self.keys.last()
    }

    /// The key of a generation.
    pub fn key(&self, generation: u32) -> Option<&NetworkKey> {
        self.keys.iter().find(|key| key.generation == generation)
    }

    /// How far a rotation is.
    pub fn rotation(&self) -> Rotation {
        match (self.keys.first(), self.keys.last()) {
            (_, Some(newest)) if newest.generation != self.sending => {
                Rotation::Announced(newest.generation, newest.revision)
            }
            (Some(oldest), _) if oldest.generation != self.sending => {
                Rotation::Retiring(oldest.generation, self.sending_revision)
            }
            _ => Rotation::Idle,
        }
    }
}

/// The key of one security association: 16 bytes for AES, 4 bytes of salt (RFC 4106).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EspKey(pub [u8; 20]);

impl fmt::Debug for EspKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EspKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_ever_printed() {
        let key = NetworkKey {
            generation: 1,
            secret: NetworkSecret([0xab; 32]),
            created_at: Timestamp(0),
            revision: 1,
        };
        let ring = KeyRing { keys: vec![key], sending: 1, ..KeyRing::default() };
        for text in [format!("{ring:?}"), format!("{:?}", EspKey([0xab; 20]))] {
            assert!(!text.contains("171") && !text.to_lowercase().contains("ab, "), "{text}");
        }
    }

    #[test]
    fn a_rotation_has_three_steps() {
        let key = |generation: u32| NetworkKey {
            generation,
            secret: NetworkSecret([0; 32]),
            created_at: Timestamp(0),
            revision: u64::from(generation) * 10,
        };
        let ring = |generations: &[u32], sending| KeyRing {
            keys: generations.iter().map(|generation| key(*generation)).collect(),
            sending,
            sending_revision: 25,
            ..KeyRing::default()
        };
        assert_eq!(KeyRing::default().rotation(), Rotation::Idle);
        assert_eq!(ring(&[1], 1).rotation(), Rotation::Idle);
        assert_eq!(ring(&[1, 2], 1).rotation(), Rotation::Announced(2, 20));
        assert_eq!(ring(&[1, 2], 2).rotation(), Rotation::Retiring(1, 25));
        assert_eq!(ring(&[2], 2).rotation(), Rotation::Idle);
    }
}
