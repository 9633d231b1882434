//! A node that turns up at another address than its known one has moved, or is a copy of one that runs.

use std::time::Duration;

use swarm_model::NodeId;
use swarm_pki::{Connector, ExpectedPeer};
use tonic::Status;

/// How long a node may take to answer at its known address.
const PATIENCE: Duration = Duration::from_secs(1);

/// Fails if the node that asks from `from` answers at `known`, too: whoever turns up there has a copy of its state.
pub(crate) async fn refuse(
    connector: &Connector,
    node: &NodeId,
    known: &str,
    from: &str,
) -> Result<(), Status> {
    if known == from || known.is_empty() {
        return Ok(());
    }
    match connector.answers(known, ExpectedPeer::Node(node.to_string()), PATIENCE).await {
        true => Err(Status::already_exists(format!(
            "node {node} runs already, at {known}: the state of the host at {from} is a copy of its, or the other way round; on the one that is to go, remove node.json from swarmd's state directory, then let it join as a node of its own (swarmctl join)",
        ))),
        // Nobody is there, or somebody else.
        false => Ok(()),
    }
}
