//! Logs of services and tasks, and commands run in a task: this manager calls the node that each task runs on.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use swarm_model::{Node, ServiceId, Task, TaskId};
use swarm_pki::ExpectedPeer;
use swarm_state::{State, Touched};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::types::{Exec, ExecInput, ExecOutput, LogLine, LogRecord, LogsQuery};
use super::{Api, resolve};
use crate::error::ApiError;
use crate::replica::store::Applied;
use crate::transport::task_io::TaskIo;

/// Log lines that may wait for a slow reader; then the nodes wait.
const QUEUE: usize = 256;

impl Api {
    /// The node a task is on, and what it does with its tasks.
    async fn task_io(&self, task: &Task) -> Result<(Arc<Node>, TaskIo), ApiError> {
        let node = self.store.read().node_of(task).cloned();
        let node = node.ok_or_else(|| {
            ApiError::Precondition(format!("task {} is not on any node", task.name()))
        })?;
        let hostname = &node.description.hostname;
        if !node.is_alive() {
            return Err(ApiError::Unavailable(format!("node {hostname} is down")));
        }
        let expected = ExpectedPeer::Node(node.id.to_string());
        let channel = self.peers.connector().connect(&node.description.listen_addr, expected).await;
        let channel = channel
            .map_err(|e| ApiError::Unavailable(format!("cannot reach node {hostname}: {e}")))?;
        Ok((Arc::clone(&node), TaskIo::new(channel)))
    }

    /// The logs of a task, or of all tasks of a service.
    pub async fn logs(&self, query: LogsQuery) -> Result<BoxStream<'static, LogRecord>, ApiError> {
        self.barrier().await?;
        let wanted = Wanted::find(&self.store.read(), &query.name)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(self.clone().gather_logs(wanted, query, sender));
        Ok(ReceiverStream::new(receiver).boxed())
    }

    async fn gather_logs(self, wanted: Wanted, query: LogsQuery, sender: mpsc::Sender<LogRecord>) {
        let mut events = self.store.events();
        let mut known: BTreeSet<TaskId> = BTreeSet::new();
        let mut readers = tokio::task::JoinSet::new();
        loop {
            while readers.try_join_next().is_some() {}
            let tasks = wanted.tasks(&self.store.read());
            for task in tasks.into_iter().filter(|task| known.insert(task.id.clone())) {
                readers.spawn(self.clone().read_logs(task, query.clone(), sender.clone()));
            }
            if !query.follow || !wanted.may_grow() {
                while readers.join_next().await.is_some() {}
                return;
            }
            tokio::select! {
                () = wanted.changed(&mut events) => {}
                () = sender.closed() => return,
            }
        }
    }

    async fn read_logs(self, task: Arc<Task>, query: LogsQuery, sender: mpsc::Sender<LogRecord>) {
        if let Err(e) = self.stream_logs(&task, &query, &sender).await {
            // The reader may be gone.
            let _ = sender.send(record(&task, "", Err(e.to_string()))).await;
        }
    }

    async fn stream_logs(
        &self,
        task: &Task,
        query: &LogsQuery,
        sender: &mpsc::Sender<LogRecord>,
    ) -> Result<(), ApiError> {
        let (node, mut io) = self.task_io(task).await?;
        let mut lines = io.logs(&task.id, query.follow, query.tail).await?;
        while let Some(line) = lines.try_next().await? {
            if sender.send(record(task, &node.description.hostname, Ok(line))).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Runs a command in a task. The end of `input` is the end of the command's input. The command is ended when nobody
    /// takes its output any more.
    pub async fn exec(
        &self,
        task: &str,
        exec: Exec,
        input: BoxStream<'static, ExecInput>,
    ) -> Result<BoxStream<'static, Result<ExecOutput, ApiError>>, ApiError> {
        self.barrier().await?;
        let task = resolve::task(&self.store.read(), task)?;
        if task.is_finished() {
            let state = task.status.state;
            return Err(ApiError::Precondition(format!("task {} is {state}", task.name())));
        }
        let (_, mut io) = self.task_io(&task).await?;
        io.exec(&task.id, exec, input).await
    }
}

fn record(task: &Task, node: &str, line: Result<LogLine, String>) -> LogRecord {
    LogRecord {
        task_id: task.id.clone(),
        task_name: format!("{}.{}", task.service_name, task.slot),
        node: node.to_owned(),
        line,
    }
}

/// Whose logs.
enum Wanted {
    Service(ServiceId),
    Task(TaskId),
}

impl Wanted {
    fn find(state: &State, name: &str) -> Result<Wanted, ApiError> {
        if let Ok(service) = resolve::service(state, name) {
            return Ok(Wanted::Service(service.id.clone()));
        }
        match resolve::task(state, name) {
            Ok(task) => Ok(Wanted::Task(task.id.clone())),
            Err(_) => Err(ApiError::NotFound(format!("service or task {name} not found"))),
        }
    }

    /// The tasks that have a log.
    fn tasks(&self, state: &State) -> Vec<Arc<Task>> {
        match self {
            Wanted::Service(id) => state.tasks_of(id).filter(|t| t.has_log()).cloned().collect(),
            Wanted::Task(id) => state.task(id).into_iter().cloned().collect(),
        }
    }

    fn may_grow(&self) -> bool {
        matches!(self, Wanted::Service(_))
    }

    async fn changed(&self, events: &mut broadcast::Receiver<Arc<Applied>>) {
        let Wanted::Service(id) = self else { return std::future::pending().await };
        while let Ok(applied) = events.recv().await {
            let concerned = |object: &Touched| matches!(object, Touched::Task(_, s) if s == id);
            if applied.touched.iter().any(concerned) {
                return;
            }
        }
    }
}
