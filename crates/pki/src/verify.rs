//! Certificate verification for rustls: the chain against the cluster's roots, then the names
//! against who is expected. Host names play no part; nodes change addresses.

use crate::credentials::{Credentials, root_store};
use crate::name::parse_leaf;
use crate::root::digest_of;
use crate::{CaDigest, ExpectedPeer, PeerMismatch, RootCert};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use std::sync::{Arc, OnceLock};

/// Both ends' verifier for connections inside the cluster.
#[derive(Debug)]
pub(crate) struct ClusterVerifier {
    pub(crate) credentials: Credentials,
    pub(crate) expected: ExpectedPeer,
}

impl ClusterVerifier {
    /// Checks the names in a certificate whose chain has been verified.
    fn check_names(&self, cert: &CertificateDer<'_>, cluster_id: &str) -> Result<(), Error> {
        let peer = parse_leaf(cert).map_err(not_a_node)?.identity;
        if peer.cluster_id != cluster_id {
            return Err(mismatch(PeerMismatch::OtherCluster {
                node_id: peer.node_id,
                expected: cluster_id.to_owned(),
                found: peer.cluster_id,
            }));
        }
        self.expected.check(&peer).map_err(mismatch)
    }
}

impl ServerCertVerifier for ClusterVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trust = self.credentials.trust();
        verify_server_chain(
            end_entity,
            intermediates,
            &trust.store,
            now,
            self.credentials.provider(),
        )?;
        self.check_names(end_entity, &trust.cluster_id)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.credentials.provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.credentials.provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.credentials.provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for ClusterVerifier {
    /// A joining node has no certificate yet; RPCs that need one ask for it.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: a node has one certificate, and presents it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let trust = self.credentials.trust();
        let verified = trust.clients.verify_client_cert(end_entity, intermediates, now)?;
        self.check_names(end_entity, &trust.cluster_id)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

/// A joining node's verifier: it trusts the one certificate in the server's chain that has the join
/// token's digest, if there is one, and wants a manager whose certificate that one signed.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) digest: CaDigest,
    /// Set once the pinned root has been seen.
    pub(crate) root: OnceLock<RootCert>,
}

/// No certificate in the server's chain has the join token's digest.
#[derive(Debug, thiserror::Error)]
#[error("the CA does not match the join token")]
pub(crate) struct PinMismatch;

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates.iter().find(|cert| digest_of(cert) == self.digest);
        let pinned = pinned.ok_or_else(|| other(PinMismatch))?.clone().into_owned();
        let root = RootCert::from_der(pinned).map_err(not_a_node)?;
        let store = root_store([root.der()].into_iter()).map_err(not_a_node)?;
        verify_server_chain(end_entity, intermediates, &store, now, &self.provider)?;
        let peer = parse_leaf(end_entity).map_err(not_a_node)?.identity;
        ExpectedPeer::Manager.check(&peer).map_err(mismatch)?;
        // One verifier serves one handshake, so the root is set at most once.
        self.root.get_or_init(|| root);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn verify_server_chain(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), Error> {
    let cert = ParsedCertificate::try_from(end_entity)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&cert, roots, intermediates, now, algorithms)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn mismatch(error: PeerMismatch) -> Error {
    other(error)
}

fn not_a_node(error: crate::PkiError) -> Error {
    other(PeerMismatch::NotANode { reason: error.to_string() })
}
