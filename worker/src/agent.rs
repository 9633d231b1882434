//! The agent's loop: hear from a manager, program the data plane, tell the tasks, acknowledge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use swarm_model::{ManagerAddress, NetworkId, NodeView, ViewDelta};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::dataplane::{DataPlane, DataPlaneError};
use crate::line::{Caller, Event, Line};
use crate::memory::Memory;
use crate::networks::networks_of;
use crate::session::Heard;
use crate::standing::{Standing, Trust};
use crate::supervisor::Supervisor;

/// How often the kernel is compared with what it should hold.
const AUDIT: Duration = Duration::from_secs(30);
/// The pause before networks that could not be programmed are tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The pause before a node that was removed asks again: it is not going to be taken back.
const REMOVED_PAUSE: Duration = Duration::from_secs(30);
/// What the user of a node that was removed is told.
const REMOVED: &str = "this node was removed from the swarm: use \"swarmctl leave --force\" here, \
                       then it can join again";

/// A node's agent.
pub(crate) struct Agent {
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) supervisor: Supervisor,
    pub(crate) caller: Caller,
    /// What was heard; published for the tasks and for the file.
    pub(crate) memory: watch::Sender<Arc<Memory>>,
    /// What the managers say this node is.
    pub(crate) standing: watch::Sender<Option<Standing>>,
    /// Whom the managers say it is to trust.
    pub(crate) trust: watch::Sender<Option<Trust>>,
    /// Writes the file; ends once `memory` is gone.
    pub(crate) saving: JoinHandle<()>,
    /// How many changes of `memory` are in the file.
    pub(crate) kept: watch::Receiver<u64>,
    pub(crate) work: Work,
}

/// What of the view is not in the kernel yet, or not known to the managers.
#[derive(Default)]
pub(crate) struct Work {
    /// Networks to program.
    networks: BTreeSet<NetworkId>,
    /// Something was heard that the tasks have not been told.
    news: bool,
    /// To be acknowledged once the tasks were told...
    revision: Option<u64>,
    /// ...which they were, of as many changes, and these are in the file: a `swarmd` that is restarted must
    /// not take up a view older than what was acknowledged. Nor is it before the tasks have said what became of them.
    told: Option<u64>,
    /// What the manager was told of a failure; empty for none.
    admitted: String,
    /// The last try failed: the next one comes after a pause.
    failed: bool,
    /// An audit is due.
    audit: bool,
    /// The first view of a manager was taken up: what it does not name is nobody's.
    strays_removed: bool,
}

/// A job on the kernel. One runs at a time, and to its end; meanwhile the agent goes on hearing: `nft` may
/// be stuck for as long as half a minute.
struct Job {
    what: What,
    end: BoxFuture<'static, Result<(), DataPlaneError>>,
}

enum What {
    Program(BTreeSet<NetworkId>),
    Audit,
}

/// Waits for the end of the job, if there is one.
async fn ended(job: &mut Option<Job>) -> (What, Result<(), DataPlaneError>) {
    let result = match job {
        Some(job) => (&mut job.end).await,
        None => std::future::pending().await,
    };
    (job.take().map_or(What::Audit, |job| job.what), result)
}

