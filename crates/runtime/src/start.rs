//! Starting a container, the daemon's side: write the bundle, run the shim, hear its report.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::bundle::{Bundle, Manifest};
use crate::error::{Failure, FileContext, RuntimeError, StartError};
use crate::monitor;
use crate::process::{ProcessId, Watched};
use crate::runtime::{Container, Inner, blocking};
use crate::shim::{self, Report};
use crate::spec::{ContainerSpec, ContainerState, Exit, Started};
use crate::sys;

/// How long a container may take to be set up before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest report of a shim.
const MAX_REPORT: u64 = 64 * 1024;

pub(crate) async fn start(inner: Arc<Inner>, spec: ContainerSpec) -> Result<Started, StartError> {
    spec.validate()?;
    let container = Arc::new(Container::new(&inner, &spec, ContainerState::Starting)?);
    if !inner.add(container.clone()) {
        return Err(StartError::Exists(spec.id));
    }
    if container.bundle.dir.exists() || container.bundle.data.exists() {
        inner.forget(&spec.id); // an earlier daemon's, not adopted: not ours to overwrite
        return Err(StartError::Exists(spec.id));
    }
    // The semaphore is never closed.
    let permit = inner.starts.acquire().await;
    let manifest = Manifest {
        cgroup: container.cgroup.clone(),
        data: container.bundle.data.clone(),
        log_limits: inner.log_limits(),
        spec,
    };
    let launched = launch(&inner.options.shim_exe, &container.bundle, manifest).await;
    drop(permit);
    match launched {
        Ok((shim, init, started)) => {
            container.set_init(init);
            container.state.send_replace(ContainerState::Running(started));
            monitor::watch(container, shim);
            Ok(started)
        }
        Err(e) => {
            discard(&inner, &container, &e).await;
            Err(e)
        }
    }
}

/// Removes what a failed start left, and wakes those who wait for it.
async fn discard(inner: &Inner, container: &Arc<Container>, error: &StartError) {
    let doomed = container.clone();
    let removed = blocking(move || {
        doomed.cgroup.destroy()?;
        doomed.bundle.remove()
    });
    if let Err(e) = removed.await {
        tracing::warn!("clean up after the failed start of container {}: {e}", container.id);
    }
    inner.forget(&container.id);
    container.state.send_replace(ContainerState::Exited(Exit {
        code: error.exit_code(),
        signal: None,
        oom_killed: false,
        finished_at: std::time::SystemTime::now(),
        error: Some(error.to_string()),
    }));
}

async fn launch(
    exe: &Path,
    bundle: &Bundle,
    manifest: Manifest,
) -> Result<(Watched, Option<OwnedFd>, Started), StartError> {
    let (exe, files) = (exe.to_owned(), bundle.clone());
    let (pidfd, pipe) = blocking(move || {
        files.create(&manifest)?;
        spawn(&exe, &files)
            .map_err(|source| RuntimeError::System { action: "run the shim", source })
    })
    .await?;
    let shim = Watched::new(pidfd)
        .map_err(|source| RuntimeError::System { action: "watch the shim", source })?;
    // Meanwhile: after a loss of power it must be known that a container which was said to run was here.
    let directories = bundle.clone();
    let synced = blocking(move || directories.sync());
    let (heard, synced) = tokio::join!(timeout(PATIENCE, hear(bundle, pipe)), synced);
    let outcome = match heard {
        Ok(Ok(Report::Started { init, started_at })) => opened(init).map(|fd| {
            let started = Started { pid: init.pid, started_at };
            (fd, started)
        }),
        Ok(Ok(Report::Failed(failure))) => Err(failure.into()),
        Ok(Err(e)) => Err(e),
        Err(_) => Err(StartError::Setup(format!(
            "no answer from the shim within {} s",
            PATIENCE.as_secs()
        ))),
    };
    match outcome.and_then(|started| synced.map(|()| started).map_err(StartError::from)) {
        Ok((init, started)) => Ok((shim, init, started)),
        Err(e) => {
            // It has ended or must: nothing of a failed start stays. Its container is killed with the cgroup.
            if let Err(e) = shim.signal(libc::SIGKILL) {
                tracing::warn!("kill a shim: {e}");
            }
            if let Err(e) = shim.ended().await {
                tracing::warn!("reap a shim: {e}");
            }
            Err(e)
        }
    }
}

fn opened(init: ProcessId) -> Result<Option<OwnedFd>, StartError> {
    let opened = init
        .open()
        .map_err(|source| RuntimeError::System { action: "watch the container", source });
    Ok(opened?)
}

/// Runs the shim; its pidfd, and the pipe it reports to.
fn spawn(exe: &Path, bundle: &Bundle) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let child = Command::new(exe)
        .arg0("swarmd")
        .arg(shim::CREATE)
        .arg(&bundle.dir)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(File::create(bundle.shim_log())?)
        .spawn()?;
    // Not reaped yet, so the pid is the child's.
    Ok((sys::pidfd_open(child.id() as i32)?, reader))
}

async fn hear(bundle: &Bundle, pipe: OwnedFd) -> Result<Report, StartError> {
    let read_error = |source| RuntimeError::System { action: "read the shim's report", source };
    let mut line = String::new();
    let receiver = pipe::Receiver::from_owned_fd(pipe).map_err(read_error)?;
    BufReader::new(receiver.take(MAX_REPORT)).read_line(&mut line).await.map_err(read_error)?;
    serde_json::from_str(&line).map_err(|_| StartError::Setup(last_words(bundle)))
}

/// For a shim that ended without a report.
fn last_words(bundle: &Bundle) -> String {
    let path = bundle.shim_log();
    let log = std::fs::read(&path).at("read", &path).unwrap_or_default();
    let tail =
        String::from_utf8_lossy(&log[log.len().saturating_sub(1000)..]).trim().replace('\n', "; ");
    Failure::setup(format!("the shim ended without a report: {tail}")).message
}
