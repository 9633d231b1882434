//! Work in another network namespace, by a thread that enters it and ends.

use std::{fs::File, io, path::Path, thread};

use nix::sched::{CloneFlags, setns};
use tokio::{runtime::Handle, sync::oneshot};

use crate::{Error, Result};

/// Runs `work` in the network namespace at `path`; sockets that it opens stay there. It has the caller's runtime.
pub(crate) async fn run_in<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let owned = path.to_owned();
    let runtime = Handle::current();
    let (answer, answered) = oneshot::channel();
    let spawned = thread::Builder::new().name("ipvs-netns".into()).spawn(move || {
        let _context = runtime.enter();
        // A dropped receiver means that nobody waits for the result any more.
        let _ = answer.send(enter(&owned).map(|()| work()));
    });
    spawned.map_err(|source| failed("start a thread for", path, source))?;
    let gone = || failed("enter", path, io::Error::other("the thread that should have died"));
    answered.await.unwrap_or_else(|_| Err(gone()))
}

fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|source| failed("open", path, source))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| failed("enter", path, errno.into()))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Namespace { action, path: path.to_owned(), source }
}
