//! Who calls an RPC, and whether they may.

use crate::{PeerIdentity, PeerInfo, Role};
use std::sync::Arc;
use tonic::{Request, Status};

/// The verified identity of the caller; `None` if it presented no certificate or did not come
/// through a [`crate::TlsAcceptor`].
pub fn peer<T>(request: &Request<T>) -> Option<Arc<PeerIdentity>> {
    request.extensions().get::<PeerInfo>()?.identity.clone()
}

/// The caller, which must be a node of the cluster; otherwise `UNAUTHENTICATED`.
pub fn require_node<T>(request: &Request<T>) -> Result<Arc<PeerIdentity>, Status> {
    peer(request).ok_or_else(|| Status::unauthenticated("a node certificate is required"))
}

/// The caller, which must be a manager of the cluster; otherwise `UNAUTHENTICATED` or
/// `PERMISSION_DENIED`.
pub fn require_manager<T>(request: &Request<T>) -> Result<Arc<PeerIdentity>, Status> {
    let peer = require_node(request)?;
    match peer.role {
        Role::Manager => Ok(peer),
        Role::Worker => Err(Status::permission_denied(format!(
            "node {} is a worker, not a manager",
            peer.node_id
        ))),
    }
}
