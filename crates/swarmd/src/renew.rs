//! A node's certificate is renewed between 50 and 80 % of its life, and at once when it is not of the root that the
//! swarm's certificates are to be of, or when its key was in clear on a disk that is locked now. Everything goes on meanwhile.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use swarm_pki::{
    Connector, ExpectedPeer, NodeIdentity, Role, RootCert, new_key_and_csr, save_roots,
};
use swarm_proto::membership::membership_client::MembershipClient;
use swarm_proto::membership::{RenewRequest, RenewResponse};
use swarm_worker::{Managers, Trust};
use time::OffsetDateTime;
use tokio::sync::{Mutex, watch};

use crate::config::NodeFiles;

/// The pause after a renewal that failed; there is a fifth of 90 days for it to succeed.
const RETRY_PAUSE: Duration = Duration::from_secs(600);
/// The same while the root is being rotated, which waits for it.
const ROTATION_RETRY_PAUSE: Duration = Duration::from_secs(2);
/// How often the date is looked at.
const LOOK: Duration = Duration::from_secs(3600);
/// How long a manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gets certificates for a node; cheap to clone.
#[derive(Clone)]
pub(crate) struct Renewal {
    connector: Connector,
    files: NodeFiles,
    managers: Managers,
    trust: watch::Receiver<Option<Trust>>,
    /// Held while certificate or roots change: of two renewals at once, the certificate of a former role might be kept,
    /// and a renewal may add a root to those that it read before.
    alone: Arc<Mutex<()>>,
}

impl Renewal {
    /// `trust` hears whom the node is to trust.
    pub(crate) fn new(
        connector: Connector,
        files: NodeFiles,
        managers: Managers,
        trust: watch::Receiver<Option<Trust>>,
    ) -> Renewal {
        Renewal { connector, files, managers, trust, alone: Arc::default() }
    }

    /// Renews until the node ends.
    pub(crate) async fn run(self) {
        let mut changes = self.connector.credentials().changes();
        let mut trust = self.trust.clone();
        let mut exposed = self.files.vault().exposed();
        let spread = rand::random();
        loop {
            changes.mark_unchanged();
            trust.mark_unchanged();
            exposed.mark_unchanged();
            let due = match self.keep_up(spread).await {
                Ok(due) => due,
                Err(e) => {
                    tracing::warn!("cannot renew this node's certificate: {e:#}");
                    let rotating = !self.is_of_wanted_root();
                    let pause = if rotating { ROTATION_RETRY_PAUSE } else { RETRY_PAUSE };
                    OffsetDateTime::now_utc() + pause
                }
            };
            let changed = tokio::select! {
                () = until(due) => Ok(()),
                changed = changes.changed() => changed,
                changed = trust.changed() => changed,
                changed = exposed.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Does what is due now; returns when to look again.
    async fn keep_up(&self, spread: f64) -> Result<OffsetDateTime> {
        let heard = self.trust.borrow().clone();
        if let Some(trust) = heard {
            let _alone = self.alone.lock().await;
            self.take_up(&trust)?;
        }
        let identity = self.identity()?;
        if !self.is_of_wanted_root()
            || *self.files.vault().exposed().borrow()
            || identity.renew_at(spread) <= OffsetDateTime::now_utc()
        {
            self.renew(identity.role()).await?;
        }
        Ok(self.identity()?.renew_at(spread))
    }

    fn identity(&self) -> Result<NodeIdentity> {
        self.connector.credentials().identity().context("this node has no certificate")
    }

    fn is_of_wanted_root(&self) -> bool {
        let identity = self.connector.credentials().identity();
        identity.is_some_and(|identity| self.is_wanted(&identity))
    }

    /// Whether a certificate is of the root that it is to be of, as far as this node has heard.
    fn is_wanted(&self, identity: &NodeIdentity) -> bool {
        self.trust.borrow().as_ref().is_none_or(|trust| {
            identity.issuer().is_some_and(|issuer| issuer.public_key == trust.issuer_public_key)
        })
    }

    /// Trusts whom the swarm says, and nobody else.
    fn take_up(&self, trust: &Trust) -> Result<()> {
        let roots = RootCert::list_from_pem(&trust.roots_pem).context("cannot read the roots")?;
        if roots == self.connector.credentials().roots() {
            return Ok(());
        }
        let own = self.identity()?;
        if let Some(foreign) = roots.iter().find(|root| root.cluster_id() != own.cluster_id()) {
            bail!("refused a root certificate of another cluster, {}", foreign.cluster_id());
        }
        self.set_roots(&roots)?;
        let digests: Vec<String> = roots.iter().map(|root| root.digest().to_string()).collect();
        tracing::info!("this node trusts {}", digests.join(" and "));
        Ok(())
    }

    fn set_roots(&self, roots: &[RootCert]) -> Result<()> {
        // On the disk first: what is trusted already is not saved again.
        save_roots(&self.files.pki(), roots)?;
        Ok(self.connector.credentials().set_roots(roots)?)
    }

    /// Gets a new certificate, only one for that role and of the root it is to be of: a manager whose replica lags
    /// behind does not know yet of a change.
    pub(crate) async fn renew(&self, role: Role) -> Result<()> {
        let _alone = self.alone.lock().await;
        let (key, csr_pem) = new_key_and_csr()?;
        let mut last = anyhow!("no manager is known");
        for manager in self.managers.all() {
            match self.ask(&manager.addr, &csr_pem).await {
                Ok(answer) => {
                    let identity = NodeIdentity::from_pem(&answer.cert_pem, &key)?;
                    if identity.role() == role && self.is_wanted(&identity) {
                        return self.adopt(identity, &answer);
                    }
                    last = anyhow!("the manager at {} does not know of the change", manager.addr);
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn adopt(&self, identity: NodeIdentity, answer: &RenewResponse) -> Result<()> {
        // The root may be new to this node. Which ones go, it is told in its session.
        let mut roots = self.connector.credentials().roots();
        let issuer = RootCert::list_from_pem(&answer.root_pem)?
            .into_iter()
            .find(|root| Some(root.issuer()) == identity.issuer())
            .context("the certificate is of none of the roots that came with it")?;
        if !roots.contains(&issuer) {
            roots.push(issuer);
            self.set_roots(&roots)?;
        }
        self.files.vault().save_identity(&identity)?;
        self.connector.credentials().set_identity(identity);
        tracing::info!("renewed this node's certificate");
        Ok(())
    }

    async fn ask(&self, addr: &str, csr_pem: &str) -> Result<RenewResponse> {
        let channel = self.connector.connect(addr, ExpectedPeer::Manager).await?;
        let request = RenewRequest { csr_pem: csr_pem.to_owned() };
        let mut client = MembershipClient::new(channel);
        let answer = tokio::time::timeout(PATIENCE, client.renew(request)).await;
        let answer = answer.with_context(|| format!("the manager at {addr} does not answer"))?;
        Ok(answer.with_context(|| format!("the manager at {addr} refuses"))?.into_inner())
    }
}

/// Waits for a date. The clock of timers stands still while a host sleeps, so it looks at the date often.
async fn until(date: OffsetDateTime) {
    loop {
        let left = Duration::try_from(date - OffsetDateTime::now_utc()).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await; // before the date is looked at again
    }
}
