//! Which authority a certificate is of, in the form that Docker tells it: nodes whose certificate is of another one than
//! the swarm's are found by it while the root is being rotated.

use crate::PkiError;
use crate::name::parse_x509;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

/// An authority: two of the same name differ by their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerInfo {
    /// Its distinguished name, base64 of DER.
    pub subject: String,
    /// Its key (SubjectPublicKeyInfo), base64 of DER.
    pub public_key: String,
}

impl IssuerInfo {
    /// The authority that this is the certificate of.
    pub(crate) fn of(authority: &X509Certificate<'_>) -> Self {
        Self {
            subject: STANDARD.encode(authority.subject().as_raw()),
            public_key: STANDARD.encode(authority.public_key().raw),
        }
    }

    /// The authority that signed the first certificate of a chain, if its own certificate is there too.
    pub(crate) fn of_chain(chain: &[CertificateDer<'_>]) -> Result<Option<Self>, PkiError> {
        let Some((leaf, others)) = chain.split_first() else { return Ok(None) };
        let leaf = parse_x509(leaf)?;
        for other in others {
            let other = parse_x509(other)?;
            if leaf.verify_signature(Some(other.public_key())).is_ok() {
                return Ok(Some(Self::of(&other)));
            }
        }
        Ok(None)
    }
}
