//! Blocking work inside a network namespace, on a thread of its own.
//!
//! A thread that entered a namespace never goes back to a pool: it ends with the work. What it spawns, and every
//! socket it opens, belongs to the namespace.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::oneshot;

use crate::{Error, Result};

/// Tells a namespace from another that took its path: device and inode of nsfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// Runs `work` in the namespace at `path`. It is carried out even if the returned future is dropped.
pub(crate) async fn run<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(Identity) -> Result<T> + Send + 'static,
) -> Result<T> {
    let owned = path.to_owned();
    on_thread(path, move || work(enter(&owned)?)).await
}

/// Runs `work` in a new namespace, which goes when the work is done.
pub(crate) async fn run_in_new<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let path = Path::new("(new)");
    on_thread(path, move || {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| failed("create", Path::new("(new)"), errno.into()))?;
        work()
    })
    .await
}

async fn on_thread<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (answer, answered) = oneshot::channel();
    let spawned = thread::Builder::new().name("balancer".into()).spawn(move || {
        // A dropped receiver means that nobody waits for the answer any more.
        let _ = answer.send(work());
    });
    spawned.map_err(|source| failed("start a thread for", path, source))?;
    answered.await.unwrap_or_else(|_| Err(Error::WorkerDied { path: path.to_owned() }))
}

fn enter(path: &Path) -> Result<Identity> {
    let file = File::open(path).map_err(|source| failed("open", path, source))?;
    let metadata = file.metadata().map_err(|source| failed("inspect", path, source))?;
    setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| failed("enter", path, errno.into()))?;
    Ok(Identity { device: metadata.dev(), inode: metadata.ino() })
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Namespace { action, path: PathBuf::from(path), source }
}
