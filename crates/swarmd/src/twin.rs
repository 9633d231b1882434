//! A state directory must be in use once. Two managers with one's state would vote twice in one term, and two workers
//! would take each other's sessions.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use swarm_pki::{Connector, ConnectorOptions, Credentials, ExpectedPeer, NodeIdentity, RootCert};

use crate::config::NodeConfig;

/// How long another host may take to answer. On its own host a node that does not run yet is refused at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Fails if this node runs already, at the address where others reach it: then this state is a copy.
pub(crate) async fn refuse(
    config: &NodeConfig,
    identity: &NodeIdentity,
    roots: &[RootCert],
    state_dir: &Path,
) -> Result<()> {
    let credentials = Credentials::new(roots, Some(identity.clone()))?;
    let connector = Connector::new(credentials, ConnectorOptions::default());
    let own = ExpectedPeer::Node(identity.node_id().to_owned());
    if !connector.answers(&config.advertise_addr, own, PATIENCE).await {
        return Ok(()); // nobody is there, or somebody else
    }
    bail!(
        "this node runs already, at {}: the state in {dir} is a copy of its; remove {dir}/node.json, then let this host join as a node of its own (swarmctl join)",
        config.advertise_addr,
        dir = state_dir.display(),
    );
}
