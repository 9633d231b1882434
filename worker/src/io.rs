//! What managers ask of the node a task runs on: its logs, and commands run in it.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::StreamExt;
use swarm_pki::{PeerIdentity, require_manager};
use swarm_proto::control::{
    ExecInput, ExecOutput, ExecStart, TerminalSize, exec_input, exec_output,
};
use swarm_proto::taskio::task_io_server::TaskIo;
use swarm_proto::taskio::{LogLine, TaskLogsRequest};
use swarm_runtime::{ExecError, ExecReader, ExecSpec, LogOptions, RuntimeError, Stream as LogOf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::adapters::{Exec, Logs, Runtime};
use crate::managers::Managers;

/// Messages that may wait for a slow reader.
const QUEUE: usize = 32;
/// The most output in one message, in bytes.
const PIECE: usize = 16 << 10;

/// The gRPC service.
#[derive(Clone)]
pub(crate) struct TaskIoService {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) managers: Managers,
}

impl TaskIoService {
    /// Lets managers pass that this node has heard of: the certificate of a former one is good for a while yet.
    async fn admit(&self, peer: &PeerIdentity) -> Result<(), Status> {
        if self.managers.includes(&peer.node_id).await {
            return Ok(());
        }
        let text = format!("node {} is a manager no more, as far as this node knows", peer.node_id);
        Err(Status::failed_precondition(text))
    }
}

#[tonic::async_trait]
impl TaskIo for TaskIoService {
    type LogsStream = ReceiverStream<Result<LogLine, Status>>;

    async fn logs(
        &self,
        request: Request<TaskLogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let peer = require_manager(&request)?;
        self.admit(&peer).await?;
        let request = request.into_inner();
        let options = LogOptions {
            follow: request.follow,
            tail: request.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            ..LogOptions::default()
        };
        let lines = self.runtime.logs(&request.task_id, options).await.map_err(no_logs)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(send_lines(lines, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type ExecStream = ReceiverStream<Result<ExecOutput, Status>>;

    async fn exec(
        &self,
        request: Request<Streaming<ExecInput>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let peer = require_manager(&request)?;
        self.admit(&peer).await?;
        let mut input = request.into_inner();
        let Some(ExecInput { input: Some(exec_input::Input::Start(start)) }) =
            input.message().await?
        else {
            return Err(Status::invalid_argument("exec begins with what to run"));
        };
        let task = start.task.clone();
        let (sender, receiver) = mpsc::channel(QUEUE);
        match self.runtime.exec(&task, spec(start)).await {
            Ok(exec) => {
                tokio::spawn(run(exec, input, sender));
            }
            // As a shell would: the message on standard error, 126 or 127 as the exit code.
            Err(e @ (ExecError::CommandNotFound(_) | ExecError::NotExecutable(_))) => {
                let text = format!("{e}\n").into_bytes().into();
                let outputs = [
                    exec_output::Output::Stderr(text),
                    exec_output::Output::ExitCode(e.exit_code()),
                ];
                for output in outputs {
                    // The queue is fresh and larger.
                    let _ = sender.try_send(Ok(ExecOutput { output: Some(output) }));
                }
            }
            Err(e) => return Err(Status::failed_precondition(e.to_string())),
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn no_logs(error: RuntimeError) -> Status {
    match error {
        RuntimeError::NotFound(id) => {
            Status::not_found(format!("task {id} has no log on its node"))
        }
        e => Status::internal(e.to_string()),
    }
}

async fn send_lines(mut lines: Logs, sender: mpsc::Sender<Result<LogLine, Status>>) {
    loop {
        // A reader that left must not keep a follower of a silent log alive.
        let next = tokio::select! {
            next = lines.next() => next,
            () = sender.closed() => return,
        };
        let message = match next {
            None => return,
            Some(Ok(line)) => {
                let since = line.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                Ok(LogLine {
                    time: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
                    stream: if line.stream == LogOf::Stdout { "stdout" } else { "stderr" }.into(),
                    line: line.line.into(),
                })
            }
            Some(Err(e)) => Err(Status::internal(format!("cannot read the log: {e}"))),
        };
        if sender.send(message).await.is_err() {
            return;
        }
    }
}

fn spec(start: ExecStart) -> ExecSpec {
    ExecSpec {
        args: start.args,
        env: start.env,
        cwd: start.workdir,
        user: start.user,
        tty: start.tty,
        tty_size: start.size.map(rows_and_columns),
        stdin: start.stdin,
    }
}

fn rows_and_columns(size: TerminalSize) -> (u16, u16) {
    let fit = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    (fit(size.rows), fit(size.columns))
}

type Output = mpsc::Sender<Result<ExecOutput, Status>>;

/// Carries input and output until the command ends or the client is gone; then the command is ended.
async fn run(mut exec: Exec, input: Streaming<ExecInput>, sender: Output) {
    let (stdout, stderr) = (exec.stdout.take(), exec.stderr.take());
    let out = tokio::spawn(pump(stdout, sender.clone(), exec_output::Output::Stdout));
    let err = tokio::spawn(pump(stderr, sender.clone(), exec_output::Output::Stderr));
    let ended = {
        let feeding = feed(&mut exec, input);
        tokio::select! {
            ended = feeding => ended,
            () = sender.closed() => return,
        }
    };
    // What it printed before its end comes before its exit code.
    for reader in [out, err] {
        if reader.await.is_err() {
            return;
        }
    }
    let last = match ended {
        Ok(code) => Ok(ExecOutput { output: Some(exec_output::Output::ExitCode(code)) }),
        Err(e) => Err(Status::internal(e.to_string())),
    };
    // The client may be gone.
    let _ = sender.send(last).await;
}

/// Feeds the command until it ends.
async fn feed(exec: &mut Exec, mut input: Streaming<ExecInput>) -> Result<i32, ExecError> {
    let mut stdin = exec.stdin.take();
    let mut listening = true;
    loop {
        let message = tokio::select! {
            code = exec.process.wait() => return code,
            message = input.message(), if listening => message,
        };
        match message {
            Ok(Some(ExecInput { input: Some(exec_input::Input::Stdin(bytes)) })) => {
                let Some(writer) = stdin.as_mut() else { continue };
                // A command that has closed its input does not want the rest.
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    stdin = None;
                }
            }
            Ok(Some(ExecInput { input: Some(exec_input::Input::StdinClosed(_)) })) => stdin = None,
            Ok(Some(ExecInput { input: Some(exec_input::Input::Resize(size)) })) => {
                let (rows, columns) = rows_and_columns(size);
                if let Err(e) = exec.process.resize(rows, columns) {
                    tracing::debug!("cannot resize a terminal: {e}");
                }
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                listening = false;
                stdin = None;
            }
        }
    }
}

async fn pump(
    reader: Option<ExecReader>,
    sender: Output,
    kind: impl Fn(Bytes) -> exec_output::Output,
) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; PIECE];
    // A terminal's end reads as an error (EIO) once the command is gone.
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        let piece = Bytes::copy_from_slice(&buffer[..length]);
        if sender.send(Ok(ExecOutput { output: Some(kind(piece)) })).await.is_err() {
            return;
        }
    }
}
