//! One task on this node, from what the managers want of it to a container and back: it pulls the
//! image, builds the sandbox, starts the container, waits until it can serve, stops it, and says at each step how
//! far it is.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use swarm_dns::Scope;
use swarm_images::Reference;
use swarm_model::{
    Assignment, ContainerStatus, NetworkId, Readiness, TaskState, TaskStatus, Timestamp, Wanted,
    codec,
};
use swarm_runtime::{ContainerState, Exit, RuntimeError, StartError, Started};
use tokio::sync::watch;

use crate::adapters::{Dns, Image, Images, Overlay, Runtime};
use crate::container;
use crate::readiness::Waiting;
use crate::reporter::Reporter;

/// What the supervisor wants of a task.
#[derive(Clone)]
pub(crate) enum Order {
    /// The task as the managers have it now.
    Have(Arc<Assignment>),
    /// The managers have forgotten it: stop it if it runs, and remove all that is left of it.
    Forget,
}

/// MTU and `--internal` of a network the node is told of.
pub(crate) type NetworkFacts = Arc<dyn Fn(&NetworkId) -> Option<(u32, bool)> + Send + Sync>;

/// What every task uses.
pub(crate) struct Tools {
    pub(crate) overlay: Arc<dyn Overlay>,
    pub(crate) dns: Arc<dyn Dns>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) reporter: Reporter,
    pub(crate) networks: NetworkFacts,
}

/// A task's supervisor.
pub(crate) struct Supervised {
    task: Arc<Assignment>,
    orders: watch::Receiver<Order>,
    tools: Arc<Tools>,
    pid: i32,
    /// As long as it is held, the layers below the container's root cannot be removed.
    image: Option<Image>,
    /// Held until it has said whether it runs, if the managers think so.
    unsettled: Option<watch::Receiver<()>>,
}

/// Why a task did not come to run.
enum Refusal {
    /// It was told to stop before it ran.
    Stopped,
    /// The node cannot run it.
    Rejected(String),
    /// The container did not start; with the exit code Docker gives for that.
    Failed(String, i32),
}

impl Supervised {
    /// `found` is the container of this task that an earlier `swarmd` left. `unsettled` is dropped once it
    /// has said what became of that.
    pub(crate) async fn run(
        task: Arc<Assignment>,
        orders: watch::Receiver<Order>,
        tools: Arc<Tools>,
        found: Option<ContainerState>,
        unsettled: watch::Receiver<()>,
    ) {
        let mut this =
            Supervised { task, orders, tools, pid: 0, image: None, unsettled: Some(unsettled) };
        if this.task.wanted != Wanted::Keep {
            this.live(found).await;
        } else if matches!(found, Some(ContainerState::Running(_))) {
            this.unsettled = None;
            this.end_what_should_have().await;
        }
        this.unsettled = None;
        this.until_forgotten().await;
    }

    async fn live(&mut self, found: Option<ContainerState>) {
        let started = match found {
            Some(ContainerState::Running(started)) => {
                self.pid = started.pid;
                let waiting = self.adopt(started).await;
                self.unsettled = None;
                Ok(waiting)
            }
            // What became of it is what `wait` says, below: that the node was restarted, say.
            Some(ContainerState::Exited(_) | ContainerState::Starting) => Ok(None),
            // Tasks run once: another one is to take its place.
            None if self.task.began.0 => Err(Refusal::Failed("the container is gone".into(), 137)),
            None => {
                self.unsettled = None; // nobody thinks that it runs
                self.start().await
            }
        };
        let end = match started {
            Ok(waiting) => self.watch_over(waiting).await,
            Err(Refusal::Stopped) => self.status(TaskState::Shutdown, "stopped before it ran"),
            Err(Refusal::Rejected(err)) => {
                TaskStatus { err, ..self.status(TaskState::Rejected, "preparing") }
            }
            Err(Refusal::Failed(err, code)) => self.failed(err, code),
        };
        self.dismantle().await;
        self.image = None;
        self.tools.reporter.report(&self.task.id, end);
    }

    /// The managers hold the task for finished (its node was thought lost for good, say): so be it.
    async fn end_what_should_have(&mut self) {
        let grace = self.task.spec.container_spec.grace();
        if let Err(e) = self.tools.runtime.stop(self.task.id.as_str(), grace).await {
            tracing::warn!("task {}: {e}", self.task.name());
        }
        self.dismantle().await;
    }

