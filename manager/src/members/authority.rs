//! The cluster's certificate authority, put together from the replicated state, and the next one when it is rotated.

use swarm_model::{Cluster, JoinTokens, RootCaDocument};
use swarm_pki::{JoinSecret, JoinToken, PkiError, RootCa};
use swarm_state::RotateRoot;
use time::OffsetDateTime;

/// The authority that issues certificates now.
pub fn issuing(cluster: &Cluster) -> Result<RootCa, PkiError> {
    let ca = cluster.issuing_ca();
    let authority = RootCa::from_pem(&ca.cert_pem, &ca.key_pem)?;
    match &cluster.root_rotation {
        Some(rotation) => authority.with_cross_signed(&rotation.cross_signed_pem),
        None => Ok(authority),
    }
}

/// A new token to join clusters of that authority.
pub(crate) fn join_token(ca: &RootCa) -> String {
    let secret = JoinSecret::from_random(rand::random());
    JoinToken { ca_digest: ca.digest(), secret }.to_string()
}

/// New tokens for both roles.
pub(crate) fn join_tokens(ca: &RootCa) -> JoinTokens {
    JoinTokens { worker: join_token(ca), manager: join_token(ca) }
}

pub(crate) fn document(ca: &RootCa) -> RootCaDocument {
    RootCaDocument { cert_pem: ca.cert().to_pem(), key_pem: ca.key_pem() }
}

/// A next authority, certified by the present one: not by one that was to follow, which nobody may know.
pub(crate) fn next(cluster: &Cluster, now: OffsetDateTime) -> Result<RotateRoot, PkiError> {
    let present = RootCa::from_pem(&cluster.root_ca.cert_pem, &cluster.root_ca.key_pem)?;
    let next = RootCa::generate(present.cert().cluster_id(), now)?;
    Ok(RotateRoot {
        version: cluster.meta.version.index,
        root_ca: document(&next),
        cross_signed_pem: present.cross_sign(&next)?,
        issuer_public_key: next.cert().issuer().public_key.clone(),
        join_tokens: join_tokens(&next),
    })
}
