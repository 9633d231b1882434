//! The node that a task runs on, for the manager that is asked for the task's log or to run a command in it.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, future};
use swarm_model::TaskId;
use swarm_proto::control as wire;
use swarm_proto::taskio::TaskLogsRequest;
use swarm_proto::taskio::task_io_client::TaskIoClient;
use tonic::transport::Channel;

use super::streams;
use crate::api::types::{Exec, ExecInput, ExecOutput, LogLine};
use crate::error::ApiError;

/// What a command is sent. A type of its own, since the compiler does not see that a future which sends a boxed stream is
/// `Send` (rust-lang/rust#100013).
struct Inputs(BoxStream<'static, wire::ExecInput>);

impl Stream for Inputs {
    type Item = wire::ExecInput;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// A node, to be asked of its tasks.
pub(crate) struct TaskIo(TaskIoClient<Channel>);

impl TaskIo {
    pub(crate) fn new(channel: Channel) -> TaskIo {
        TaskIo(TaskIoClient::new(channel))
    }

    /// A task's log.
    pub(crate) async fn logs(
        &mut self,
        task: &TaskId,
        follow: bool,
        tail: Option<u64>,
    ) -> Result<BoxStream<'static, Result<LogLine, ApiError>>, ApiError> {
        let request = TaskLogsRequest { task_id: task.to_string(), follow, tail };
        let lines = self.0.logs(request).await?.into_inner();
        Ok(lines.map(|line| line.map(LogLine::from).map_err(ApiError::from)).boxed())
    }

    /// Runs a command in a task.
    pub(crate) async fn exec(
        &mut self,
        task: &TaskId,
        exec: Exec,
        input: BoxStream<'static, ExecInput>,
    ) -> Result<BoxStream<'static, Result<ExecOutput, ApiError>>, ApiError> {
        let start = streams::start(task.to_string(), exec);
        let input = stream::iter([start]).chain(input.map(wire::ExecInput::from));
        let input = Inputs(input.boxed());
        let outputs = self.0.exec(input).await?.into_inner();
        let outputs = outputs.filter_map(|output| {
            future::ready(match output {
                Ok(message) => streams::output(message).map(Ok),
                Err(status) => Some(Err(ApiError::from(status))),
            })
        });
        Ok(outputs.boxed())
    }
}
