//! What a running node presents and whom it trusts. Replacing either concerns connections made from
//! then on.

use crate::{NodeIdentity, PkiError, RootCert};
use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::RootCertStore;
use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, pki_types::CertificateDer};
use std::sync::Arc;
use tokio::sync::watch;

/// The identity a node presents (none before it has joined) and the roots it trusts (more than one
/// while the CA is being rotated). Clones share both: what is set through one is seen by every
/// [`crate::TlsAcceptor`] and [`crate::Connector`].
#[derive(Clone, Debug)]
pub struct Credentials(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    provider: Arc<CryptoProvider>,
    trust: ArcSwap<Trust>,
    identity: ArcSwapOption<NodeIdentity>,
    changed: watch::Sender<()>,
}

impl Credentials {
    /// Starts with `roots`, at least one and all of one cluster, and `identity`.
    pub fn new(roots: &[RootCert], identity: Option<NodeIdentity>) -> Result<Self, PkiError> {
        let provider = Arc::new(ring::default_provider());
        let trust = Trust::new(roots, &provider)?;
        Ok(Self(Arc::new(Shared {
            trust: ArcSwap::from_pointee(trust),
            identity: ArcSwapOption::from_pointee(identity),
            provider,
            changed: watch::Sender::default(),
        })))
    }

    /// Replaces the identity, such as after a renewal. Running connections go on.
    pub fn set_identity(&self, identity: NodeIdentity) {
        self.0.identity.store(Some(Arc::new(identity)));
        self.0.changed.send_replace(());
    }

    /// Replaces the trusted roots. Running connections go on.
    pub fn set_roots(&self, roots: &[RootCert]) -> Result<(), PkiError> {
        self.0.trust.store(Arc::new(Trust::new(roots, &self.0.provider)?));
        self.0.changed.send_replace(());
        Ok(())
    }

    /// The identity now presented.
    pub fn identity(&self) -> Option<NodeIdentity> {
        self.0.identity.load().as_deref().cloned()
    }

    /// The roots now trusted.
    pub fn roots(&self) -> Vec<RootCert> {
        self.0.trust.load().roots.clone()
    }

    /// Hears when either is replaced.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    pub(crate) fn trust(&self) -> Arc<Trust> {
        self.0.trust.load_full()
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.0.provider
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.0.identity.load().as_ref().map(|identity| identity.certified())
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        self.0.identity.load().is_some()
    }
}

/// Trusted roots, ready for verification.
#[derive(Debug)]
pub(crate) struct Trust {
    pub(crate) cluster_id: String,
    pub(crate) store: Arc<RootCertStore>,
    /// Verifies the chain, dates and usage of client certificates.
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
    roots: Vec<RootCert>,
}

impl Trust {
    fn new(roots: &[RootCert], provider: &Arc<CryptoProvider>) -> Result<Self, PkiError> {
        let first = roots.first().ok_or(PkiError::Trust("no root certificate"))?;
        if roots.iter().any(|root| root.cluster_id() != first.cluster_id()) {
            return Err(PkiError::Trust("root certificates of several clusters"));
        }
        let store = Arc::new(root_store(roots.iter().map(RootCert::der))?);
        let clients = WebPkiClientVerifier::builder_with_provider(store.clone(), provider.clone())
            .build()
            .map_err(|error| PkiError::Certificate(error.to_string()))?;
        Ok(Self {
            cluster_id: first.cluster_id().to_owned(),
            store,
            clients,
            roots: roots.to_vec(),
        })
    }
}

pub(crate) fn root_store<'a>(
    roots: impl Iterator<Item = &'a CertificateDer<'static>>,
) -> Result<RootCertStore, PkiError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| PkiError::Certificate(error.to_string()))?;
    }
    Ok(store)
}
