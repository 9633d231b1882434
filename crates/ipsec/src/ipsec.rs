//! The public handle: one node's IPsec.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use swarm_netns::Namespace;
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use crate::{
    Changes, Desired, Error, Status, Unsupported, bypass,
    kernel::Kernel,
    ledger::Ledger,
    plan::{Plan, Planned, Step},
    probe,
};

/// Where things are.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds the file `ipsec.json`. Where a node keeps its keys over a reboot, this must outlive that too.
    pub dir: PathBuf,
    /// The network namespace of the VXLAN sockets, if it is not the process's own.
    pub host_netns: Option<PathBuf>,
}

/// A handle; clones share everything. Calls wait for each other, and are carried out even if nobody waits for them any more.
#[derive(Debug, Clone)]
pub struct Ipsec {
    host_netns: Option<PathBuf>,
    ledger: Arc<Mutex<Ledger>>,
    incarnation: Arc<watch::Sender<u64>>,
}

impl Ipsec {
    /// Whether this kernel has all that is needed.
    ///
    /// # Errors
    /// What it lacks.
    pub async fn probe(host_netns: Option<&Path>) -> Result<(), Unsupported> {
        probe::probe(host_netns).await
    }

    /// Takes over from the last process, or begins. Changes nothing in the kernel.
    ///
    /// # Errors
    /// If the run directory or the namespace cannot be used.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let Options { dir, host_netns } = options;
        let host = Namespace::open_or_own(host_netns.as_deref())?;
        let netns = host.identity();
        let ledger = host.run(move || Ledger::open(&dir, netns)).await??;
        let incarnation = Arc::new(watch::Sender::new(ledger.incarnation()));
        Ok(Self { host_netns, ledger: Arc::new(Mutex::new(ledger)), incarnation })
    }

    /// What the keys for sending must be derived from. When it changes, keys of the old incarnation that are still in use
    /// stay so, but those that were lost are not installed again.
    #[must_use]
    pub fn incarnation(&self) -> watch::Receiver<u64> {
        self.incarnation.subscribe()
    }

    /// Brings the kernel to the desired state: reads it, and changes what differs and is ours. At no moment does a packet
    /// leave or pass in clear that should not.
    ///
    /// Where a key in use was lost (its association is not in the kernel any more), nothing is sent to that peer, and a new
    /// incarnation is published.
    ///
    /// # Errors
    /// What the kernel refuses for one peer does not hold up the others.
    pub async fn program(&self, desired: &Desired) -> Result<Changes, Error> {
        desired.validate()?;
        let desired = desired.clone();
        self.work(move |ledger| program(ledger, &desired)).await
    }

    /// What passes, and what was dropped.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    pub async fn status(&self) -> Result<Status, Error> {
        self.work(|_| Status::of(&Kernel::open()?.read()?)).await
    }

    /// Removes all policies and associations of ours.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn destroy(&self) -> Result<(), Error> {
        let destroy = |_: &mut Ledger| {
            let mut kernel = Kernel::open()?;
            let steps = Plan::nothing(&kernel.read()?);
            steps.iter().try_for_each(|step| kernel.carry_out(step))
        };
        self.work(destroy).await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut ledger = self.ledger.clone().lock_owned().await;
        let incarnation = self.incarnation.clone();
        let work = move || {
            let done = work(&mut ledger);
            incarnation.send_if_modified(|published| {
                std::mem::replace(published, ledger.incarnation()) != ledger.incarnation()
            });
            done
        };
        Namespace::open_or_own(self.host_netns.as_deref())?.run(work).await?
    }
}

fn program(ledger: &mut Ledger, desired: &Desired) -> Result<Changes, Error> {
    if desired.deny {
        bypass::refuse(desired.local)?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut kernel = Kernel::open()?;
    let plan = Plan::new(&kernel.read()?, desired, |key| ledger.is_spent(key), now);
    let mut work = Work { kernel, changes: Changes::default(), failed: vec![] };
    work.carry_out(&plan.guard)?;

    let refused: Vec<_> = plan.refused.iter().map(|(_, fingerprint)| *fingerprint).collect();
    if ledger.turn(&refused, plan.fresh(desired.local))? {
        let peers: Vec<_> = plan.refused.iter().map(|(peer, _)| peer.to_string()).collect();
        if peers.is_empty() {
            info!("the ipsec incarnation is used up: a new one begins");
        } else {
            let peers = peers.join(", ");
            warn!(%peers, "ipsec associations in use were lost: nothing is sent there until new keys come");
        }
        work.changes.incarnation = Some(ledger.incarnation());
    }
    work.changes.waiting = plan.refused.len();
    work.carry_out(&plan.steps)?;
    Error::collect(work.failed.into_iter().map(|(_, error)| error).collect())?;
    Ok(work.changes)
}

/// Steps being carried out.
struct Work {
    kernel: Kernel,
    changes: Changes,
    failed: Vec<(IpAddr, Error)>,
}

impl Work {
    fn carry_out(&mut self, steps: &[Planned]) -> Result<(), Error> {
        for (peer, step) in steps {
            if peer.is_some_and(|peer| self.failed.iter().any(|(failed, _)| *failed == peer)) {
                continue;
            }
            let removes_denial = peer.is_none() && matches!(step, Step::DeletePolicy(_));
            if removes_denial && !self.failed.is_empty() {
                continue;
            }
            match (self.kernel.carry_out(step), peer) {
                (Ok(()), _) => self.count(step, peer.is_some()),
                (Err(error), Some(peer)) => self.failed.push((*peer, error)),
                (Err(error), None) => return Err(error),
            }
        }
        Ok(())
    }

    fn count(&mut self, step: &Step, of_a_peer: bool) {
        match step {
            Step::SetPolicy(..) | Step::DeletePolicy(_) if of_a_peer => self.changes.policies += 1,
            Step::SetPolicy(..) | Step::DeletePolicy(_) => self.changes.denials += 1,
            Step::AddSa(_) | Step::DeleteSa(_) => self.changes.associations += 1,
            Step::ForgetSa(_) => self.changes.forgotten += 1,
            Step::Settle => {}
        }
    }
}
