//! Blocking work inside the host's network namespace, on a thread of its own.
//!
//! A thread that entered a namespace never goes back to a pool: it ends with the work.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::Error;

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Tells a namespace from another: device and inode of nsfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

#[cfg(test)]
impl Identity {
    pub(crate) const fn of(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }
}

/// Runs `work` in the namespace at `path`, or in the caller's. It is carried out even if the returned future is dropped.
pub(crate) async fn run<T: Send + 'static>(
    path: Option<&Path>,
    work: impl FnOnce(Identity) -> T + Send + 'static,
) -> Result<T, Error> {
    let path = path.map(Path::to_owned);
    let named = path.clone().unwrap_or_else(|| PathBuf::from(OWN));
    let failed = |source| Error::file("start a thread in network namespace", &named, source);
    let (answer, answered) = oneshot::channel();
    let thread = thread::Builder::new().name("ipsec".into());
    let spawned = thread.spawn(move || {
        // A dropped receiver means that nobody waits for the answer any more.
        let _ = answer.send(enter(path.as_deref()).map(work));
    });
    spawned.map_err(failed)?;
    let died = || failed(io::Error::other("the thread panicked"));
    answered.await.unwrap_or_else(|_| Err(died()))
}

fn enter(path: Option<&Path>) -> Result<Identity, Error> {
    let named = path.unwrap_or(Path::new(OWN));
    let file = File::open(named).map_err(|e| Error::file("open network namespace", named, e))?;
    if path.is_some() {
        setns(&file, CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::file("enter network namespace", named, e))?;
    }
    let metadata =
        file.metadata().map_err(|e| Error::file("inspect network namespace", named, e))?;
    Ok(Identity { device: metadata.dev(), inode: metadata.ino() })
}
