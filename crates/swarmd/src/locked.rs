//! A manager that locked itself: until it is given the unlock key its containers, its balancing and its DNS go on as
//! they were, and nobody hears of it.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, Result};
use swarm_pki::{ConnectError, Connector, Credentials, Dial, Dialed, ExpectedPeer, load_roots};
use swarm_worker::{Prepared, Worker};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::config::NodeConfig;
use crate::node::{Host, worker_options};

/// Such a node.
pub(crate) struct LockedNode {
    pub(crate) id: String,
    pub(crate) config: NodeConfig,
    worker: Worker,
}

/// The way to other nodes without a certificate: none.
#[derive(Debug)]
struct NoWay;

impl Dial for NoWay {
    fn dial(&self, addr: &str, _: ExpectedPeer) -> Pin<Box<dyn Future<Output = Dialed> + Send>> {
        let reason = "this manager is locked".to_owned();
        let refused = ConnectError::Handshake { addr: addr.to_owned(), reason };
        Box::pin(std::future::ready(Err(refused)))
    }
}

impl LockedNode {
    /// Takes up what was running.
    pub(crate) async fn start(host: &Host, config: NodeConfig) -> Result<LockedNode> {
        let subject = host.files.vault().subject(OffsetDateTime::now_utc())?;
        let id = subject.context("this node has lost its certificate")?.node_id;
        let roots = load_roots(&host.files.pki())?.unwrap_or_default();
        let connector = Connector::over(Arc::new(NoWay), Credentials::new(&roots, None)?);
        // Whom to trust it hears once it is unlocked.
        let trust = watch::Sender::new(None);
        let options = worker_options(host, &config, id.as_str().into(), &connector, trust);
        let worker = Prepared::new(options).await?.start();
        tracing::warn!(
            "this manager is locked: its containers go on, \"swarmctl unlock\" does the rest"
        );
        Ok(LockedNode { id, config, worker })
    }

    /// Ends; containers live on.
    pub(crate) async fn shutdown(self) {
        self.worker.shutdown().await;
    }

    /// Ends for good: stops every task and forgets the swarm.
    pub(crate) async fn clear(self, host: &Host) -> Result<()> {
        self.worker.clear().await;
        host.files.forget()
    }
}
