//! Join tokens, in Docker Swarm's form: `SWMTKN-1-<CA digest>-<secret>`.
//!
//! The digest (SHA-256 of the root certificate's DER, 50 base 36 digits) lets a joining node
//! recognise the cluster before it sends anything; the secret (16 random bytes, 25 digits) proves
//! to the cluster that the node may join, and in which role.

use crate::base36::{self, Base36Error};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;

const DIGEST_DIGITS: usize = 50;
const SECRET_DIGITS: usize = 25;

/// SHA-256 of a root certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CaDigest(pub [u8; 32]);

impl fmt::Display for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The secret half of a join token. `==` takes the same time whatever the secrets; `Debug` hides
/// it.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinSecret([u8; 16]);

impl JoinSecret {
    /// A secret from bytes that must come from a cryptographic random generator.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes given to [`JoinSecret::from_random`].
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for JoinSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for JoinSecret {}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(..)")
    }
}

/// A join token; `Display` and `FromStr` are its text form, secret included, `Debug` hides the
/// secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The digest of the cluster's root certificate.
    pub ca_digest: CaDigest,
    /// What proves the right to join.
    pub secret: JoinSecret,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = base36::encode(&self.ca_digest.0, DIGEST_DIGITS);
        let secret = base36::encode(&self.secret.0, SECRET_DIGITS);
        write!(f, "SWMTKN-1-{digest}-{secret}")
    }
}

/// Why a text is not a join token. The texts never repeat the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else altogether.
    #[error("not a join token: want SWMTKN-1-<CA digest>-<secret>")]
    NotAToken,
    /// A token of a form this version does not know.
    #[error("unsupported join token version {0:?}: want SWMTKN-1-...")]
    Version(String),
    /// The CA digest or the secret is missing, cut off, or followed by something.
    #[error("join token is incomplete or damaged: its {part} has {found} characters, not {want}")]
    Length {
        /// `CA digest` or `secret`.
        part: &'static str,
        /// How many there should be.
        want: usize,
        /// How many there are.
        found: usize,
    },
    /// A character other than 0-9 and a-z.
    #[error("invalid character {character:?} in the join token's {part}")]
    BadCharacter {
        /// `CA digest` or `secret`.
        part: &'static str,
        /// The character.
        character: char,
    },
    /// Digits that stand for more than the digest or secret can be.
    #[error("join token is damaged: its {part} is out of range")]
    OutOfRange {
        /// `CA digest` or `secret`.
        part: &'static str,
    },
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let rest = text.trim().strip_prefix("SWMTKN-").ok_or(TokenError::NotAToken)?;
        let (version, rest) = rest.split_once('-').unwrap_or((rest, ""));
        if version != "1" {
            return Err(TokenError::Version(version.chars().take(16).collect()));
        }
        let (digest, secret) = rest.split_once('-').unwrap_or((rest, ""));
        Ok(JoinToken {
            ca_digest: CaDigest(part("CA digest", digest, DIGEST_DIGITS)?),
            secret: JoinSecret(part("secret", secret, SECRET_DIGITS)?),
        })
    }
}

fn part<const N: usize>(
    part: &'static str,
    text: &str,
    want: usize,
) -> Result<[u8; N], TokenError> {
    let found = text.chars().count();
    if found != want {
        return Err(TokenError::Length { part, want, found });
    }
    base36::decode(text).map_err(|error| match error {
        Base36Error::BadCharacter(character) => TokenError::BadCharacter { part, character },
        Base36Error::TooLarge => TokenError::OutOfRange { part },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(digest: [u8; 32], secret: [u8; 16]) -> JoinToken {
        JoinToken { ca_digest: CaDigest(digest), secret: JoinSecret::from_random(secret) }
    }

    fn error(text: &str) -> String {
        text.parse::<JoinToken>().unwrap_err().to_string()
    }

    #[test]
    fn has_dockers_shape() {
        let text = token([0xff; 32], [1; 16]).to_string();
        let parts: Vec<_> = text.split('-').collect();
        assert_eq!((parts[0], parts[1], parts[2].len(), parts[3].len()), ("SWMTKN", "1", 50, 25));
        // One of Docker's own documentation examples parses.
        let docker = concat!(
            "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl",
            "-1awxwuwd3z9j1z3puu7rcgdbx"
        );
        assert_eq!(docker.parse::<JoinToken>().unwrap().to_string(), docker);
    }

    #[test]
    fn says_what_is_wrong() {
        let good = token([7; 32], [9; 16]).to_string();
        assert_eq!(error(""), "not a join token: want SWMTKN-1-<CA digest>-<secret>");
        assert_eq!(error("hunter2"), error(""));
        assert_eq!(
            error(&good.replace("-1-", "-2-")),
            "unsupported join token version \"2\": want SWMTKN-1-..."
        );
        assert_eq!(
            error(&good[..good.len() - 1]),
            "join token is incomplete or damaged: its secret has 24 characters, not 25"
        );
        assert_eq!(
            error(&format!("{good}-x")),
            "join token is incomplete or damaged: its secret has 27 characters, not 25"
        );
        assert_eq!(
            error("SWMTKN-1-abc"),
            "join token is incomplete or damaged: its CA digest has 3 characters, not 50"
        );
        assert_eq!(
            error(&(good[..good.len() - 1].to_owned() + "Z")),
            "invalid character 'Z' in the join token's secret"
        );
        let large = format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25));
        assert_eq!(error(&large), "join token is damaged: its CA digest is out of range");
    }

    #[test]
    fn debug_hides_the_secret() {
        let token = token([7; 32], [9; 16]);
        let secret = token.to_string().split('-').next_back().unwrap().to_owned();
        let shown = format!("{token:?}");
        assert!(!shown.contains(&secret) && !shown.contains("9, 9"), "{shown}");
    }

    proptest! {
        #[test]
        fn round_trip(digest: [u8; 32], secret: [u8; 16]) {
            let token = token(digest, secret);
            prop_assert_eq!(token.to_string().parse::<JoinToken>(), Ok(token.clone()));
            prop_assert_eq!(format!(" {token}\n").parse::<JoinToken>(), Ok(token));
        }

        #[test]
        fn never_panics(text in "(SWMTKN-)?(1-)?\\PC{0,90}") {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string(), text.trim());
            }
        }

        #[test]
        fn any_changed_digit_is_another_token(digest: [u8; 32], secret: [u8; 16], bit in 0_usize..384) {
            let (mut other_digest, mut other_secret) = (digest, secret);
            match bit {
                0..256 => other_digest[bit / 8] ^= 1 << (bit % 8),
                _ => other_secret[(bit - 256) / 8] ^= 1 << (bit % 8),
            }
            prop_assert_ne!(token(digest, secret), token(other_digest, other_secret));
        }
    }
}
