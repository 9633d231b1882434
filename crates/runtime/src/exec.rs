//! A further process in a running container, the daemon's side: run `shim-exec`, get the process's ends of its pipes (or
//! its terminal) from it, and hear from it how the process ended.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::bundle::Bundle;
use crate::error::{ExecError, RuntimeError};
use crate::process::Watched;
use crate::runtime::blocking;
use crate::shim::{self, ExecRequest, ExecUpdate};
use crate::spec::ExecSpec;
use crate::sys;

/// How long a process may take to be placed in the container.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest message of `shim-exec`.
const MAX_MESSAGE: usize = 64 * 1024;

/// What the process reads.
pub type ExecWriter = Box<dyn AsyncWrite + Send + Unpin>;
/// What the process writes.
pub type ExecReader = Box<dyn AsyncRead + Send + Unpin>;

/// A process started by [`crate::Runtime::exec`]. Dropping it kills the process.
pub struct ExecSession {
    /// Its standard input or terminal; dropping it closes standard input (of a terminal: sends nothing).
    pub stdin: Option<ExecWriter>,
    /// Its standard output, or all its output if it has a terminal.
    pub stdout: Option<ExecReader>,
    /// Its standard error; none if it has a terminal.
    pub stderr: Option<ExecReader>,
    terminal: Option<Terminal>,
    control: AsyncFd<OwnedFd>,
    exit: Option<i32>,
}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecSession")
            .field("tty", &self.terminal.is_some())
            .field("exit", &self.exit)
            .finish()
    }
}

impl ExecSession {
    /// Sets the size of the terminal; does nothing without one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn resize(&self, rows: u16, cols: u16) -> io::Result<()> {
        match &self.terminal {
            Some(terminal) => sys::set_window_size(terminal.0.get_ref().as_fd(), rows, cols),
            None => Ok(()),
        }
    }

    /// Waits for the process's end; its exit code, or 128 + the signal that ended it. May be called again.
    ///
    /// # Errors
    /// [`ExecError::Lost`] if the helper process was killed.
    pub async fn wait(&mut self) -> Result<i32, ExecError> {
        if let Some(code) = self.exit {
            return Ok(code);
        }
        match receive(&self.control).await?.0 {
            ExecUpdate::Exited { code } => {
                self.exit = Some(code);
                Ok(code)
            }
            other => Err(ExecError::Lost(format!("unexpected message {other:?}"))),
        }
    }
}

/// Starts a process in the container of `bundle`, which runs.
pub(crate) async fn start(
    exe: &Path,
    bundle: &Bundle,
    spec: ExecSpec,
) -> Result<ExecSession, ExecError> {
    let (exe, files, tty) = (exe.to_owned(), bundle.clone(), spec.tty);
    let request = serde_json::to_vec(&ExecRequest { data: bundle.data.clone(), spec })
        .map_err(io::Error::from);
    let (helper, socket) = blocking(move || {
        request.and_then(|r| spawn(&exe, &files, &r)).map_err(|e| system("run the exec helper", e))
    })
    .await?;
    let helper = Watched::new(helper).map_err(|e| system("watch the exec helper", e))?;
    tokio::spawn(async move {
        if let Err(e) = helper.ended().await {
            tracing::warn!("reap an exec helper: {e}");
        }
    });
    // Dropped on every error below, which ends the helper and what it started.
    let control = sys::async_fd(socket, Interest::READABLE)
        .map_err(|e| system("watch the exec helper", e))?;
    match timeout(PATIENCE, receive(&control)).await {
        Err(_) => Err(ExecError::Setup(format!(
            "no answer from the exec helper within {} s",
            PATIENCE.as_secs()
        ))),
        Ok(Err(e)) => Err(e),
        Ok(Ok((ExecUpdate::Failed(failure), _))) => Err(failure.into()),
        Ok(Ok((ExecUpdate::Exited { .. }, _))) => {
            Err(ExecError::Lost("ended before it started".into()))
        }
        Ok(Ok((ExecUpdate::Started, fds))) => session(control, fds, tty)
            .map_err(|e| system("take over the process's files", e).into()),
    }
}

fn system(action: &'static str, source: io::Error) -> RuntimeError {
    RuntimeError::System { action, source }
}

fn session(control: AsyncFd<OwnedFd>, fds: Vec<OwnedFd>, tty: bool) -> io::Result<ExecSession> {
    let mut session = ExecSession {
        stdin: None,
        stdout: None,
        stderr: None,
        terminal: None,
        control,
        exit: None,
    };
    let mut fds = fds.into_iter();
    if tty {
        let terminal = Terminal::new(fds.next().ok_or(io::ErrorKind::UnexpectedEof)?)?;
        session.stdin = Some(Box::new(terminal.clone()));
        session.stdout = Some(Box::new(terminal.clone()));
        session.terminal = Some(terminal);
        return Ok(session);
    }
    let mut output = || -> io::Result<ExecReader> {
        let fd = fds.next().ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Box::new(pipe::Receiver::from_owned_fd(fd)?))
    };
    session.stdout = Some(output()?);
    session.stderr = Some(output()?);
    if let Some(fd) = fds.next() {
        session.stdin = Some(Box::new(pipe::Sender::from_owned_fd(fd)?));
    }
    Ok(session)
}

/// Runs `shim-exec` and gives it its request; its pidfd and the socket to talk with it.
fn spawn(exe: &Path, bundle: &Bundle, request: &[u8]) -> io::Result<(OwnedFd, OwnedFd)> {
    // Packets, so that messages keep their bounds; closing it is how the helper learns that nobody is interested.
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(request)], &[], MsgFlags::MSG_NOSIGNAL, None)?;
    let child = Command::new(exe)
        .arg0("swarmd")
        .arg(shim::EXEC)
        .arg(&bundle.dir)
        .env_clear()
        .current_dir("/")
        .stdin(theirs)
        .stdout(Stdio::null())
        .stderr(File::options().append(true).create(true).open(bundle.shim_log())?)
        .spawn()?;
    // Not reaped yet, so the pid is the child's.
    let pidfd = sys::pidfd_open(child.id() as i32)?;
    set_nonblocking(&ours)?;
    Ok((pidfd, ours))
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

async fn receive(control: &AsyncFd<OwnedFd>) -> Result<(ExecUpdate, Vec<OwnedFd>), ExecError> {
    let received = control.async_io(Interest::READABLE, |fd| receive_now(fd.as_raw_fd())).await;
    let (bytes, fds) = received.map_err(|e| system("hear from the exec helper", e))?;
    if bytes.is_empty() {
        return Err(ExecError::Lost("the exec helper was killed".into()));
    }
    let update = serde_json::from_slice(&bytes).map_err(|e| ExecError::Lost(e.to_string()))?;
    Ok((update, fds))
}

fn receive_now(socket: RawFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = cmsg_space!([RawFd; 3]);
    let mut fds = Vec::new();
    let length = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                for fd in received {
                    fds.push(sys::own(fd)?);
                }
            }
        }
        message.bytes
    };
    bytes.truncate(length);
    Ok((bytes, fds))
}

/// The master side of a pseudo terminal.
#[derive(Debug, Clone)]
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        Ok(Self(Arc::new(sys::async_fd(fd, Interest::READABLE | Interest::WRITABLE)?)))
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let unfilled = buf.initialize_unfilled();
            match guard
                .try_io(|fd| nix::unistd::read(fd.get_ref(), unfilled).map_err(io::Error::from))
            {
                Ok(Ok(n)) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the other side open any more: the end of the output.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard
                .try_io(|fd| nix::unistd::write(fd.get_ref(), bytes).map_err(io::Error::from))
            {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
