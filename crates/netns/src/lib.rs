//! Work inside network namespaces.
//!
//! `setns` and `unshare` move the calling *thread*, so every visit is a thread of its own that ends with its work: no thread of
//! a runtime or of a pool is ever in a foreign namespace. Sockets that are opened in a visit, and programs that are
//! started in it, keep the namespace.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// `NSFS_MAGIC` of include/uapi/linux/magic.h: the file system of namespace files.
const NSFS: FsType = FsType(0x6e73_6673);
/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// What kept a visit to a network namespace from taking place.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} network namespace {}: {cause}", path.display())]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl Error {
    fn new(action: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        Self { action, path: path.to_owned(), cause: cause.into() }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        self.cause.raw_os_error().map(Errno::from_raw)
    }

    /// Whether there is no such namespace.
    pub fn is_missing(&self) -> bool {
        self.cause.kind() == io::ErrorKind::NotFound
    }
}

/// Tells a namespace from another that took its path: device and inode of nsfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The namespace with this device and inode.
    pub const fn of(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }
}

/// An open network namespace; keeps it alive.
#[derive(Debug, Clone)]
pub struct Namespace {
    file: Arc<File>,
    path: PathBuf,
    identity: Identity,
}

impl Namespace {
    /// Opens the namespace behind a file (`/proc/PID/ns/net`, `/run/netns/NAME`).
    ///
    /// # Errors
    /// If there is no file, or one that is no namespace's.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let no_namespace =
            || io::Error::new(io::ErrorKind::InvalidInput, "it is not a namespace file");
        Self::open_if_namespace(path)?.ok_or_else(|| Error::new("open", path, no_namespace()))
    }

    /// Opens the calling thread's namespace.
    ///
    /// # Errors
    /// If /proc is not there.
    pub fn own() -> Result<Self, Error> {
        Self::open(Path::new(OWN))
    }

    /// Opens the namespace at `path`, or the calling thread's where there is none.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_or_own(path: Option<&Path>) -> Result<Self, Error> {
        path.map_or_else(Self::own, Self::open)
    }

    /// As [`open`](Self::open), but `None` where there is nothing, or a plain file: what is left of a mount after a reboot or a
    /// crash.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn find(path: &Path) -> Result<Option<Self>, Error> {
        match Self::open_if_namespace(path) {
            Err(error) if error.is_missing() => Ok(None),
            other => other,
        }
    }

    fn open_if_namespace(path: &Path) -> Result<Option<Self>, Error> {
        let file = File::open(path).map_err(|error| Error::new("open", path, error))?;
        let inspect = |error| Error::new("inspect", path, error);
        if fstatfs(&file).map_err(|errno| inspect(errno.into()))?.filesystem_type() != NSFS {
            return Ok(None);
        }
        let metadata = file.metadata().map_err(inspect)?;
        let identity = Identity { device: metadata.dev(), inode: metadata.ino() };
        Ok(Some(Self { file: Arc::new(file), path: path.to_owned(), identity }))
    }

    /// Which namespace this is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Runs `work` inside, without blocking the runtime, which it has as its context. It is carried out even if the returned
    /// future is dropped.
    ///
    /// # Errors
    /// If the namespace cannot be entered, as without CAP_SYS_ADMIN; the caller's own needs no entering. If `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let namespace = self.clone();
        visit(&self.path, move || namespace.enter().map(|()| work())).await
    }

    /// As [`run`](Self::run), blocking the caller.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    ///
    /// # Panics
    /// If `work` does: its panic is passed on.
    pub fn run_blocking<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        thread::scope(|scope| {
            let visit = scope.spawn(|| self.enter().map(|()| work()));
            visit.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn enter(&self) -> Result<(), Error> {
        if Self::own()?.identity == self.identity {
            return Ok(());
        }
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::new("enter", &self.path, errno))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Runs `work` in a new namespace, which goes when the work is done unless something keeps it: a mount, a socket.
///
/// # Errors
/// If none can be made, as without CAP_SYS_ADMIN, or if `work` panics.
pub async fn in_new<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let path = Path::new("(new)");
    visit(path, move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::new("make", path, errno))?;
        Ok(work())
    })
    .await
}

/// Starts a thread and waits for what it answers.
async fn visit<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let runtime = Handle::current();
    let (tell, told) = oneshot::channel();
    let spawned = thread::Builder::new().name("netns".into()).spawn(move || {
        let _context = runtime.enter();
        // A dropped receiver means that nobody waits for the answer any more.
        let _ = tell.send(work());
    });
    spawned.map_err(|error| Error::new("start a thread in", path, error))?;
    let panicked = |_| Error::new("work in", path, io::Error::other("the thread panicked"));
    told.await.map_err(panicked)?
}
