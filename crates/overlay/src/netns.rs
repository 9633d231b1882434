//! Network namespaces as bind mounts.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use swarm_netns::Namespace;

use crate::Error;

/// Makes a new namespace, runs `prepare` inside, and only then shows it at `path`: nobody sees a half-made one.
pub(crate) async fn create<T: Send + 'static>(
    path: &Path,
    prepare: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<(Namespace, T), Error> {
    let target = path.to_owned();
    let make = move || {
        let made = prepare()?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&target)
            .map_err(|e| Error::file("create", &target, e))?;
        bind(Path::new("/proc/thread-self/ns/net"), &target)?;
        Ok((Namespace::open(&target)?, made))
    };
    swarm_netns::in_new(make).await?
}

/// Unmounts the namespace at `path` and deletes the file. What is gone already is fine.
pub(crate) async fn delete(path: PathBuf) -> Result<(), Error> {
    let failed = Error::file("unmount", &path, io::Error::other("the thread panicked"));
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
