//! What the managers say of a node itself: what it is in its swarm, and whom it is to trust.

use swarm_model::NodeId;

/// What a node is in its swarm, as its managers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The node.
    pub node: NodeId,
    /// Its id in Raft, if it is a manager.
    pub raft_id: Option<u64>,
}

/// Whom a node is to trust, as its managers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The root certificates, PEM.
    pub roots_pem: String,
    /// The key of the root that its certificate is to be of, base64 of DER.
    pub issuer_public_key: String,
}
