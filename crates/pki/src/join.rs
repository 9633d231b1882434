//! The first step of joining: to learn the cluster's root certificate from a manager nobody vouches
//! for but the join token.

use crate::connector::{check_addr, client_config};
use crate::dial::{ConnectError, handshake};
use crate::verify::PinVerifier;
use crate::{JoinToken, RootCert};
use rustls::crypto::ring;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// Connects to the manager at `addr` and returns the root certificate, taken from the chain the
/// manager presents. It has the token's digest and has signed the manager's certificate, or this
/// fails. Nothing of the token is sent.
pub async fn fetch_root(
    addr: &str,
    token: &JoinToken,
    timeout: Duration,
) -> Result<RootCert, ConnectError> {
    check_addr(addr)?;
    let failed = |reason: String| ConnectError::Handshake { addr: addr.to_owned(), reason };
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(PinVerifier {
        provider: provider.clone(),
        digest: token.ca_digest,
        root: OnceLock::new(),
    });
    let config = client_config(&provider, verifier.clone(), None)
        .map_err(|error| failed(error.to_string()))?;
    // The connection has served its purpose once the handshake is done.
    drop(handshake(addr, config, timeout, Instant::now() + timeout).await?);
    verifier.root.get().cloned().ok_or_else(|| failed("the server presented no certificate".into()))
}