/// Waits until this node's IPsec is another incarnation.
async fn reborn(incarnation: &mut Option<watch::Receiver<u64>>) {
    let changed = match incarnation {
        Some(incarnation) => incarnation.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}

/// Waits until so many changes are in the file, and the tasks have said whether they run; for ever, if none is given.
async fn kept(kept: &mut watch::Receiver<u64>, supervisor: &Supervisor, changes: Option<u64>) {
    match changes {
        Some(changes) => {
            // An error means that the file's task has panicked: nothing is remembered any more, as it says.
            drop(kept.wait_for(|kept| *kept >= changes).await);
            supervisor.settled().await;
        }
        None => std::future::pending().await,
    }
}

impl Agent {
    /// Takes up what is remembered, then follows managers until `left`: told to, it stops everything on
    /// this node; if the sender is dropped, containers live on.
    pub(crate) async fn run(mut self, left: oneshot::Receiver<()>) {
        self.audit().await;
        self.supervisor.resume(&self.memory().view);
        if self.follow(left).await {
            self.clear().await;
        }
        drop(self.memory);
        if let Err(e) = self.saving.await {
            tracing::error!("cannot remember what the managers said: {e}");
        }
    }

    /// Returns whether the node leaves.
    async fn follow(&mut self, mut left: oneshot::Receiver<()>) -> bool {
        let mut incarnation = self.plane.encryption.incarnation();
        let mut credentials = self.caller.identity.connector.credentials().changes();
        let mut line = self.caller.call(Duration::ZERO);
        let mut audit = interval_at(Instant::now() + AUDIT, AUDIT);
        audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut job: Option<Job> = None;
        loop {
            if job.is_none() && !self.work.failed {
                job = self.next_job();
            }
            // Only waiting is given up for another event, never work half-done.
            tokio::select! {
                event = line.next() => {
                    let opened = matches!(event, Event::Opened(_));
                    self.respond(event, &mut line);
                    if opened {
                        // It may have changed since the node described itself.
                        self.certify(&mut line).await;
                    }
                }
                changed = credentials.changed() => if changed.is_ok() {
                    self.certify(&mut line).await;
                },
                (what, result) = ended(&mut job) => self.finish(what, result, &mut line).await,
                () = kept(&mut self.kept, &self.supervisor, self.work.told) => self.acknowledge(&mut line).await,
                _ = audit.tick() => self.work.audit = true,
                () = reborn(&mut incarnation) => self.introduce_anew(&mut line),
                () = sleep(RETRY_PAUSE), if self.work.failed => self.work.failed = false, // before the next try
                asked = &mut left => {
                    if let Some(job) = job
                        && let Err(e) = job.end.await
                    {
                        tracing::error!("{e}");
                    }
                    return asked.is_ok();
                }
            }
        }
    }

    fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory.borrow())
    }

    fn change(&self, change: impl FnOnce(&mut Memory)) {
        self.memory.send_modify(|memory| {
            let memory = Arc::make_mut(memory);
            change(memory);
            memory.changes += 1;
        });
    }

    fn respond(&mut self, event: Event, line: &mut Line) {
        match event {
            Event::Opened(session) => {
                self.work.admitted.clear(); // this manager was told of no trouble yet
                *line = Line::Open(session);
            }
            Event::Over => {
                self.work.told = None;
                self.work.revision = None; // the next session begins with everything
                *line = self.caller.call(Duration::ZERO);
            }
            Event::Heard(Heard::Delta(delta)) => {
                self.work.revision = Some(delta.revision);
                self.take(delta);
            }
            Event::Heard(Heard::Managers(managers)) => self.note_managers(managers),
            Event::Heard(Heard::RaftId(raft_id)) => {
                let standing = Standing { node: self.plane.node.clone(), raft_id };
                self.standing.send_if_modified(|current| {
                    let differs = current.as_ref() != Some(&standing);
                    *current = Some(standing);
                    differs
                });
            }
            Event::Heard(Heard::Trust(trust)) => {
                self.trust.send_replace(Some(trust));
            }
            Event::Removed => {
                tracing::error!("{REMOVED}; its tasks are stopped");
                self.caller.trouble.send_replace(REMOVED.into());
                *line = self.caller.call(REMOVED_PAUSE);
                self.take(NodeView::default().as_full_delta(0));
            }
        }
    }

    /// The kernel lost keys: others are made for what a new session says of this node.
    fn introduce_anew(&mut self, line: &mut Line) {
        tracing::warn!("this node's keys of encrypted networks were lost: asking for new ones");
        self.work.revision = None; // the next session begins with everything
        *line = self.caller.call(Duration::ZERO);
    }

    fn note_managers(&self, managers: Vec<ManagerAddress>) {
        // Without any, the way back would be lost.
        if !managers.is_empty() {
            self.change(|memory| memory.managers = managers);
        }
    }

    fn take(&mut self, delta: ViewDelta) {
        self.work.news = true;
        self.work.told = None;
        self.work.networks.extend(networks_in(&delta));
        if delta.full {
            self.work.networks.extend(networks_of(&self.memory().view));
        }
        self.change(|memory| memory.view.apply(delta));
    }

    fn next_job(&mut self) -> Option<Job> {
        let (plane, memory) = (Arc::clone(&self.plane), self.memory());
        if self.work.news || !self.work.networks.is_empty() {
            self.work.news = false;
            let networks = std::mem::take(&mut self.work.networks);
            let wanted = networks.clone();
            let end = async move { plane.program(&memory.view, wanted).await };
            return Some(Job { what: What::Program(networks), end: end.boxed() });
        }
        if std::mem::take(&mut self.work.audit) {
            let end = async move { plane.audit(&memory.view).await };
            return Some(Job { what: What::Audit, end: end.boxed() });
        }
        None
    }

    async fn finish(&mut self, what: What, result: Result<(), DataPlaneError>, line: &mut Line) {
        let memory = self.memory();
        let networks = match what {
            What::Program(networks) => networks,
            What::Audit => {
                if let Err(e) = result {
                    tracing::error!("{e}");
                }
                return;
            }
        };
        if let Err(e) = result {
            // Only what succeeded may be acknowledged. But what is to stop must not wait for a network
            // that cannot be programmed.
            self.work.networks.extend(networks);
            self.work.news = true;
            self.work.failed = true;
            self.supervisor.update(&memory.view, false);
            self.admit(e.to_string(), line).await;
            return;
        }
        if self.work.news {
            return; // more was heard meanwhile: first that
        }
        self.supervisor.update(&memory.view, true);
        self.admit(String::new(), line).await;
        self.work.told = self.work.revision.map(|_| memory.changes);
        if !self.work.strays_removed {
            self.work.strays_removed = true;
            self.supervisor.remove_strays().await;
        }
    }

    async fn acknowledge(&mut self, line: &mut Line) {
        self.work.told = None;
        if let (Some(revision), Some(session)) = (self.work.revision.take(), line.session()) {
            session.acknowledge(revision).await;
        }
    }

    /// Tells the manager why this node lags behind, or that it no longer does.
    async fn admit(&mut self, reason: String, line: &mut Line) {
        if reason == self.work.admitted {
            return;
        }
        if !reason.is_empty() {
            tracing::error!("{reason}; trying again");
        }
        if let Some(session) = line.session() {
            session.admit(reason.clone()).await;
        }
        self.work.admitted = reason;
    }

    /// Tells the manager which certificate this node has now.
    async fn certify(&self, line: &mut Line) {
        if let Some(session) = line.session() {
            session.certify(&self.caller.identity.tls_info()).await;
        }
    }

    async fn audit(&self) {
        if let Err(e) = self.plane.audit(&self.memory().view).await {
            tracing::error!("{e}");
        }
    }

    /// Stops everything on this node: it leaves the swarm.
    async fn clear(&mut self) {
        self.supervisor.clear().await;
        self.change(|memory| memory.view = NodeView::default());
        self.audit().await;
        if let Err(e) = self.plane.overlay.destroy().await {
            tracing::error!("{e}");
            return; // what is left of an encrypted network stays blocked
        }
        if let Err(e) = self.plane.encryption.destroy().await {
            tracing::error!("cannot remove the keys of encrypted networks: {e}");
        }
    }
}

fn networks_in(delta: &ViewDelta) -> impl Iterator<Item = NetworkId> {
    let keys = delta.upsert.iter().map(|(key, _)| key).chain(&delta.remove);
    keys.filter_map(|key| key.network().cloned())
}
