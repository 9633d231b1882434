//! Messages of `logs` and `exec`, from and to domain types.

use futures::stream::BoxStream;
use futures::{StreamExt, future};
use swarm_model::Timestamp;
use swarm_proto::control::{self as wire, exec_input, exec_output};
use swarm_proto::taskio;
use tonic::{Status, Streaming};

use crate::api::types::{Exec, ExecInput, ExecOutput, LogLine, LogRecord, LogsQuery, TerminalSize};

impl From<wire::LogsRequest> for LogsQuery {
    fn from(request: wire::LogsRequest) -> LogsQuery {
        let wire::LogsRequest { name, follow, tail } = request;
        LogsQuery { name, follow, tail }
    }
}

impl From<taskio::LogLine> for LogLine {
    fn from(line: taskio::LogLine) -> LogLine {
        let taskio::LogLine { time, stream, line } = line;
        LogLine { time: Timestamp(time), stream, line }
    }
}

impl From<LogRecord> for wire::LogRecord {
    fn from(record: LogRecord) -> wire::LogRecord {
        let about = wire::LogRecord {
            task_id: record.task_id.to_string(),
            task_name: record.task_name,
            node: record.node,
            ..wire::LogRecord::default()
        };
        match record.line {
            Ok(LogLine { time, stream, line }) => {
                wire::LogRecord { time: time.0, stream, line, ..about }
            }
            Err(err) => wire::LogRecord { err, ..about },
        }
    }
}

/// What an exec begins with: the task, the command, and the input that follows.
pub(super) async fn exec_of(
    mut input: Streaming<wire::ExecInput>,
) -> Result<(String, Exec, BoxStream<'static, ExecInput>), Status> {
    let first = input.message().await?.and_then(|message| message.input);
    let Some(exec_input::Input::Start(start)) = first else {
        return Err(Status::invalid_argument("exec begins with what to run"));
    };
    let wire::ExecStart { task, args, tty, stdin, size, env, user, workdir } = start;
    let size = size.map(Into::into);
    let exec = Exec { args, tty, stdin, size, env, user, workdir };
    // Whoever is cut off has hung up, too.
    let rest = input.take_while(|message| future::ready(message.is_ok()));
    let rest = rest.filter_map(|message| future::ready(message.ok().and_then(given)));
    Ok((task, exec, rest.boxed()))
}

/// None for a message that this version does not know, or that is out of place.
fn given(message: wire::ExecInput) -> Option<ExecInput> {
    match message.input? {
        exec_input::Input::Stdin(bytes) => Some(ExecInput::Stdin(bytes)),
        exec_input::Input::StdinClosed(_) => Some(ExecInput::StdinClosed),
        exec_input::Input::Resize(size) => Some(ExecInput::Resize(size.into())),
        exec_input::Input::Start(_) => None,
    }
}

/// The message that begins an exec in a task, by its id.
pub(super) fn start(task: String, exec: Exec) -> wire::ExecInput {
    let Exec { args, tty, stdin, size, env, user, workdir } = exec;
    let size = size.map(Into::into);
    let start = wire::ExecStart { task, args, tty, stdin, size, env, user, workdir };
    wire::ExecInput { input: Some(exec_input::Input::Start(start)) }
}

impl From<ExecInput> for wire::ExecInput {
    fn from(input: ExecInput) -> wire::ExecInput {
        let input = match input {
            ExecInput::Stdin(bytes) => exec_input::Input::Stdin(bytes),
            ExecInput::StdinClosed => exec_input::Input::StdinClosed(true),
            ExecInput::Resize(size) => exec_input::Input::Resize(size.into()),
        };
        wire::ExecInput { input: Some(input) }
    }
}

impl From<ExecOutput> for wire::ExecOutput {
    fn from(output: ExecOutput) -> wire::ExecOutput {
        let output = match output {
            ExecOutput::Stdout(bytes) => exec_output::Output::Stdout(bytes),
            ExecOutput::Stderr(bytes) => exec_output::Output::Stderr(bytes),
            ExecOutput::ExitCode(code) => exec_output::Output::ExitCode(code),
        };
        wire::ExecOutput { output: Some(output) }
    }
}

/// None for a message that this version does not know.
pub(super) fn output(message: wire::ExecOutput) -> Option<ExecOutput> {
    Some(match message.output? {
        exec_output::Output::Stdout(bytes) => ExecOutput::Stdout(bytes),
        exec_output::Output::Stderr(bytes) => ExecOutput::Stderr(bytes),
        exec_output::Output::ExitCode(code) => ExecOutput::ExitCode(code),
    })
}

impl From<wire::TerminalSize> for TerminalSize {
    fn from(size: wire::TerminalSize) -> TerminalSize {
        TerminalSize { rows: size.rows, columns: size.columns }
    }
}

impl From<TerminalSize> for wire::TerminalSize {
    fn from(size: TerminalSize) -> wire::TerminalSize {
        wire::TerminalSize { rows: size.rows, columns: size.columns }
    }
}
