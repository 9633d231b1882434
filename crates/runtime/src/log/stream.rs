//! Log lines for the daemon: the past, and with `follow` the present until the container has ended.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};

use super::Stream;
use super::changes::Subscription;
use super::cursor::Cursor;
use crate::spec::ContainerState;

/// Lines buffered for a slow reader; the rest waits in the files.
const BUFFERED: usize = 64;

/// Which lines are wanted.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Goes on until the container has ended and its output is read, or it is deleted.
    pub follow: bool,
    /// Only the last so many of the lines that are there.
    pub tail: Option<usize>,
    /// Only lines printed at or after this time.
    pub since: Option<SystemTime>,
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
}

impl Default for LogOptions {
    /// All that is there, of both streams.
    fn default() -> Self {
        Self { follow: false, tail: None, since: None, stdout: true, stderr: true }
    }
}

/// One line that a container printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the line was complete.
    pub time: SystemTime,
    /// Where it was printed to.
    pub stream: Stream,
    /// Its bytes without the newline. What was not UTF-8 is U+FFFD, as with Docker.
    pub line: Vec<u8>,
    /// The line goes on in the stream's next record: it is longer than 16 KiB. (Or the container ended without a newline.)
    pub partial: bool,
}

/// Lines as they are read. Dropping it ends the reading.
#[derive(Debug)]
pub struct LogStream(mpsc::Receiver<io::Result<LogLine>>);

impl LogStream {
    /// The next line; none at the end.
    ///
    /// # Errors
    /// If a log file cannot be read; nothing follows then.
    pub async fn next(&mut self) -> Option<io::Result<LogLine>> {
        self.0.recv().await
    }
}

impl tokio_stream::Stream for LogStream {
    type Item = io::Result<LogLine>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// Starts reading the logs in `dir`. With `follow`, `changes` wakes it until `state` says that the container has ended.
/// What is printed after this returns is new to `tail`, and only for followers.
pub(crate) async fn open(
    dir: PathBuf,
    options: LogOptions,
    changes: Option<Subscription>,
    state: watch::Receiver<ContainerState>,
) -> io::Result<LogStream> {
    let (sender, receiver) = mpsc::channel(BUFFERED);
    let cursor = blocking(move || Cursor::open(dir, &options)).await?;
    tokio::spawn(async move {
        if let Err(e) = run(cursor, changes, state, &sender).await {
            // A reader that has gone needs no error.
            let _ = sender.send(Err(e)).await;
        }
    });
    Ok(LogStream(receiver))
}

async fn run(
    mut cursor: Cursor,
    mut changes: Option<Subscription>,
    mut state: watch::Receiver<ContainerState>,
    sender: &mpsc::Sender<io::Result<LogLine>>,
) -> io::Result<()> {
    loop {
        // Looked at before reading: what was printed before the end is then read after it.
        let ended = matches!(*state.borrow_and_update(), ContainerState::Exited(_))
            || state.has_changed().is_err();
        let lines;
        (cursor, lines) = blocking(move || cursor.read().map(|lines| (cursor, lines))).await?;
        if lines.is_empty() {
            match &mut changes {
                Some(changes) if !ended => tokio::select! {
                    () = changes.changed() => {}
                    _ = state.changed() => {}
                    () = sender.closed() => return Ok(()),
                },
                _ => return Ok(()),
            }
        }
        for line in lines {
            if sender.send(Ok(line)).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
