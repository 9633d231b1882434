//! Keeps the node up while the daemon runs: it starts anew when its host's address has changed, and again when a start
//! failed. Containers live on.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::local::{Daemon, Resumed, resume};
use crate::moved;

/// How often it is looked after: a node without its address, or that does not run, is soon taken for dead.
const PERIOD: Duration = Duration::from_secs(1);

/// For ever.
pub(crate) async fn follow(daemon: Daemon) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(PERIOD).await; // nothing tells of a new address, or of what lets a node start
        let now = match look_after(&daemon).await {
            Ok(()) => String::new(),
            Err(e) => format!("{e:#}"),
        };
        // Once, not every second.
        if !now.is_empty() && now != said {
            tracing::warn!("{now}");
        }
        said = now;
    }
}

async fn look_after(daemon: &Daemon) -> Result<()> {
    let config = daemon.node.read().await.as_ref().map(|node| node.config.clone());
    match config {
        Some(config) if moved::look(&config).await?.is_none() => return Ok(()),
        Some(_) => end_if_moved(daemon).await?,
        None => {}
    }
    start(daemon).await
}

/// Ends the node if it is to start at another address.
async fn end_if_moved(daemon: &Daemon) -> Result<()> {
    let _alone = daemon.changing.lock().await;
    let mut place = daemon.node.write().await;
    let Some(node) = place.as_ref() else { return Ok(()) };
    // It may have changed while we waited.
    let Some(moved) = moved::look(&node.config).await? else { return Ok(()) };
    daemon.host.files.save(&moved)?;
    match place.take() {
        Some(node) => node.shutdown().await,
        None => Ok(()),
    }
}

/// Starts the node that this host is, if it does not run.
async fn start(daemon: &Daemon) -> Result<()> {
    let _alone = daemon.changing.lock().await;
    let mut locked = daemon.locked.write().await;
    let mut place = daemon.node.write().await;
    if place.is_some() || locked.is_some() {
        return Ok(());
    }
    match resume(&daemon.host).await.context("this node cannot start")? {
        Resumed::Nothing => {}
        Resumed::Node(node) => *place = Some(*node),
        Resumed::Locked(node) => *locked = Some(*node),
    }
    Ok(())
}