    /// The way to a container that runs; if it is waited for, how.
    async fn start(&mut self) -> Result<Option<Waiting>, Refusal> {
        self.report(self.status(TaskState::Accepted, "accepted"));
        if self.is_told_to_stop() {
            return Err(Refusal::Stopped);
        }
        self.report(self.status(TaskState::Preparing, "preparing"));
        let image = self.pull().await?;
        let (config, layers) = (image.config.clone(), image.layers.clone());
        self.image = Some(image);
        self.report(self.status(TaskState::Starting, "starting"));
        let sandbox =
            container::sandbox(&self.task, &*self.tools.networks).map_err(Refusal::Rejected)?;
        let netns = self
            .tools
            .overlay
            .create_sandbox(&sandbox)
            .await
            .map_err(|e| Refusal::Rejected(e.to_string()))?;
        self.serve_names(&netns).await.map_err(Refusal::Rejected)?;
        let spec = container::container(&self.task, &config, layers, netns);
        let started = self.tools.runtime.start(&spec).await.map_err(refused)?;
        self.pid = started.pid;
        let waiting = Waiting::of(&self.task, &config, started.started_at);
        if waiting.is_none() {
            self.report_running(Readiness::Unchecked, "started").await;
        }
        Ok(waiting)
    }

    fn reference(&self) -> Result<Reference, swarm_images::ReferenceError> {
        self.task.spec.container_spec.image.parse()
    }

    async fn pull(&mut self) -> Result<Image, Refusal> {
        let rejected = |e: &dyn std::fmt::Display| Refusal::Rejected(e.to_string());
        let reference = self.reference().map_err(|e| rejected(&e))?;
        let images = self.tools.images.clone();
        tokio::select! {
            pulled = images.pull(&reference) => {
                pulled.map_err(|e| rejected(&e))
            }
            () = self.told_to_stop() => Err(Refusal::Stopped),
        }
    }

    /// Takes a running container over from an earlier `swarmd`: nothing of it is touched. If that one still waited for
    /// it, so does this.
    async fn adopt(&mut self, started: Started) -> Option<Waiting> {
        if let Ok(reference) = self.reference() {
            // Gone if it was removed while no swarmd held it: the container has its files open still.
            self.image = self.tools.images.get(&reference).await.ok();
        }
        let netns = self.tools.overlay.sandbox_netns(self.task.id.as_str());
        if let Err(e) = self.serve_names(&netns).await {
            tracing::error!("task {} runs on, but without DNS: {e}", self.task.name());
        }
        if let Some(status) = self.noted().await {
            self.report(status);
            return None;
        }
        let config = self.image.as_ref().map(|image| &image.config);
        let waiting = config.and_then(|c| Waiting::of(&self.task, c, started.started_at));
        if waiting.is_none() {
            self.report_running(Readiness::Unchecked, "started").await;
        }
        waiting
    }

    async fn serve_names(&self, netns: &std::path::Path) -> Result<(), String> {
        let id = self.task.id.as_str();
        let attached = self.task.networks_attachments.iter().map(|a| &a.network.id);
        let facts = attached.clone().map(|id| (self.tools.networks)(id));
        let external = facts.clone().count() == 0 || facts.flatten().any(|(_, internal)| !internal);
        let scope =
            Scope { networks: attached.map(|id| id.as_str().into()).collect(), relay: external };
        self.tools.dns.attach(id, netns, scope).await.map_err(|e| e.to_string())
    }

    /// Waits for the container's end, or brings it about; says meanwhile when it can serve. Returns the task's last status.
    async fn watch_over(&mut self, waiting: Option<Waiting>) -> TaskStatus {
        let runtime = self.tools.runtime.clone();
        let id = self.task.id.clone();
        let ended = tokio::select! {
            exit = runtime.wait(id.as_str()) => exit.map(|exit| (exit, false)),
            never = self.await_readiness(waiting) => match never {},
            () = self.told_to_stop() => {
                let grace = self.task.spec.container_spec.grace();
                runtime.stop(id.as_str(), grace).await.map(|exit| (exit, true))
            }
        };
        match ended {
            Ok((exit, asked)) => self.ended(&exit, asked),
            Err(e) => self.failed(e.to_string(), 137),
        }
    }

    /// Reports when the task can serve, if it is waited for; goes on for ever.
    async fn await_readiness(&self, waiting: Option<Waiting>) -> Infallible {
        if let Some(waiting) = waiting {
            let message = waiting.message();
            let say = || {
                let status = self.status(TaskState::Starting, &message);
                self.report(TaskStatus { readiness: Some(Readiness::Waiting), ..status });
            };
            let (readiness, message) =
                waiting.until_ready(&*self.tools.overlay, &self.task, say).await;
            self.report_running(readiness, &message).await;
        }
        std::future::pending().await
    }

