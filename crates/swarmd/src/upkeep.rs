//! Sees that this host's address has changed, and has its node start anew at the new one. Containers live on.

use std::time::Duration;

use swarm_overlay::AddressEvents;
use tokio::time::sleep;

use crate::daemon::{Daemon, Shown};
use crate::moved;

/// How often is looked without a hint: the kernel may drop one.
const AUDIT: Duration = Duration::from_secs(30);

/// For ever.
pub(crate) async fn follow(daemon: Daemon) {
    let mut shown = daemon.shown.clone();
    let mut events = None;
    let mut said = String::new();
    loop {
        if events.is_none() {
            events = match AddressEvents::listen(None).await {
                Ok(events) => Some(events),
                Err(e) => {
                    tracing::warn!("this node looks at its addresses every 30 s only: {e}");
                    None
                }
            };
        }
        let now = match look(&daemon).await {
            Ok(()) => String::new(),
            Err(e) => format!("{e:#}"),
        };
        // Once, not at every look.
        if !now.is_empty() && now != said {
            tracing::warn!("{now}");
        }
        said = now;
        let ended = tokio::select! {
            more = hint(&mut events) => !more,
            // A node that has just started may have missed one.
            changed = shown.changed() => match changed {
                Ok(()) => false,
                Err(_) => return,
            },
            () = sleep(AUDIT) => false,
        };
        if ended {
            sleep(Duration::from_secs(1)).await; // no hurry to listen again if that ends at once
            events = None;
        }
    }
}

/// Waits for the next hint, for ever where there are none; false if there will be no more.
async fn hint(events: &mut Option<AddressEvents>) -> bool {
    match events {
        Some(events) => events.changed().await,
        None => std::future::pending().await,
    }
}

async fn look(daemon: &Daemon) -> anyhow::Result<()> {
    let config = match daemon.shown() {
        Shown::Worker(node) | Shown::Manager(node, _) => node.config,
        _ => return Ok(()),
    };
    if moved::look(&config).await?.is_some() {
        daemon.move_if_needed().await;
    }
    Ok(())
}
