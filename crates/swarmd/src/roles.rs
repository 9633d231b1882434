//! A node's role changes while it runs: promoted, it starts a manager beside its worker; demoted, it ends it. Its
//! containers do not notice.

use std::time::Duration;

use anyhow::{Context, Result};
use swarm_pki::Role;
use swarm_worker::Standing;

use crate::config::NodeConfig;
use crate::local::Daemon;
use crate::node::{Node, start_manager};
use crate::voter;

/// The pause before another try to become what the swarm says.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Makes the node what its swarm says it is; for ever.
pub(crate) async fn follow(daemon: Daemon) {
    let mut heard = daemon.host.standing.subscribe();
    loop {
        let standing = heard.borrow_and_update().clone();
        let adapted = match &standing {
            Some(standing) => adapt(&daemon, standing).await,
            None => Ok(()),
        };
        let failed = adapted.is_err();
        if let Err(e) = adapted {
            tracing::warn!("cannot change this node's role yet: {e:#}");
        }
        tokio::select! {
            changed = heard.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY_PAUSE), if failed => {} // before the next try
        }
    }
}

async fn adapt(daemon: &Daemon, standing: &Standing) -> Result<()> {
    let _alone = daemon.changing.lock().await;
    let raft_id = match daemon.node.read().await.as_ref() {
        Some(node) if node.id() == standing.node.as_str() => node.config.raft_id,
        // The host has left, or is another node by now.
        _ => return Ok(()),
    };
    if raft_id == standing.raft_id {
        return Ok(());
    }
    end_manager(daemon).await?;
    match standing.raft_id {
        Some(new) => promote(daemon, new).await,
        None => demote(daemon).await,
    }
}

/// Ends the manager there is, if any: another one, under another id, is no concern of it.
async fn end_manager(daemon: &Daemon) -> Result<()> {
    let manager = present(daemon.node.write().await.as_mut())?.replace_manager(None);
    match manager {
        Some(manager) => Ok(manager.shutdown().await?),
        None => Ok(()),
    }
}

async fn promote(daemon: &Daemon, raft_id: u64) -> Result<()> {
    let host = &daemon.host;
    // The id is new: whatever is there belongs to another. Cut short after this, the node is a worker.
    if let Some(node) = daemon.node.read().await.as_ref() {
        host.files.save(&NodeConfig { raft_id: None, ..node.config.clone() })?;
    }
    host.files.forget_raft()?;
    let (config, connector) = certify(daemon, Role::Manager).await?;
    let config = NodeConfig { raft_id: Some(raft_id), ..config };
    let manager = start_manager(host, &config, raft_id, &connector).await?;
    let mut node = daemon.node.write().await;
    let node = present(node.as_mut())?;
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

async fn demote(daemon: &Daemon) -> Result<()> {
    let (config, _) = certify(daemon, Role::Worker).await?;
    let config = NodeConfig { raft_id: None, ..config };
    daemon.host.files.save(&config)?;
    present(daemon.node.write().await.as_mut())?.config = config;
    daemon.host.files.forget_raft()?;
    tracing::info!("this node is a worker now");
    Ok(())
}

/// Gets the node a certificate for that role, if it has none.
async fn certify(daemon: &Daemon, role: Role) -> Result<(NodeConfig, swarm_pki::Connector)> {
    let (config, connector, renewal) = {
        let mut node = daemon.node.write().await;
        let node = present(node.as_mut())?;
        (node.config.clone(), node.connector.clone(), node.renewal.clone())
    };
    if connector.credentials().identity().is_none_or(|identity| identity.role() != role) {
        renewal.renew(role).await?;
    }
    Ok((config, connector))
}

fn present(node: Option<&mut Node>) -> Result<&mut Node> {
    node.context("this host is no node any more")
}