    fn ended(&self, exit: &Exit, asked: bool) -> TaskStatus {
        let (state, message, err) = match () {
            () if asked => (TaskState::Shutdown, "shutdown", String::new()),
            () if exit.oom_killed => {
                let limit = self.task.spec.resources.limits.memory_bytes;
                let err = format!(
                    "out of memory: killed at its limit of {limit} bytes (exit code {})",
                    exit.code
                );
                (TaskState::Failed, "started", err)
            }
            () if exit.error.is_some() => {
                (TaskState::Failed, "started", exit.error.clone().unwrap_or_default())
            }
            () if exit.code == 0 => (TaskState::Complete, "finished", String::new()),
            () => (TaskState::Failed, "started", format!("task: non-zero exit ({})", exit.code)),
        };
        let mut status = self.status(state, message);
        status.err = err;
        status.timestamp = timestamp(exit.finished_at);
        status.container_status = Some(self.container_status(exit.code));
        status
    }

    fn failed(&self, err: String, code: i32) -> TaskStatus {
        let mut status = self.status(TaskState::Failed, "starting");
        status.err = err;
        status.container_status = Some(self.container_status(code));
        status
    }

    fn container_status(&self, exit_code: i32) -> ContainerStatus {
        ContainerStatus { container_id: self.task.id.to_string(), pid: self.pid, exit_code }
    }

    /// Takes the sandbox down. What cannot be removed now is a stray that the audit removes.
    async fn dismantle(&self) {
        let id = self.task.id.as_str();
        match self.tools.dns.detach(id).await {
            Ok(()) | Err(swarm_dns::Error::NotAttached { .. }) => {}
            Err(e) => tracing::warn!("task {}: {e}", self.task.name()),
        }
        if let Err(e) = self.tools.overlay.remove_sandbox(id).await {
            tracing::warn!("task {}: {e}", self.task.name());
        }
    }

    /// Keeps the logs of a task that ended until the managers forget it.
    async fn until_forgotten(&mut self) {
        let forget = |order: &Order| matches!(order, Order::Forget);
        if self.orders.wait_for(forget).await.is_err() {
            return; // swarmd ends; another one goes on.
        }
        let id = self.task.id.as_str();
        match self.tools.runtime.delete(id).await {
            Ok(()) | Err(RuntimeError::NotFound(_)) => {}
            Err(e) => tracing::warn!("task {}: {e}", self.task.name()),
        }
        self.tools.reporter.forget(&self.task.id);
    }

    async fn told_to_stop(&self) {
        if self.orders.clone().wait_for(tells_to_stop).await.is_err() {
            // swarmd ends: the container lives on.
            std::future::pending::<()>().await;
        }
    }

    fn is_told_to_stop(&self) -> bool {
        tells_to_stop(&self.orders.borrow())
    }

    fn report(&self, status: TaskStatus) {
        self.tools.reporter.report(&self.task.id, status);
    }

    /// Says that the task runs; the container's note has a later `swarmd` say the same, and not wait for it again.
    async fn report_running(&self, readiness: Readiness, message: &str) {
        let status = self.status(TaskState::Running, message);
        let status = TaskStatus { readiness: Some(readiness), ..status };
        let note = codec::encode(&status);
        if let Err(e) = self.tools.runtime.note(self.task.id.as_str(), note).await {
            tracing::warn!("task {}: {e}", self.task.name());
        }
        self.report(status);
    }

    /// What an earlier `swarmd` said when the task ran.
    async fn noted(&self) -> Option<TaskStatus> {
        let noted = self.tools.runtime.noted(self.task.id.as_str()).await;
        let status = noted.map(|note| note.map(|note| codec::decode(&note)).transpose());
        match status {
            Ok(Ok(status)) => status,
            Ok(Err(e)) => {
                tracing::warn!("task {}: cannot read its note: {e}", self.task.name());
                None
            }
            Err(e) => {
                tracing::warn!("task {}: {e}", self.task.name());
                None
            }
        }
    }

    fn status(&self, state: TaskState, message: &str) -> TaskStatus {
        TaskStatus {
            timestamp: timestamp(SystemTime::now()),
            state,
            message: message.to_owned(),
            err: String::new(),
            container_status: (self.pid != 0).then(|| self.container_status(0)),
            readiness: None,
        }
    }
}

fn tells_to_stop(order: &Order) -> bool {
    match order {
        Order::Have(task) => task.wanted != Wanted::Run,
        Order::Forget => true,
    }
}

fn refused(error: StartError) -> Refusal {
    let code = error.exit_code();
    Refusal::Failed(error.to_string(), code)
}

fn timestamp(moment: SystemTime) -> Timestamp {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().plus(since)
}
