//! `service logs`, `task logs` and `task exec`: this manager calls the node that each task runs on.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_model::{Node, Task, TaskId};
use swarm_pki::ExpectedPeer;
use swarm_proto::control::{ExecInput, ExecOutput, LogRecord, LogsRequest, exec_input};
use swarm_proto::taskio::TaskLogsRequest;
use swarm_proto::taskio::task_io_client::TaskIoClient;
use swarm_state::{State, Touched};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Control, resolve};

/// Log lines that may wait for a slow reader; then the nodes wait.
const QUEUE: usize = 256;
/// Pieces of a console's input that may wait for the node.
const EXEC_QUEUE: usize = 16;

impl Control {
    /// The node a task is on, and its TaskIo service.
    async fn task_io(&self, task: &Task) -> Result<(Arc<Node>, TaskIoClient<Channel>), Status> {
        let node = self.store.read().node_of(task).cloned();
        let node = node.ok_or_else(|| {
            Status::failed_precondition(format!("task {} is not on any node", task.name()))
        })?;
        let hostname = &node.description.hostname;
        if !node.is_alive() {
            return Err(Status::unavailable(format!("node {hostname} is down")));
        }
        let expected = ExpectedPeer::Node(node.id.to_string());
        let channel = self.peers.connector().connect(&node.description.listen_addr, expected).await;
        let channel = channel
            .map_err(|e| Status::unavailable(format!("cannot reach node {hostname}: {e}")))?;
        Ok((Arc::clone(&node), TaskIoClient::new(channel)))
    }

    pub(super) async fn logs_now(
        &self,
        request: LogsRequest,
    ) -> Result<ReceiverStream<Result<LogRecord, Status>>, Status> {
        self.barrier().await?;
        let wanted = Wanted::find(&self.store.read(), &request.name)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(self.clone().gather_logs(wanted, request, sender));
        Ok(ReceiverStream::new(receiver))
    }

    async fn gather_logs(
        self,
        wanted: Wanted,
        request: LogsRequest,
        sender: mpsc::Sender<Result<LogRecord, Status>>,
    ) {
        let mut events = self.store.events();
        let mut known: BTreeSet<TaskId> = BTreeSet::new();
        let mut readers = tokio::task::JoinSet::new();
        loop {
            while readers.try_join_next().is_some() {}
            let tasks = wanted.tasks(&self.store.read());
            for task in tasks.into_iter().filter(|task| known.insert(task.id.clone())) {
                readers.spawn(self.clone().read_logs(task, request.clone(), sender.clone()));
            }
            if !request.follow || !wanted.may_grow() {
                while readers.join_next().await.is_some() {}
                return;
            }
            tokio::select! {
                () = wanted.changed(&mut events) => {}
                () = sender.closed() => return,
            }
        }
    }

    async fn read_logs(
        self,
        task: Arc<Task>,
        request: LogsRequest,
        sender: mpsc::Sender<Result<LogRecord, Status>>,
    ) {
        if let Err(e) = self.stream_logs(&task, &request, &sender).await {
            let record = LogRecord { err: e.message().to_owned(), ..header(&task, "") };
            // The reader may be gone.
            let _ = sender.send(Ok(record)).await;
        }
    }

    async fn stream_logs(
        &self,
        task: &Task,
        request: &LogsRequest,
        sender: &mpsc::Sender<Result<LogRecord, Status>>,
    ) -> Result<(), Status> {
        let (node, mut client) = self.task_io(task).await?;
        let call = TaskLogsRequest {
            task_id: task.id.to_string(),
            follow: request.follow,
            tail: request.tail,
        };
        let mut lines = client.logs(call).await?.into_inner();
        while let Some(line) = lines.message().await? {
            let record = LogRecord {
                time: line.time,
                stream: line.stream,
                line: line.line,
                ..header(task, &node.description.hostname)
            };
            if sender.send(Ok(record)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn exec_now(
        &self,
        mut input: Streaming<ExecInput>,
    ) -> Result<Streaming<ExecOutput>, Status> {
        let Some(ExecInput { input: Some(exec_input::Input::Start(mut start)) }) =
            input.message().await?
        else {
            return Err(Status::invalid_argument("exec begins with what to run"));
        };
        self.barrier().await?;
        let task = resolve::task(&self.store.read(), &start.task)?;
        if task.is_finished() {
            let state = task.status.state;
            return Err(Status::failed_precondition(format!("task {} is {state}", task.name())));
        }
        let (_, mut client) = self.task_io(&task).await?;
        start.task = task.id.to_string();
        let (to_node, from_client) = mpsc::channel(EXEC_QUEUE);
        let first = ExecInput { input: Some(exec_input::Input::Start(start)) };
        tokio::spawn(pass_on(first, input, to_node));
        Ok(client.exec(ReceiverStream::new(from_client)).await?.into_inner())
    }
}

/// Hands the client's input to the node. When the client hangs up, so do we: the node ends the command.
async fn pass_on(first: ExecInput, mut rest: Streaming<ExecInput>, node: mpsc::Sender<ExecInput>) {
    let mut next = Some(first);
    while let Some(input) = next {
        if node.send(input).await.is_err() {
            return;
        }
        next = rest.message().await.ok().flatten();
    }
}

fn header(task: &Task, node: &str) -> LogRecord {
    LogRecord {
        task_id: task.id.to_string(),
        task_name: format!("{}.{}", task.service_name, task.slot),
        node: node.to_owned(),
        ..LogRecord::default()
    }
}

/// Whose logs.
enum Wanted {
    Service(swarm_model::ServiceId),
    Task(TaskId),
}

impl Wanted {
    fn find(state: &State, name: &str) -> Result<Wanted, Status> {
        if let Ok(service) = resolve::service(state, name) {
            return Ok(Wanted::Service(service.id.clone()));
        }
        match resolve::task(state, name) {
            Ok(task) => Ok(Wanted::Task(task.id.clone())),
            Err(_) => Err(Status::not_found(format!("service or task {name} not found"))),
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

    async fn changed(
        &self,
        events: &mut tokio::sync::broadcast::Receiver<Arc<crate::replica::store::Applied>>,
    ) {
        let Wanted::Service(id) = self else { return std::future::pending().await };
        while let Ok(applied) = events.recv().await {
            let concerned = |object: &Touched| matches!(object, Touched::Task(_, s) if s == id);
            if applied.touched.iter().any(concerned) {
                return;
            }
        }
    }
}
