//! The file systems a host has for itself; the rest of the tree is the machine's.

use super::HostSpec;
use crate::Result;
use crate::cgroup::{Hierarchy, hierarchies};
use crate::error::IoContext;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const CGROUPS: &str = "/sys/fs/cgroup";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// systemd-resolved's list of real servers; the stub it puts in resolv.conf listens on the machine's loopback only.
const RESOLVED_SERVERS: &str = "/run/systemd/resolve/resolv.conf";

/// Mounts /proc, /sys with the cgroups as this host may see them, /run, and the host's /etc/resolv.conf and /etc/hosts.
pub(super) fn set_up(spec: &HostSpec) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).io("make a mount namespace for", &spec.hostname)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .io("make private", "/")?;
    let cgroups = hierarchies()?;
    let aliases = cgroup_aliases();
    let resolv_conf = resolv_conf();
    replace("proc", "/proc", None)?;
    replace("sysfs", "/sys", None)?;
    mount_cgroups(&cgroups, &aliases)?;
    detach_below_run()?;
    new_mount("tmpfs", "/run", Some("mode=755"))?;
    for dir in ["/run/lock", "/run/netns", "/run/playground"] {
        fs::create_dir_all(dir).io("create", dir)?;
    }
    overlay_file("resolv.conf", &resolv_conf, RESOLV_CONF)?;
    overlay_file("hosts", &hosts_file(spec), "/etc/hosts")
}

fn new_mount(kind: &str, target: &str, data: Option<&str>) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), data).io("mount", target)
}

/// Mounts a new instance where the machine's is. Its old mounts go from view, so that nobody finds the wrong one in mountinfo.
fn replace(kind: &str, target: &str, data: Option<&str>) -> Result<()> {
    // What is no mount point here has nothing to detach.
    let _ = umount2(target, MntFlags::MNT_DETACH);
    new_mount(kind, target, data)
}

/// The machine's namespaces in /run/netns and such are not the host's: they would show in its mount table and be held by it.
fn detach_below_run() -> Result<()> {
    let text = fs::read_to_string("/proc/self/mountinfo").io("read", "/proc/self/mountinfo")?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    let below: Vec<&str> = points.filter(|point| point.starts_with("/run/")).collect();
    for point in below.iter().rev() {
        match umount2(*point, MntFlags::MNT_DETACH) {
            // It went with another one above it.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(errno).io("detach", point),
        }
    }
    Ok(())
}

/// The same hierarchies as on the machine; in a new cgroup namespace their root is the host's group.
fn mount_cgroups(hierarchies: &[Hierarchy], aliases: &[(PathBuf, PathBuf)]) -> Result<()> {
    if hierarchies.iter().any(|h| h.mount_point != Path::new(CGROUPS)) {
        new_mount("tmpfs", CGROUPS, Some("mode=755"))?;
    }
    for hierarchy in hierarchies {
        let dir = hierarchy.mount_point.as_path();
        fs::create_dir_all(dir).io("create", dir.display())?;
        let (kind, options) = match &hierarchy.v1_options {
            Some(options) => ("cgroup", Some(options.as_str())),
            None => ("cgroup2", None),
        };
        mount(Some(kind), dir, Some(kind), MsFlags::empty(), options).io("mount", dir.display())?;
    }
    for (link, target) in aliases {
        std::os::unix::fs::symlink(target, link).io("link", link.display())?;
    }
    Ok(())
}

/// Links such as `cpu -> cpu,cpuacct`.
fn cgroup_aliases() -> Vec<(PathBuf, PathBuf)> {
    // Without the directory there are no links in it; that it is missing was said when the hierarchies were read.
    let entries = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), fs::read_link(entry.path()).ok()?))).collect()
}

/// The machine's resolvers, as far as they can be reached from another network namespace.
fn resolv_conf() -> String {
    let usable = |text: &String| {
        text.lines()
            .filter_map(|line| line.strip_prefix("nameserver"))
            .any(|server| !server.trim().starts_with("127.") && server.trim() != "::1")
    };
    [RESOLV_CONF, RESOLVED_SERVERS]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find(usable)
        // A machine without a resolver has hosts without one.
        .unwrap_or_default()
}

fn hosts_file(spec: &HostSpec) -> String {
    // A machine without /etc/hosts only has the playground's names.
    let mut text = fs::read_to_string("/etc/hosts").unwrap_or_default();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (name, address) in &spec.hosts {
        text += &format!("{address} {name}\n");
    }
    text
}

/// Binds a file of the host's /run over `target`, following a link of the machine (`resolv.conf -> ../run/systemd/...`).
fn overlay_file(name: &str, content: &str, target: &str) -> Result<()> {
    let source = Path::new("/run/playground").join(name);
    fs::write(&source, content).io("write", source.display())?;
    let target = match fs::read_link(target) {
        Ok(link) => Path::new("/etc").join(link),
        Err(_) => PathBuf::from(target),
    };
    if !target.exists() {
        if !in_own_run(&target) {
            // Nothing may be created on the machine's own disk; such a host has no such file.
            return Ok(());
        }
        create_empty(&target)?;
    }
    mount(Some(&source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .io("mount over", target.display())
}

fn in_own_run(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.starts_with("/run/") || text.starts_with("/etc/../run/")
}

fn create_empty(path: &Path) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).io("create", dir.display())?;
    }
    match fs::File::create_new(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e).io("create", path.display()),
        _ => Ok(()),
    }
}
