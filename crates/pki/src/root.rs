//! The cluster's root certificate, and the authority that issues node certificates with its key.

use crate::name::{check_cluster_id, check_node_id, organization, parse_x509};
use crate::{CaDigest, IssuerInfo, PkiError, Role};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use time::{Duration, OffsetDateTime};

/// How long a node certificate is good for, as in Docker Swarm.
pub const NODE_CERT_VALIDITY: Duration = Duration::days(90);

/// How long the root certificate is good for: 20 years, as in Docker Swarm.
const ROOT_VALIDITY: Duration = Duration::days(20 * 365);

/// Certificates begin this long before they are made, for nodes whose clock is behind.
const BACKDATE: Duration = Duration::hours(1);

/// An uncompressed P-256 point (SEC 1, 2.3.3).
const P256_POINT_BYTES: usize = 65;

/// A cluster's root certificate: what nodes trust.
#[derive(Clone, PartialEq, Eq)]
pub struct RootCert {
    der: CertificateDer<'static>,
    cluster_id: String,
    issuer: IssuerInfo,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl RootCert {
    /// Checks that `der` is a self-signed CA certificate with a cluster id.
    pub fn from_der(der: CertificateDer<'static>) -> Result<Self, PkiError> {
        let cert = parse_x509(&der)?;
        if !cert.is_ca() {
            return Err(PkiError::Certificate("not that of a CA".into()));
        }
        cert.verify_signature(None)
            .map_err(|_| PkiError::Certificate("the root is not signed by itself".into()))?;
        let cluster_id = organization(cert.subject())?;
        let issuer = IssuerInfo::of(&cert);
        let not_before = cert.validity().not_before.to_datetime();
        let not_after = cert.validity().not_after.to_datetime();
        Ok(Self { der, cluster_id, issuer, not_before, not_after })
    }

    /// Reads one root certificate.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        match Self::list_from_pem(pem)?.as_slice() {
            [root] => Ok(root.clone()),
            roots => Err(PkiError::Certificate(format!(
                "want one root certificate, found {}",
                roots.len()
            ))),
        }
    }

    /// Reads any number of root certificates.
    pub fn list_from_pem(pem: &str) -> Result<Vec<Self>, PkiError> {
        chain_from_pem(pem)?.into_iter().map(Self::from_der).collect()
    }

    /// The certificate in PEM.
    pub fn to_pem(&self) -> String {
        certificate_pem(&self.der)
    }

    /// The certificate in DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The cluster it was made for.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// SHA-256 of the DER, as in join tokens.
    pub fn digest(&self) -> CaDigest {
        digest_of(&self.der)
    }

    /// The authority, as certificates of it are told by.
    pub fn issuer(&self) -> &IssuerInfo {
        &self.issuer
    }
}

impl fmt::Debug for RootCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCert")
            .field("cluster_id", &self.cluster_id)
            .field("digest", &self.digest())
            .finish()
    }
}

/// The certificate authority of a cluster. Every manager has it, so any leader can issue
/// certificates. Cheap to clone.
#[derive(Clone)]
pub struct RootCa {
    cert: RootCert,
    issuer: Arc<Issuer<'static, KeyPair>>,
    /// This authority as certified by the one before, while that is being replaced.
    cross_signed: Option<CertificateDer<'static>>,
}

impl RootCa {
    /// Makes a new authority with an ECDSA P-256 key, valid from about `now` for 20 years.
    pub fn generate(cluster_id: &str, now: OffsetDateTime) -> Result<Self, PkiError> {
        check_cluster_id(cluster_id)?;
        let params = authority_params(cluster_id, now - BACKDATE, now + ROOT_VALIDITY);
        let key = generate_key()?;
        let cert = params.self_signed(&key).map_err(sign_error("root certificate"))?;
        Self::new(RootCert::from_der(cert.der().clone())?, key)
    }

