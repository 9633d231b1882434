//! The container's root file system: an overlay of the image's layers and a directory of its own, mounted in the shim's
//! mount namespace only, and what must be looked up or prepared in it.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use pathrs::Root;
use pathrs::flags::OpenFlags;

use super::setup_error;
use crate::bundle::{Bundle, Manifest};
use crate::error::Failure;
use crate::user::{self, User};

/// Enters a mount namespace of its own. Mounts made here stay here; mounts that the host takes away go away here too.
pub(super) fn enter_mount_namespace() -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| setup_error("create mount namespace", e))?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(|e| setup_error("make mounts private", e))
}

/// Mounts the overlay at the bundle's `rootfs`.
///
/// The options of mount(2) must fit in a page, and `:` and `,` in paths would need escapes; so the layers are named by
/// short symbolic links in one directory, which is the current one for the call.
pub(super) fn mount_overlay(bundle: &Bundle, manifest: &Manifest) -> Result<(), Failure> {
    let links = bundle.dir.join("l");
    let link = |target: &Path, name: &str| {
        symlink(target, links.join(name))
            .map_err(|e| setup_error(format_args!("link {}", target.display()), e))
    };
    DirBuilder::new()
        .mode(0o700)
        .create(&links)
        .map_err(|e| setup_error("create link directory", e))?;
    let mut names: Vec<String> = Vec::with_capacity(manifest.spec.layers.len());
    for (n, layer) in manifest.spec.layers.iter().enumerate() {
        if !layer.is_dir() {
            return Err(Failure::setup(format!("layer {} is not a directory", layer.display())));
        }
        let name = format!("{n:x}");
        link(layer, &name)?;
        names.push(name);
    }
    names.reverse(); // overlayfs wants the topmost first
    link(&bundle.upper(), "u")?;
    link(&bundle.work(), "w")?;
    let options = format!("lowerdir={},upperdir=u,workdir=w", names.join(":"));
    std::env::set_current_dir(&links).map_err(|e| setup_error("enter link directory", e))?;
    let target = bundle.rootfs();
    let try_mount = |options: &str| {
        mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(options))
    };
    // volatile: a task's root never outlives the task, so syncing it to disk (at each unmount!) is for nothing.
    let mounted = match try_mount(&format!("{options},volatile")) {
        Err(Errno::EINVAL) => try_mount(&options), // before Linux 5.10
        other => other,
    };
    mounted.map_err(|e| setup_error(format_args!("mount overlay of {} layers", names.len()), e))?;
    std::env::set_current_dir("/").map_err(|e| setup_error("enter /", e))
}

/// Looks `wanted` up in the user databases of the container whose root is `root`.
pub(super) fn resolve_user(root: &Root, wanted: &str) -> Result<User, Failure> {
    let passwd = read_database(root, "/etc/passwd")?;
    let group = read_database(root, "/etc/group")?;
    user::resolve(wanted, &passwd, &group).map_err(Failure::setup)
}

fn read_database(root: &Root, path: &str) -> Result<String, Failure> {
    let failed = |e: io::Error| setup_error(format_args!("read the image's {path}"), e);
    let file = match root.resolve(path) {
        Ok(handle) => handle,
        // An image from scratch has no users.
        Err(_) => return Ok(String::new()),
    };
    // O_NONBLOCK: the image may have put a FIFO there.
    let opened = file.reopen(OpenFlags::O_RDONLY | OpenFlags::O_NONBLOCK | OpenFlags::O_NOCTTY);
    let opened = opened.map_err(|e| setup_error(format_args!("open the image's {path}"), e))?;
    if !opened.metadata().map_err(failed)?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    opened.take(user::MAX_DATABASE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes the working directory, as Docker does, and takes dangling links from where files will be mounted.
pub(super) fn prepare(root: &Root, cwd: &str) -> Result<(), Failure> {
    if cwd != "/" {
        root.mkdir_all(cwd, &Permissions::from_mode(0o755))
            .map_err(|e| setup_error(format_args!("create working directory {cwd:?}"), e))?;
    }
    for path in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        // Debian's resolv.conf may point into a /run that only systemd fills.
        if root.resolve(path).is_err() && root.readlink(path).is_ok() {
            root.remove_file(path)
                .map_err(|e| setup_error(format_args!("remove dangling link {path}"), e))?;
        }
    }
    Ok(())
}

/// Opens a root directory; `path` may be a link of `/proc`.
pub(super) fn open(path: &Path) -> Result<Root, Failure> {
    let directory =
        fs::File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
    directory
        .map(Root::from_fd)
        .map_err(|e| setup_error(format_args!("open {}", path.display()), e))
}

/// Writes `config.json`, where libcontainer reads it.
pub(super) fn write_config(bundle: &Bundle, config: &serde_json::Value) -> Result<(), Failure> {
    fs::write(bundle.dir.join("config.json"), config.to_string())
        .map_err(|e| setup_error("write config.json", e))
}
