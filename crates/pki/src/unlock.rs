//! Unlock keys, in Docker Swarm's form: `SWMKEY-1-<base64 of 32 bytes>`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

const PREFIX: &str = "SWMKEY-1-";

/// What unlocks the managers of a swarm after a restart; `Display` and `FromStr` are its text form,
/// `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey(Zeroizing<[u8; 32]>);

impl UnlockKey {
    /// A key from bytes that must come from a cryptographic random generator.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(&self.0[..]))
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

/// A text is not an unlock key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an unlock key: want SWMKEY-1-<43 characters>")]
pub struct NoUnlockKey;

impl FromStr for UnlockKey {
    type Err = NoUnlockKey;

    fn from_str(text: &str) -> Result<Self, NoUnlockKey> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(NoUnlockKey)?;
        let bytes = Zeroizing::new(STANDARD_NO_PAD.decode(digits).map_err(|_| NoUnlockKey)?);
        let bytes: [u8; 32] = bytes[..].try_into().map_err(|_| NoUnlockKey)?;
        Ok(Self::from_random(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_round_trip_and_anything_else_is_refused() {
        let key = UnlockKey::from_random(std::array::from_fn(|at| at as u8 * 7));
        let text = key.to_string();
        assert!(text.starts_with("SWMKEY-1-") && text.len() == 9 + 43, "{text}");
        assert_eq!(format!(" {text}\n").parse(), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "UnlockKey(..)");
        let docker = "SWMKEY-1-WuYH/IX284+lRcXuoVf38viIDK3HJEKY13MIHX+tTt8";
        assert_eq!(docker.parse::<UnlockKey>().unwrap().to_string(), docker);
        for bad in ["", "SWMKEY-1-", &text[9..], &text[..51], &format!("{text}A"), "SWMKEY-2-x"] {
            assert_eq!(bad.parse::<UnlockKey>(), Err(NoUnlockKey), "{bad}");
        }
    }
}
