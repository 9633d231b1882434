//! The cgroup of a host: its processes are found, frozen and removed by it, also after a crash of everything else.
//!
//! Works on cgroup v1, on v2 and on both mounted side by side ("hybrid"). Below the host's group its daemon and tasks
//! make groups of their own; the host sees its group as the root (a cgroup namespace).

use crate::error::IoContext;
use crate::wait::wait_until;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";
/// Under cgroup v2 a group with controllers for its children may hold no process itself, so a host's own processes live one below.
const V2_LEAF: &str = "init";

/// A mounted cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount_point: PathBuf,
    /// Options to mount a v1 hierarchy again (`memory`, `cpu,cpuacct`, `none,name=systemd`); `None` for v2.
    pub(crate) v1_options: Option<String>,
}

/// Hierarchies of this machine, out of `/proc/self/mountinfo`.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/mountinfo").io("read", "/proc/self/mountinfo")?;
    let found = parse_mountinfo(&text);
    if found.is_empty() {
        return Err(Error::BadFile {
            path: ROOT.into(),
            reason: "no cgroup hierarchy is mounted there".to_owned(),
        });
    }
    Ok(found)
}

/// proc(5): `id parent dev root mount-point options tags... - type source super-options`.
fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in text.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else {
            continue;
        };
        let Some(mount_point) = mount.split(' ').nth(4).map(PathBuf::from) else {
            continue;
        };
        if !mount_point.starts_with(ROOT) || found.iter().any(|h| h.mount_point == mount_point) {
            continue;
        }
        let mut fields = filesystem.split(' ');
        let v1_options = match (fields.next(), fields.nth(1)) {
            (Some("cgroup"), Some(options)) => Some(v1_mount_options(options)),
            (Some("cgroup2"), _) => None,
            _ => continue,
        };
        found.push(Hierarchy { mount_point, v1_options });
    }
    found
}

/// `rw,xattr,name=systemd` -> `none,name=systemd`; `rw,cpu,cpuacct` -> `cpu,cpuacct`.
fn v1_mount_options(super_options: &str) -> String {
    let mut kept: Vec<&str> = super_options
        .split(',')
        .filter(|o| !matches!(*o, "rw" | "ro" | "xattr" | "clone_children" | "noprefix"))
        .filter(|o| !o.starts_with("release_agent="))
        .collect();
    if kept.iter().all(|o| o.starts_with("name=")) {
        kept.insert(0, "none");
    }
    kept.join(",")
}

/// One group, in every hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// Relative to the root of each hierarchy.
    path: PathBuf,
    hierarchies: Vec<Hierarchy>,
}

