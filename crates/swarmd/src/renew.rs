//! A node's certificate is renewed between 50 and 80 % of its life, while everything goes on.

use std::time::Duration;

use anyhow::{Context, Result};
use swarm_pki::{
    Connector, ExpectedPeer, NodeIdentity, Role, RootCert, new_key_and_csr, save_roots,
};
use swarm_proto::membership::RenewRequest;
use swarm_proto::membership::membership_client::MembershipClient;
use swarm_worker::Managers;
use time::OffsetDateTime;

use crate::config::NodeFiles;

/// The pause after a renewal that failed; there is a fifth of 90 days for it to succeed.
const RETRY_PAUSE: Duration = Duration::from_secs(600);
/// How often the date is looked at.
const LOOK: Duration = Duration::from_secs(3600);
/// How long a manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Renews for ever.
pub(crate) async fn run(connector: Connector, files: NodeFiles, managers: Managers) {
    loop {
        let Some(identity) = connector.credentials().identity() else { return };
        until(identity.renew_at(rand::random())).await;
        while let Err(e) = renew(&connector, &files, &managers, None).await {
            tracing::warn!("cannot renew this node's certificate: {e:#}");
            tokio::time::sleep(RETRY_PAUSE).await; // before a manager is asked again
        }
    }
}

/// Waits for a date. The clock of timers stands still while a host sleeps, so it looks at the date often.
async fn until(date: OffsetDateTime) {
    loop {
        let left = Duration::try_from(date - OffsetDateTime::now_utc()).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

/// Gets a new certificate; if a role is given, only one for that: a manager whose replica lags behind does not know
/// yet that the node's role has changed.
pub(crate) async fn renew(
    connector: &Connector,
    files: &NodeFiles,
    managers: &Managers,
    role: Option<Role>,
) -> Result<()> {
    let (key, csr_pem) = new_key_and_csr()?;
    let mut last = anyhow::anyhow!("no manager is known");
    for manager in managers.all() {
        match ask(connector, &manager.addr, &csr_pem).await {
            Ok(answer) => {
                let identity = NodeIdentity::from_pem(&answer.cert_pem, &key)?;
                if role.is_some_and(|role| role != identity.role()) {
                    last = anyhow::anyhow!(
                        "the manager at {} does not know of the change",
                        manager.addr
                    );
                    continue;
                }
                let roots = [RootCert::from_pem(&answer.root_pem)?];
                connector.credentials().set_roots(&roots)?;
                save_roots(&files.pki(), &roots)?;
                files.vault().save_identity(&identity)?;
                connector.credentials().set_identity(identity);
                tracing::info!("renewed this node's certificate");
                return Ok(());
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

async fn ask(
    connector: &Connector,
    addr: &str,
    csr_pem: &str,
) -> Result<swarm_proto::membership::RenewResponse> {
    let channel = connector.connect(addr, ExpectedPeer::Manager).await?;
    let request = RenewRequest { csr_pem: csr_pem.to_owned() };
    let mut client = MembershipClient::new(channel);
    let answer = tokio::time::timeout(PATIENCE, client.renew(request)).await;
    let answer = answer.with_context(|| format!("the manager at {addr} does not answer"))?;
    Ok(answer.with_context(|| format!("the manager at {addr} refuses"))?.into_inner())
}
