//! Encryption at rest: XChaCha20-Poly1305 under a key of the manager's own.
//!
//! [`SealKey`] is small and a crate of its own for its speed: what it inlines is optimised also where the rest is not.
//!
//! What is sealed is `nonce (24, random) | ciphertext | tag (16)`. The place it is kept at is authenticated along, so
//! nothing sealed can take another's place.

#![forbid(unsafe_code)]

use std::{fmt, io, path::Path, sync::Arc};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use zeroize::Zeroizing;

/// Bytes that sealing adds.
pub const OVERHEAD: usize = NONCE + 16;

const NONCE: usize = 24;

/// A key to seal with; clones share it.
#[derive(Clone)]
pub struct SealKey(Arc<Inner>);

struct Inner {
    bytes: Zeroizing<[u8; 32]>,
    cipher: XChaCha20Poly1305,
    /// Where it is kept, for errors.
    origin: String,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.0.origin)
    }
}

/// What was to be opened is not what was sealed at that place with that key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was changed, or sealed with another key")]
pub struct NotSealed;

impl SealKey {
    /// The key `bytes`; `origin` is what errors call the place it is kept at.
    #[must_use]
    pub fn new(bytes: [u8; 32], origin: impl Into<String>) -> Self {
        let cipher = XChaCha20Poly1305::new(&bytes.into());
        Self(Arc::new(Inner { bytes: Zeroizing::new(bytes), cipher, origin: origin.into() }))
    }

    /// The key itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0.bytes
    }

    /// Seals `plain` for `place`.
    #[must_use]
    pub fn seal(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE] = rand::random();
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
        sealed.extend_from_slice(&nonce);
        let payload = Payload { msg: plain, aad: place };
        let text = self.0.cipher.encrypt(&XNonce::from(nonce), payload);
        sealed.extend_from_slice(&text.expect("the cipher takes up to 256 GiB"));
        sealed
    }

    /// Opens what was sealed for `place`.
    ///
    /// # Errors
    /// [`NotSealed`].
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NotSealed> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE>().ok_or(NotSealed)?;
        let payload = Payload { msg: text, aad: place };
        self.0.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| NotSealed)
    }

    /// As [`SealKey::open`], for a part of the file `path`.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`]; the text names the file and where the key is.
    pub fn open_in(&self, path: &Path, place: &[u8], sealed: &[u8]) -> io::Result<Vec<u8>> {
        self.open(place, sealed).map_err(|_| {
            let text = format!(
                "{} cannot be decrypted with the key in {}: it is corrupt, or the key is another one",
                path.display(),
                self.0.origin
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> SealKey {
        SealKey::new([byte; 32], "a test")
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_at_its_place_only(
            plain in proptest::collection::vec(any::<u8>(), 0..2000),
            place in proptest::collection::vec(any::<u8>(), 0..12),
            other in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            let sealed = key(1).seal(&place, &plain);
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(key(1).open(&place, &sealed), Ok(plain));
            prop_assert_eq!(key(2).open(&place, &sealed), Err(NotSealed));
            prop_assert_eq!(key(1).open(&other, &sealed).is_ok(), place == other);
        }

        #[test]
        fn any_flipped_bit_and_any_cut_is_noticed(
            plain in proptest::collection::vec(any::<u8>(), 0..100),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let sealed = key(1).seal(b"place", &plain);
            let at = at.index(sealed.len());
            prop_assert_eq!(key(1).open(b"place", &sealed[..at]), Err(NotSealed));
            let mut changed = sealed;
            changed[at] ^= 1 << bit;
            prop_assert_eq!(key(1).open(b"place", &changed), Err(NotSealed));
        }
    }

    #[test]
    fn the_same_is_never_sealed_alike() {
        assert_ne!(key(1).seal(b"place", b"text"), key(1).seal(b"place", b"text"));
    }
}
