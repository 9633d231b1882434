//! A node's certificate and private key, and when to replace them.

use crate::name::{Leaf, parse_leaf};
use crate::root::{chain_from_pem, generate_key, sign_error};
use crate::{IssuerInfo, PeerIdentity, PkiError, Role};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::Arc;
use time::OffsetDateTime;

/// Makes a private key (PKCS #8 in PEM, ECDSA P-256), to be kept, and a certificate request (PEM),
/// to be sent to a manager. The request names nobody: the names in a certificate are the issuer's
/// to choose.
pub fn new_key_and_csr() -> Result<(String, String), PkiError> {
    let key = generate_key()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(sign_error("certificate request"))?;
    let csr_pem = request.pem().map_err(sign_error("certificate request"))?;
    Ok((key.serialize_pem(), csr_pem))
}

/// A node's certificate with its chain and private key, known to fit each other. Cheap to clone.
#[derive(Clone)]
pub struct NodeIdentity {
    subject: PeerIdentity,
    issuer: Option<IssuerInfo>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    chain_pem: Arc<str>,
    key_pem: Arc<str>,
    certified: Arc<CertifiedKey>,
}

impl NodeIdentity {
    /// Puts the key from [`new_key_and_csr`] and the chain from [`crate::RootCa::issue`] together.
    /// Whether the certificate is current is for [`NodeIdentity::check_validity`] to say, whether
    /// it is trusted for those who are shown it.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let chain = chain_from_pem(chain_pem)?;
        let Leaf { identity, not_before, not_after, public_key } = parse_leaf(&chain[0])?;
        let issuer = IssuerInfo::of_chain(&chain)?;
        let key = KeyPair::from_pem(key_pem).map_err(|error| PkiError::Key(error.to_string()))?;
        if key.public_key_raw() != public_key {
            return Err(PkiError::KeyMismatch);
        }
        let key_der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let certified = CertifiedKey::from_der(chain, key_der, &default_provider())
            .map_err(|error| PkiError::Key(error.to_string()))?;
        Ok(Self {
            subject: identity,
            issuer,
            not_before,
            not_after,
            chain_pem: chain_pem.into(),
            key_pem: key_pem.into(),
            certified: Arc::new(certified),
        })
    }

    /// The names in the certificate.
    pub fn subject(&self) -> &PeerIdentity {
        &self.subject
    }

    /// The authority that issued it, if the chain has that.
    pub fn issuer(&self) -> Option<&IssuerInfo> {
        self.issuer.as_ref()
    }

    /// The node's id.
    pub fn node_id(&self) -> &str {
        &self.subject.node_id
    }

    /// The node's role.
    pub fn role(&self) -> Role {
        self.subject.role
    }

    /// The node's cluster.
    pub fn cluster_id(&self) -> &str {
        &self.subject.cluster_id
    }

    /// The certificate and those above it, in PEM.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The private key in PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// When the certificate begins to be valid.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// When the certificate expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Fails if the certificate is not valid at `now`.
    pub fn check_validity(&self, now: OffsetDateTime) -> Result<(), PkiError> {
        if now > self.not_after {
            return Err(PkiError::Expired { not_after: self.not_after });
        }
        if now < self.not_before {
            return Err(PkiError::NotYetValid { not_before: self.not_before });
        }
        Ok(())
    }

    /// When to ask for the next certificate: between 50 and 80 % of this one's life, by `spread`, a
    /// random number from 0 to 1 that keeps nodes which joined together from renewing together.
    pub fn renew_at(&self, spread: f64) -> OffsetDateTime {
        let life = self.not_after - self.not_before;
        self.not_before + life * (0.5 + 0.3 * spread.clamp(0.0, 1.0))
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeIdentity")
            .field("subject", &self.subject)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
