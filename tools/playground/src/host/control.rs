//! The line protocol between the machine and a host's init: one request a connection, answered `ok TEXT` or `error TEXT`.

use crate::error::IoContext;
use crate::{Error, Result};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

pub(crate) const START_DAEMON: &str = "start-daemon";
pub(crate) const STOP_DAEMON: &str = "stop-daemon";
pub(crate) const KILL_DAEMON: &str = "kill-daemon";
pub(crate) const DAEMON_PID: &str = "daemon-pid";

/// Longer than init waits for a daemon to end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_LINE: u64 = 4096;

/// Answers requests one after the other; returns only when the socket fails.
pub(super) fn serve(
    listener: &UnixListener,
    handle: impl Fn(&str) -> std::result::Result<String, String>,
) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().io("accept on", "the control socket")?;
        if let Err(error) = answer(&stream, &handle) {
            eprintln!("control socket: {error}");
        }
    }
}

fn answer(
    mut stream: &UnixStream,
    handle: &impl Fn(&str) -> std::result::Result<String, String>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    let request = read_line(stream)?;
    let answer = match handle(&request) {
        Ok(text) => format!("ok {text}\n"),
        Err(text) => format!("error {text}\n"),
    };
    stream.write_all(answer.as_bytes())
}

/// Asks the init of `node` that listens on `socket`; gives the text of its answer.
pub(crate) fn request(node: &str, socket: &Path, request: &str) -> Result<String> {
    let context = || format!("{} for {request:?}", socket.display());
    let mut stream = UnixStream::connect(socket).io("connect to", context())?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).io("set a time-out on", context())?;
    stream.write_all(format!("{request}\n").as_bytes()).io("write to", context())?;
    let line = read_line(&stream).io("read from", context())?;
    match line.split_once(' ') {
        Some(("ok", text)) => Ok(text.to_owned()),
        Some(("error", text)) => Err(refusal(node, request, text)),
        _ => Err(refusal(node, request, &format!("answered {line:?}"))),
    }
}

fn refusal(node: &str, request: &str, reason: &str) -> Error {
    Error::Init { node: node.to_owned(), request: request.to_owned(), reason: reason.to_owned() }
}

fn read_line(stream: &UnixStream) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut line)?;
    Ok(line.trim_end_matches('\n').to_owned())
}
