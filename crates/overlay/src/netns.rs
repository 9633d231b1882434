//! Network namespaces as bind mounts, and work done inside them.
//!
//! `setns` and `unshare` change the calling *thread*, so every visit is a thread of its own that ends there: a thread of the
//! async runtime never leaves the host's namespace. Sockets opened in a visit keep their namespace when handed over.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};
use tokio::sync::oneshot;

use crate::Error;

/// `NSFS_MAGIC` of include/uapi/linux/magic.h: the file system of namespace files.
const NSFS: FsType = FsType(0x6e73_6673);

/// Runs `f` on a thread of its own inside the network namespace whose file is at `path`, and waits for it.
///
/// # Errors
/// If the file is missing or no network namespace, or without CAP_SYS_ADMIN.
///
/// # Panics
/// If `f` does: its panic is passed on.
pub fn in_netns<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let namespace = NetNs::open(path)?;
    thread::scope(|scope| {
        let visit = scope.spawn(|| namespace.enter().map(|()| f()));
        match visit.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// An open network namespace; keeps it alive.
#[derive(Debug, Clone)]
pub(crate) struct NetNs {
    file: Arc<File>,
    path: PathBuf,
    inode: u64,
}

impl NetNs {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Self::open_if_namespace(path)?.ok_or_else(|| {
            Error::file(
                "open network namespace",
                path,
                io::Error::new(io::ErrorKind::InvalidInput, "not a namespace file"),
            )
        })
    }

    /// `None` where there is nothing, or a plain file: what is left of a mount after a reboot or a crash.
    pub(crate) fn find(path: &Path) -> Result<Option<Self>, Error> {
        match Self::open_if_namespace(path) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => Ok(None),
            other => other,
        }
    }

    fn open_if_namespace(path: &Path) -> Result<Option<Self>, Error> {
        let failed = |e: io::Error| Error::file("open network namespace", path, e);
        let file = File::open(path).map_err(failed)?;
        let kind = fstatfs(&file).map_err(|e| failed(e.into()))?.filesystem_type();
        if kind != NSFS {
            return Ok(None);
        }
        Ok(Some(Self {
            inode: file.metadata().map_err(failed)?.ino(),
            file: Arc::new(file),
            path: path.to_owned(),
        }))
    }

    /// For `IFLA_NET_NS_FD`; valid while `self` lives.
    pub(crate) fn raw_fd(&self) -> i32 {
        use std::os::fd::AsRawFd;
        self.file.as_raw_fd()
    }

    pub(crate) fn same_as(&self, other: &NetNs) -> bool {
        self.inode == other.inode
    }

    fn enter(&self) -> Result<(), Error> {
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::file("enter network namespace", &self.path, e))
    }

    /// Runs `f` inside, on a thread of its own, without blocking the runtime.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let namespace = self.clone();
        visit(&self.path, move || namespace.enter().map(|()| f())).await
    }

    /// Makes a new namespace, runs `prepare` inside, and only then shows it at `path`: nobody sees a half-made one.
    pub(crate) async fn create<T: Send + 'static>(
        path: &Path,
        prepare: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<(Self, T), Error> {
        let target = path.to_owned();
        visit(path, move || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::file("make network namespace", &target, e))?;
            let made = prepare()?;
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&target)
                .map_err(|e| Error::file("create", &target, e))?;
            bind(Path::new("/proc/thread-self/ns/net"), &target)?;
            Ok((NetNs::open(&target)?, made))
        })
        .await
    }
}

/// Starts a thread for a visit and waits for its result.
async fn visit<T: Send + 'static>(
    path: &Path,
    f: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let failed = |source| Error::Thread { namespace: path.display().to_string(), source };
    let (tell, told) = oneshot::channel();
    thread::Builder::new()
        .name("netns".into())
        .spawn(move || {
            // The receiver is gone only if the caller was cancelled; nobody wants the result then.
            let _ = tell.send(f());
        })
        .map_err(failed)?;
    told.await.map_err(|_| failed(io::Error::other("the thread panicked")))?
}

/// Unmounts the namespace at `path` and deletes the file. What is gone already is fine.
pub(crate) async fn delete(path: PathBuf) -> Result<(), Error> {
    let failed = Error::Thread {
        namespace: path.display().to_string(),
        source: io::Error::other("the thread panicked"),
    };
    // An unmount waits for an RCU grace period: milliseconds that the runtime's threads have no time for.
    tokio::task::spawn_blocking(move || delete_now(&path)).await.map_err(|_| failed)?
}

fn delete_now(path: &Path) -> Result<(), Error> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(e) => return Err(Error::file("unmount", path, e)),
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path, e)),
        _ => Ok(()),
    }
}

/// Prepares the folder of namespace files, as iproute2 does (ip/ipnetns.c): a shared mount of its own, so that an unmount
/// reaches every mount namespace that has a copy. Otherwise a container started meanwhile would keep dead namespaces alive.
pub(crate) fn prepare_folder(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|e| Error::file("create folder", folder, e))?;
    match share(folder) {
        Err(e) if e.errno() == Some(Errno::EINVAL) => {
            bind(folder, folder)?;
            share(folder)
        }
        other => other,
    }
}

/// Undoes [`prepare_folder`].
pub(crate) fn remove_folder(folder: &Path) -> Result<(), Error> {
    match umount2(folder, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(e) => return Err(Error::file("unmount", folder, e)),
    }
    match fs::remove_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", folder, e)),
        _ => Ok(()),
    }
}

fn bind(source: &Path, target: &Path) -> Result<(), Error> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| Error::file("mount", target, e))
}

fn share(folder: &Path) -> Result<(), Error> {
    mount(None::<&str>, folder, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
        .map_err(|e| Error::file("share mount", folder, e))
}