    /// Puts an authority together from what [`RootCert::to_pem`] and [`RootCa::key_pem`] gave.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(|error| PkiError::Key(error.to_string()))?;
        Self::new(RootCert::from_pem(cert_pem)?, key)
    }

    fn new(cert: RootCert, key: KeyPair) -> Result<Self, PkiError> {
        if parse_x509(&cert.der)?.public_key().subject_public_key.data.as_ref()
            != key.public_key_raw()
        {
            return Err(PkiError::KeyMismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&cert.der, key)
            .map_err(|e| PkiError::Certificate(e.to_string()))?;
        Ok(Self { cert, issuer: Arc::new(issuer), cross_signed: None })
    }

    /// The public half.
    pub fn cert(&self) -> &RootCert {
        &self.cert
    }

    /// The private key, PKCS #8 in PEM. Whoever has it can be any node of the cluster.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// SHA-256 of the root certificate, as in join tokens.
    pub fn digest(&self) -> CaDigest {
        self.cert.digest()
    }

    /// Certifies the authority that is to follow this one, in PEM: whoever trusts this one accepts by it what that
    /// one issues.
    pub fn cross_sign(&self, next: &RootCa) -> Result<String, PkiError> {
        if next.cert.cluster_id != self.cert.cluster_id {
            return Err(PkiError::Trust("root certificates of several clusters"));
        }
        let (not_before, not_after) = (
            self.cert.not_before.max(next.cert.not_before),
            self.cert.not_after.min(next.cert.not_after),
        );
        let params = authority_params(&next.cert.cluster_id, not_before, not_after);
        let signed = params.signed_by(next.issuer.key(), &self.issuer);
        Ok(certificate_pem(signed.map_err(sign_error("cross-signed certificate"))?.der()))
    }

    /// Adds what [`RootCa::cross_sign`] of the authority before made of this one to the chains issued from now on.
    pub fn with_cross_signed(mut self, pem: &str) -> Result<Self, PkiError> {
        let Ok([cross_signed]) = <[_; 1]>::try_from(chain_from_pem(pem)?) else {
            return Err(PkiError::Certificate("want one cross-signed certificate".into()));
        };
        if IssuerInfo::of(&parse_x509(&cross_signed)?) != self.cert.issuer {
            return Err(PkiError::KeyMismatch);
        }
        self.cross_signed = Some(cross_signed);
        Ok(self)
    }

    /// Issues a certificate to the holder of the key that signed `csr_pem` and returns the chain in
    /// PEM: the node's certificate, then the root, after its cross-signed form if there is one.
    /// Nothing but the key is taken from the request; the names come from `node_id` and `role`.
    ///
    /// It is valid from an hour before `now` until `now + validity` (most often
    /// [`NODE_CERT_VALIDITY`]), but never longer than the root.
    pub fn issue(
        &self,
        csr_pem: &str,
        node_id: &str,
        role: Role,
        now: OffsetDateTime,
        validity: Duration,
    ) -> Result<String, PkiError> {
        check_node_id(node_id)?;
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|error| PkiError::Request(error.to_string()))?;
        let key = &request.public_key;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256
            || rcgen::PublicKeyData::der_bytes(key).len() != P256_POINT_BYTES
        {
            return Err(PkiError::Request("its key is not ECDSA P-256".into()));
        }
        let params = self.node_params(node_id, role, now, validity)?;
        let leaf = params.signed_by(key, &self.issuer).map_err(sign_error("node certificate"))?;
        let cross_signed = self.cross_signed.as_ref().map(certificate_pem).unwrap_or_default();
        Ok(certificate_pem(leaf.der()) + &cross_signed + &self.cert.to_pem())
    }

    fn node_params(
        &self,
        node_id: &str,
        role: Role,
        now: OffsetDateTime,
        validity: Duration,
    ) -> Result<CertificateParams, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node_id);
        params.distinguished_name.push(DnType::OrganizationalUnitName, role.organizational_unit());
        params.distinguished_name.push(DnType::OrganizationName, self.cert.cluster_id.as_str());
        params.subject_alt_names = [node_id, role.organizational_unit()]
            .into_iter()
            .map(|name| Ok(SanType::DnsName(name.try_into()?)))
            .collect::<Result<_, rcgen::Error>>()
            .map_err(sign_error("node certificate"))?;
        params.not_before = (now - BACKDATE).max(self.cert.not_before);
        params.not_after = (now + validity).min(self.cert.not_after);
        params.serial_number = Some(random_serial());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCa").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// What makes a certificate one of a cluster's authority.
fn authority_params(
    cluster_id: &str,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "swarm-ca");
    params.distinguished_name.push(DnType::OrganizationName, cluster_id);
    params.not_before = not_before;
    params.not_after = not_after;
    params.serial_number = Some(random_serial());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Makes an ECDSA P-256 key.
pub(crate) fn generate_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign_error("private key"))
}

pub(crate) fn sign_error(what: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |error| PkiError::Sign { what, reason: error.to_string() }
}

pub(crate) fn digest_of(der: &CertificateDer<'_>) -> CaDigest {
    CaDigest(Sha256::digest(der).into())
}

/// All certificates in a PEM text, which must hold at least one.
pub(crate) fn chain_from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| PkiError::Certificate(format!("not PEM: {error}")))?;
    match chain.is_empty() {
        true => Err(PkiError::Certificate("no PEM certificate found".into())),
        false => Ok(chain),
    }
}

fn certificate_pem(der: &CertificateDer<'_>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der.as_ref()), config)
}

/// A serial number no other certificate of the CA has: 16 random bytes, positive (RFC 5280,
/// 4.1.2.2).
fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}
