//! `task exec`: a command in a task, with our standard streams and, with `-t`, our terminal.

use std::io::IsTerminal;

use swarm_proto::control::exec_input::Input;
use swarm_proto::control::exec_output::Output;
use swarm_proto::control::{ExecInput, ExecOutput, ExecStart};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::args::Exec;
use crate::client::Client;
use crate::error::Error;
use crate::signals::{EndSignals, listen};
use crate::terminal::{self, Mode};

/// Bytes of standard input in one message.
const PIECE: usize = 16 << 10;
/// Pieces that may wait for the task; then reading waits.
const QUEUE: usize = 16;

type Sender = mpsc::Sender<ExecInput>;

pub(super) async fn run(mut client: Client, flags: Exec) -> Result<(), Error> {
    let (interactive, tty) = (flags.interactive, flags.tty);
    if interactive && tty && !std::io::stdin().is_terminal() {
        return Err(Error::Usage("--tty needs a terminal as standard input".to_owned()));
    }
    let (sender, receiver) = mpsc::channel(QUEUE);
    send(&sender, Input::Start(start(flags))).await;
    let output = client.control.exec(ReceiverStream::new(receiver)).await?.into_inner();
    // Before the terminal is changed: a signal that ended us at once would leave it raw.
    let signals = EndSignals::listen()?;
    // From here on errors are reported after the terminal is itself again: `_raw` ends before this function does.
    let _raw = if interactive && tty { Some(Mode::raw()?) } else { None };
    if interactive {
        tokio::spawn(pump_stdin(sender.clone()));
    }
    let code = attend(output, signals, &sender, tty).await?;
    if code == 0 { Ok(()) } else { Err(Error::Exit(code)) }
}

fn start(flags: Exec) -> ExecStart {
    let mut words = flags.task_and_command.into_iter();
    ExecStart {
        // clap has seen to it that there is one.
        task: words.next().unwrap_or_default(),
        args: words.collect(),
        tty: flags.tty,
        stdin: flags.interactive,
        size: if flags.tty { terminal::size() } else { None },
        env: flags.env.into_iter().flatten().collect(),
        user: flags.user.unwrap_or_default(),
        workdir: flags.workdir.unwrap_or_default(),
    }
}

async fn send(sender: &Sender, input: Input) -> bool {
    sender.send(ExecInput { input: Some(input) }).await.is_ok()
}

/// Hands standard input on, and its end. An input that cannot be read has ended.
async fn pump_stdin(sender: Sender) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; PIECE];
    loop {
        let count = stdin.read(&mut buffer).await.unwrap_or(0);
        let input = match count {
            0 => Input::StdinClosed(true),
            count => Input::Stdin(buffer[..count].to_vec().into()),
        };
        if !send(&sender, input).await || count == 0 {
            return;
        }
    }
}

/// Writes what the command writes, until it ends; gives its exit code.
async fn attend(
    mut output: Streaming<ExecOutput>,
    mut signals: EndSignals,
    sender: &Sender,
    tty: bool,
) -> Result<u8, Error> {
    let mut resized = listen(SignalKind::window_change())?;
    loop {
        // When a signal ends us, swarmd ends the command: we hang up.
        let message = tokio::select! {
            message = output.message() => message?,
            code = signals.next() => return Ok(code),
            _ = resized.recv() => {
                if let Some(size) = terminal::size().filter(|_| tty) {
                    send(sender, Input::Resize(size)).await;
                }
                continue;
            }
        };
        match message.map(|message| message.output) {
            Some(Some(Output::Stdout(bytes))) => write(tokio::io::stdout(), &bytes).await?,
            Some(Some(Output::Stderr(bytes))) => write(tokio::io::stderr(), &bytes).await?,
            // Only the low byte is an exit status.
            Some(Some(Output::ExitCode(code))) => return Ok(u8::try_from(code).unwrap_or(1)),
            Some(None) => {}
            None => return Err(Error::Lost("the command ended without an exit code".to_owned())),
        }
    }
}

async fn write(mut to: impl tokio::io::AsyncWrite + Unpin, bytes: &[u8]) -> Result<(), Error> {
    to.write_all(bytes).await.map_err(Error::Output)?;
    to.flush().await.map_err(Error::Output)
}
