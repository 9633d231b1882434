//! The root certificate, its rotation, and how far that is.

use swarm_model::{Cluster, Node};
use swarm_pki::RootCert;
use swarm_state::{Change, State};
use time::OffsetDateTime;

use super::Api;
use super::types::{Changed, RootStatus};
use crate::error::ApiError;
use crate::leader::plan::waiting_for;
use crate::members::authority;

impl Api {
    /// Replaces the root certificate and the join tokens; nodes change over one by one.
    pub async fn rotate_root(&self) -> Result<Changed, ApiError> {
        self.barrier().await?;
        let cluster = self.cluster()?;
        let next = authority::next(&cluster, OffsetDateTime::now_utc());
        let next = next.map_err(|e| ApiError::Internal(e.to_string()))?;
        let outcome = self.proposer.propose_one(Change::RotateRoot(Box::new(next))).await?;
        tracing::info!("the swarm's CA is being rotated");
        Ok(Changed { revision: outcome.revision, ..Changed::default() })
    }

    /// The root certificate.
    pub async fn inspect_root(&self) -> Result<RootStatus, ApiError> {
        self.barrier().await?;
        let cluster = self.cluster()?;
        let root = RootCert::from_pem(&cluster.issuing_ca().cert_pem);
        let root = root.map_err(|e| ApiError::Internal(e.to_string()))?;
        Ok(status(&self.store.read(), &cluster, &root))
    }
}

fn status(state: &State, cluster: &Cluster, root: &RootCert) -> RootStatus {
    let certified =
        |node: &Node| node.description.tls_info.cert_issuer_public_key == root.issuer().public_key;
    let pem = root.to_pem();
    // As long as the former root is in force nobody can trust the next one alone.
    let rotating = cluster.root_rotation.is_some();
    let trusting = |node: &Node| !rotating && node.description.tls_info.trust_root == pem;
    let count = |is: &dyn Fn(&Node) -> bool| state.nodes().filter(|node| is(node)).count() as u64;
    let there = |node: &Node| certified(node) && trusting(node);
    RootStatus {
        root_pem: pem.clone(),
        digest: root.digest().to_string(),
        rotating,
        nodes: state.nodes().count() as u64,
        certificates: count(&certified),
        trusting: count(&trusting),
        waiting: waiting_for(state),
        // One that is down has its certificate already, or the rotation would not be over.
        converged: !rotating && state.nodes().all(|node| !node.is_alive() || there(node)),
    }
}