impl Group {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { path: path.into(), hierarchies: hierarchies()? })
    }

    /// Makes the group and its parents.
    pub(crate) fn create(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let mut dir = hierarchy.mount_point.clone();
            for part in &self.path {
                let parent = dir.clone();
                dir.push(part);
                if hierarchy.v1_options.is_none() {
                    delegate_controllers(&parent);
                }
                match fs::create_dir(&dir) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                        return Err(error).io("create cgroup", dir.display());
                    }
                    _ => {}
                }
                inherit_cpuset(&parent, &dir)?;
            }
            if hierarchy.v1_options.is_none() {
                fs::create_dir_all(dir.join(V2_LEAF)).io("create cgroup", dir.display())?;
            }
        }
        Ok(())
    }

    fn dir(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount_point.join(&self.path)
    }

    /// `cgroup.procs` of the group itself, to become the root of a new cgroup namespace.
    pub(crate) fn root_files(&self) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|h| self.dir(h).join("cgroup.procs")).collect()
    }

    /// `cgroup.procs` where a process of the host belongs.
    pub(crate) fn member_files(&self) -> Vec<PathBuf> {
        self.hierarchies
            .iter()
            .map(|h| match h.v1_options {
                Some(_) => self.dir(h).join("cgroup.procs"),
                None => self.dir(h).join(V2_LEAF).join("cgroup.procs"),
            })
            .collect()
    }

    /// Every process in the group or below, as pids of this pid namespace.
    pub(crate) fn processes(&self) -> Result<BTreeSet<i32>> {
        let mut found = BTreeSet::new();
        for hierarchy in &self.hierarchies {
            for dir in tree(&self.dir(hierarchy)) {
                let file = dir.join("cgroup.procs");
                match fs::read_to_string(&file) {
                    Ok(text) => found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok())),
                    // The group went while we looked.
                    Err(e) if is_gone(&e) => {}
                    Err(e) => return Err(e).io("read", file.display()),
                }
            }
        }
        // 0 stands for a process that this pid namespace cannot see.
        found.remove(&0);
        Ok(found)
    }

    /// Stops (`true`) or continues every process of the group and below, and waits until that is so.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        let (file, value) = self.freezer(frozen)?;
        fs::write(&file, value).io("write", file.display())?;
        wait_until("change of the freezer", Duration::from_secs(10), || match self.is_frozen() {
            Ok(now) if now == frozen => Ok(()),
            Ok(_) => Err(format!("{} has not reached {value}", file.display())),
            Err(error) => Err(error.to_string()),
        })
    }

    pub(crate) fn is_frozen(&self) -> Result<bool> {
        let (file, _) = self.freezer(true)?;
        if file.ends_with("freezer.state") {
            let state = fs::read_to_string(&file).io("read", file.display())?;
            return Ok(state.trim() == "FROZEN");
        }
        let events = file.with_file_name("cgroup.events");
        let text = fs::read_to_string(&events).io("read", events.display())?;
        Ok(text.lines().any(|line| line == "frozen 1"))
    }

    /// The v1 freezer where there is one, else that of v2, with the word that it understands.
    fn freezer(&self, frozen: bool) -> Result<(PathBuf, &'static str)> {
        let v1 = self.hierarchies.iter().find(|h| h.v1_options.as_deref() == Some("freezer"));
        if let Some(h) = v1 {
            let word = if frozen { "FROZEN" } else { "THAWED" };
            return Ok((self.dir(h).join("freezer.state"), word));
        }
        let v2 = self.hierarchies.iter().find(|h| h.v1_options.is_none());
        let h = v2.ok_or_else(|| Error::BadFile {
            path: ROOT.into(),
            reason: "no cgroup freezer is mounted, so nothing can be paused".to_owned(),
        })?;
        let word = if frozen { "1" } else { "0" };
        Ok((self.dir(h).join("cgroup.freeze"), word))
    }

    /// Ends every process of the group and below: kills, thaws (a frozen v1 group does not die), waits.
    pub(crate) fn kill_all(&self) -> Result<()> {
        wait_until("end of the host's processes", Duration::from_secs(15), || {
            let step = || -> Result<usize> {
                let left = self.processes()?;
                for pid in &left {
                    crate::process::kill_pid(*pid)?;
                }
                if !left.is_empty() {
                    let (file, value) = self.freezer(false)?;
                    fs::write(&file, value).io("write", file.display())?;
                }
                Ok(left.len())
            };
            match step() {
                Ok(0) => Ok(()),
                Ok(left) => Err(format!("{left} processes left")),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    /// Removes the group and all below; no process may be left in it.
    pub(crate) fn remove(&self) -> Result<()> {
        self.remove_dirs(true)
    }

    /// Removes the groups below, left by tasks of a host that lost power.
    pub(crate) fn remove_children(&self) -> Result<()> {
        self.remove_dirs(false)
    }

    /// Removes the group where nothing is below it.
    pub(crate) fn remove_if_empty(&self) {
        for hierarchy in &self.hierarchies {
            // Where something is below, or nothing is there, it is as it shall be.
            let _ = fs::remove_dir(self.dir(hierarchy));
        }
    }

    fn remove_dirs(&self, itself: bool) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let root = self.dir(hierarchy);
            for dir in tree(&root).into_iter().rev() {
                if dir == root && !itself {
                    continue;
                }
                // A group stays busy for a moment after its last process was reaped.
                wait_until(
                    "removal of a cgroup",
                    Duration::from_secs(5),
                    || match fs::remove_dir(&dir) {
                        Err(e) if !is_gone(&e) => Err(format!("{}: {e}", dir.display())),
                        _ => Ok(()),
                    },
                )?;
            }
        }
        Ok(())
    }

    /// Names of the groups directly below, in any hierarchy.
    pub(crate) fn children(&self) -> BTreeSet<String> {
        self.hierarchies
            .iter()
            .flat_map(|h| subdirectories(&self.dir(h)))
            .filter_map(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()))
            .collect()
    }
}

/// Lets the children of a v2 group have every controller it has itself.
fn delegate_controllers(dir: &Path) {
    let Ok(controllers) = fs::read_to_string(dir.join("cgroup.controllers")) else {
        return;
    };
    for controller in controllers.split_whitespace() {
        // One that the machine keeps for itself is one fewer kind of limit for tasks, no reason not to boot.
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A new v1 cpuset group is empty and takes no process until it has CPUs and memory nodes.
fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), dir.join(file));
        // Under v2 an empty file means "as the parent".
        if !to.exists() || dir.join("cgroup.controllers").exists() {
            continue;
        }
        let value = fs::read_to_string(&from).io("read", from.display())?;
        fs::write(&to, value.trim()).io("write", to.display())?;
    }
    Ok(())
}

/// `dir` and every directory below it, parents first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        open.extend(subdirectories(&dir));
        found.push(dir);
    }
    found
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    // A directory that is gone has none below it.
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

/// ENOENT, or ENODEV which reading a file of a removed group gives.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
        || error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_of_a_hybrid_machine() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n\
                    40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";
        let found = parse_mountinfo(text);
        let options: Vec<_> = found.iter().map(|h| h.v1_options.as_deref()).collect();
        assert_eq!(options, [Some("cpu,cpuacct"), Some("none,name=systemd"), None]);
        assert_eq!(found[2].mount_point, Path::new("/sys/fs/cgroup/unified"));
    }
}
