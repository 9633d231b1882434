//! The agent's loop: it hears from a manager and waits for what goes on beside; `progress` says what is to be done about
//! each event, and the agent does it.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use swarm_model::{ManagerAddress, NodeView, ViewDelta};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::dataplane::DataPlane;
use crate::line::{self, Caller, Line};
use crate::memory::Memory;
use crate::networks::concerned;
use crate::progress::{Action, Event, Networks, Progress};
use crate::session::Heard;
use crate::standing::{Standing, Trust};
use crate::supervisor::Supervisor;

/// How often the kernel is compared with what it should hold.
const AUDIT: Duration = Duration::from_secs(30);
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
    pub(crate) progress: Progress,
}

/// What goes on beside the agent's hearing.
struct Ongoing {
    /// The line to the managers.
    line: Line,
    /// A job on the kernel.
    job: Option<BoxFuture<'static, Event>>,
    /// A pause; nothing is lost if it is not waited for.
    pause: Option<BoxFuture<'static, Event>>,
}

/// Waits for the end of a job or a pause, if there is one.
async fn ended(ongoing: &mut Option<BoxFuture<'static, Event>>) -> Event {
    let event = match ongoing {
        Some(end) => end.await,
        None => std::future::pending().await,
    };
    *ongoing = None;
    event
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

/// Waits until so many changes are in the file, and the tasks have said what became of them; for ever, if none
/// is given.
async fn kept(
    kept: &mut watch::Receiver<u64>,
    supervisor: &Supervisor,
    changes: Option<u64>,
) -> Event {
    let Some(changes) = changes else { return std::future::pending().await };
    // An error means that the file's task has panicked: nothing is remembered any more, as it says.
    drop(kept.wait_for(|kept| *kept >= changes).await);
    supervisor.settled().await;
    Event::Kept(changes)
}

impl Agent {
    /// Takes up what is remembered, then follows managers until `left`: told to, it stops everything on
    /// this node; if the sender is dropped, containers live on.
    pub(crate) async fn run(mut self, left: oneshot::Receiver<()>) {
        audit(&self.plane, &self.memory().view).await;
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
        let line = self.caller.call(Duration::ZERO);
        let mut ongoing = Ongoing { line, job: None, pause: None };
        let mut audit = interval_at(Instant::now() + AUDIT, AUDIT);
        audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Only waiting is given up for another event, never work half-done.
            let event = tokio::select! {
                event = ongoing.line.next() => self.hear(event, &mut ongoing.line),
                changed = credentials.changed() => changed.is_ok().then_some(Event::CertificateChanged),
                event = ended(&mut ongoing.job) => Some(event),
                event = ended(&mut ongoing.pause) => Some(event),
                event = kept(&mut self.kept, &self.supervisor, self.progress.awaited()) => Some(event),
                _ = audit.tick() => Some(Event::AuditDue),
                () = reborn(&mut incarnation) => {
                    tracing::warn!("this node's keys of encrypted networks were lost: asking for new ones");
                    Some(Event::KeysLost)
                }
                asked = &mut left => {
                    if let Some(job) = ongoing.job
                        && let Event::Programmed(Err(reason)) = job.await
                    {
                        tracing::error!("{reason}");
                    }
                    return asked.is_ok();
                }
            };
            for action in event.map(|event| self.progress.on(event)).unwrap_or_default() {
                self.carry_out(action, &mut ongoing).await;
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

    /// Takes in what happened on the line; returns what of it matters for the progress.
    fn hear(&self, event: line::Event, line: &mut Line) -> Option<Event> {
        match event {
            line::Event::Opened(session) => {
                *line = Line::Open(session);
                Some(Event::Opened)
            }
            line::Event::Over => Some(Event::Over),
            line::Event::Removed => {
                tracing::error!("{REMOVED}; its tasks are stopped");
                self.caller.trouble.send_replace(REMOVED.into());
                let networks = self.take(NodeView::default().as_full_delta(0));
                Some(Event::Removed { networks })
            }
            line::Event::Heard(Heard::Delta(delta)) => {
                let revision = delta.revision;
                let networks = self.take(delta);
                Some(Event::Delta { revision, change: self.memory().changes, networks })
            }
            line::Event::Heard(Heard::Managers(managers)) => {
                self.note_managers(managers);
                None
            }
            line::Event::Heard(Heard::RaftId(raft_id)) => {
                let standing = Standing { node: self.plane.node.clone(), raft_id };
                self.standing.send_if_modified(|current| {
                    let differs = current.as_ref() != Some(&standing);
                    *current = Some(standing);
                    differs
                });
                None
            }
            line::Event::Heard(Heard::Trust(trust)) => {
                self.trust.send_replace(Some(trust));
                None
            }
        }
    }

    fn note_managers(&self, managers: Vec<ManagerAddress>) {
        // Without any, the way back would be lost.
        if !managers.is_empty() {
            self.change(|memory| memory.managers = managers);
        }
    }

    /// Applies a change to the view; returns the networks that it concerns.
    fn take(&self, delta: ViewDelta) -> Networks {
        let networks = concerned(&self.memory().view, &delta);
        self.change(|memory| memory.view.apply(delta));
        networks
    }

    async fn carry_out(&mut self, action: Action, ongoing: &mut Ongoing) {
        let memory = self.memory();
        match action {
            Action::Program(networks) => {
                let plane = Arc::clone(&self.plane);
                let job = async move {
                    let programmed = plane.program(&memory.view, networks).await;
                    Event::Programmed(programmed.map_err(|e| e.to_string()))
                };
                ongoing.job = Some(job.boxed());
            }
            Action::Audit => {
                let plane = Arc::clone(&self.plane);
                let job = async move {
                    audit(&plane, &memory.view).await;
                    Event::Audited
                };
                ongoing.job = Some(job.boxed());
            }
            Action::Pause(pause) => {
                ongoing.pause = Some(sleep(pause).map(|()| Event::PauseOver).boxed());
            }
            Action::UpdateTasks { may_start } => self.supervisor.update(&memory.view, may_start),
            Action::RemoveStrays => self.supervisor.remove_strays().await,
            Action::Admit(reason) => {
                tracing::error!("{reason}; trying again");
                if let Some(session) = ongoing.line.session() {
                    session.admit(reason).await;
                }
            }
            Action::Withdraw => {
                if let Some(session) = ongoing.line.session() {
                    session.admit(String::new()).await;
                }
            }
            Action::Acknowledge(revision) => {
                if let Some(session) = ongoing.line.session() {
                    session.acknowledge(revision).await;
                }
            }
            Action::Certify => {
                if let Some(session) = ongoing.line.session() {
                    session.certify(&self.caller.identity.tls_info()).await;
                }
            }
            Action::Call(pause) => ongoing.line = self.caller.call(pause),
        }
    }

    /// Stops everything on this node: it leaves the swarm.
    async fn clear(&mut self) {
        self.supervisor.clear().await;
        self.change(|memory| memory.view = NodeView::default());
        audit(&self.plane, &self.memory().view).await;
        if let Err(e) = self.plane.overlay.destroy().await {
            tracing::error!("{e}");
            return; // what is left of an encrypted network stays blocked
        }
        if let Err(e) = self.plane.encryption.destroy().await {
            tracing::error!("cannot remove the keys of encrypted networks: {e}");
        }
    }
}

async fn audit(plane: &DataPlane, view: &NodeView) {
    if let Err(e) = plane.audit(view).await {
        tracing::error!("{e}");
    }
}
