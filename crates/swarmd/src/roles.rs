//! A node's role changes while it runs: promoted, it starts a manager beside its worker; demoted, it ends it. Its
//! containers do not notice.

use anyhow::Result;
use swarm_pki::Role;
use swarm_worker::Standing;

use crate::config::NodeConfig;
use crate::node::{Host, Node, start_manager};
use crate::voter;

/// Makes the node what its swarm says it is.
pub(crate) async fn adapt(host: &Host, node: &mut Node, standing: &Standing) -> Result<()> {
    // Another manager, under another id, is no concern of the one there is.
    if let Some(manager) = node.replace_manager(None) {
        manager.shutdown().await?;
    }
    match standing.raft_id {
        Some(new) => promote(host, node, new).await,
        None => demote(host, node).await,
    }
}

async fn promote(host: &Host, node: &mut Node, raft_id: u64) -> Result<()> {
    // The id is new: whatever is there belongs to another. Cut short after this, the node is a worker.
    host.files.save(&NodeConfig { raft_id: None, ..node.config.clone() })?;
    host.files.forget_raft()?;
    certify(node, Role::Manager).await?;
    let config = NodeConfig { raft_id: Some(raft_id), ..node.config.clone() };
    let manager = start_manager(host, &config, raft_id, &node.connector).await?;
    if let Err(e) = host.files.save(&config) {
        manager.shutdown().await?;
        return Err(e);
    }
    node.config = config;
    node.replace_manager(Some(manager));
    tracing::info!("this node is a manager now");
    if let Some(rest) = voter::complete(node) {
        node.spawn(rest);
    }
    Ok(())
}

async fn demote(host: &Host, node: &mut Node) -> Result<()> {
    certify(node, Role::Worker).await?;
    let config = NodeConfig { raft_id: None, ..node.config.clone() };
    host.files.save(&config)?;
    node.config = config;
    host.files.forget_raft()?;
    tracing::info!("this node is a worker now");
    Ok(())
}

/// Gets the node a certificate for that role, if it has none.
async fn certify(node: &Node, role: Role) -> Result<()> {
    let identity = node.connector.credentials().identity();
    if identity.is_none_or(|identity| identity.role() != role) {
        node.renewal.renew(role).await?;
    }
    Ok(())
}
