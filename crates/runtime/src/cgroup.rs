//! A container's cgroup seen from outside: where it is, what it uses, killing all in it, removing it. libcontainer makes
//! it and sets the limits. On v1 and hybrid hosts "the cgroup" is one directory in each controller's hierarchy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{FileContext, RuntimeError};

const ROOT: &str = "/sys/fs/cgroup";

/// How long dying processes may keep a cgroup from being removed.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);

/// What a container uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of memory, page cache included; none where the controller is missing.
    pub memory: Option<u64>,
    /// Processes and threads; none where the controller is missing.
    pub pids: Option<u64>,
}

/// How this host's cgroups are mounted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Hierarchies {
    /// One directory per hierarchy (v1 and hybrid).
    V1(Vec<PathBuf>),
    /// The unified hierarchy.
    V2(PathBuf),
}

impl Hierarchies {
    /// Looks at `/sys/fs/cgroup` and the mount table, as libcgroups does.
    pub(crate) fn detect() -> Result<Self, RuntimeError> {
        let magic = statfs(ROOT)
            .map_err(|e| RuntimeError::Cgroup(format!("{ROOT}: {e}")))?
            .filesystem_type();
        if magic == CGROUP2_SUPER_MAGIC {
            return Ok(Self::V2(ROOT.into()));
        }
        let table =
            fs::read_to_string("/proc/self/mountinfo").at("read", "/proc/self/mountinfo")?;
        let mounts = parse_v1_mounts(&table);
        if mounts.is_empty() {
            return Err(RuntimeError::Cgroup(format!(
                "neither cgroup v2 nor v1 is mounted at {ROOT}"
            )));
        }
        Ok(Self::V1(mounts))
    }
}

/// The controllers libcgroups knows: only in their hierarchies does it make the container's directory.
const CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "hugetlb",
    "memory",
    "pids",
    "perf_event",
    "blkio",
    "net_prio",
    "net_cls",
    "freezer",
];

fn controllers(mount: &Path) -> impl Iterator<Item = &str> {
    mount.file_name().and_then(|n| n.to_str()).unwrap_or_default().split(',')
}

/// Mount points of v1 hierarchies below `/sys/fs/cgroup`, each once.
fn parse_v1_mounts(mountinfo: &str) -> Vec<PathBuf> {
    let mut mounts: Vec<PathBuf> = Vec::new();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let Some(point) = front.split(' ').nth(4).map(PathBuf::from) else { continue };
        let known = controllers(&point).any(|c| CONTROLLERS.contains(&c));
        if back.starts_with("cgroup ")
            && known
            && point.starts_with(ROOT)
            && !mounts.contains(&point)
        {
            mounts.push(point);
        }
    }
    mounts
}

/// One container's cgroup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    pub(crate) hierarchies: Hierarchies,
    /// Absolute within the hierarchy: `/<parent>/<id>`.
    pub(crate) path: PathBuf,
}

impl Cgroup {
    pub(crate) fn new(hierarchies: Hierarchies, parent: &str, id: &str) -> Self {
        Self { hierarchies, path: Path::new("/").join(parent.trim_matches('/')).join(id) }
    }

    pub(crate) fn is_v2(&self) -> bool {
        matches!(self.hierarchies, Hierarchies::V2(_))
    }

    /// Its directories, with the mount point each is under.
    pub(crate) fn dirs(&self) -> Vec<(PathBuf, PathBuf)> {
        let relative = self.path.strip_prefix("/").unwrap_or(&self.path);
        let mounts = match &self.hierarchies {
            Hierarchies::V1(mounts) => mounts.as_slice(),
            Hierarchies::V2(mount) => std::slice::from_ref(mount),
        };
        mounts.iter().map(|m| (m.clone(), m.join(relative))).collect()
    }

    fn controller_file(&self, controller: &str, v1: &str, v2: &str) -> Option<PathBuf> {
        let unified = self.is_v2();
        let (_, dir) = self
            .dirs()
            .into_iter()
            .find(|(mount, _)| unified || controllers(mount).any(|c| c == controller))?;
        Some(dir.join(if unified { v2 } else { v1 }))
    }

    /// The file whose `oom_kill` line counts the OOM killer's victims.
    pub(crate) fn oom_file(&self) -> Option<PathBuf> {
        self.controller_file("memory", "memory.oom_control", "memory.events")
    }

    pub(crate) fn stats(&self) -> Stats {
        let number = |path: Option<PathBuf>| -> Option<u64> {
            fs::read_to_string(path?).ok()?.trim().parse().ok()
        };
        Stats {
            memory: number(self.controller_file(
                "memory",
                "memory.usage_in_bytes",
                "memory.current",
            )),
            pids: number(self.controller_file("pids", "pids.current", "pids.current")),
        }
    }

    /// Kills every process in it and removes it. Blocks until both are done.
    ///
    /// # Errors
    /// If it is still there after five seconds.
    pub(crate) fn destroy(&self) -> Result<(), RuntimeError> {
        let deadline = Instant::now() + REMOVE_PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            match self.try_destroy() {
                Ok(()) => return Ok(()),
                Err((_, e))
                    if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
                {
                    // The kernel has no event for "a dead task has left its v1 cgroup".
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err((path, e)) => return Err(e).at("remove cgroup", path),
            }
        }
    }

    fn try_destroy(&self) -> Result<(), (PathBuf, io::Error)> {
        for (_, dir) in self.dirs() {
            match fs::remove_dir(&dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                    kill_all(&dir).map_err(|e| (dir.clone(), e))?;
                    return Err((dir, e));
                }
                Err(e) => return Err((dir, e)),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Removes the directory that holds all containers' cgroups, if it is empty.
    pub(crate) fn remove_parent(&self) {
        for (mount, dir) in self.dirs() {
            if let Some(parent) = dir.parent().filter(|p| *p != mount) {
                // Other containers, or another daemon's, may be in it: then it stays.
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// Kills what is in one cgroup directory.
fn kill_all(dir: &Path) -> io::Result<()> {
    let kill_file = dir.join("cgroup.kill");
    if kill_file.exists() {
        return fs::write(kill_file, "1");
    }
    for pid in
        fs::read_to_string(dir.join("cgroup.procs"))?.lines().filter_map(|l| l.parse::<i32>().ok())
    {
        // 0 is a process of another pid namespace, and to kill(2) it would mean ourselves.
        if pid > 0 {
            // It may have ended since; the caller looks again until none is left.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    Ok(())
}

/// Reads how many processes the OOM killer killed.
pub(crate) fn oom_kills(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_mounts_are_found_once() {
        let table = "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            32 30 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
            33 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            36 30 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            34 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            35 30 0:28 / /mnt/other rw - cgroup cgroup rw,memory\n";
        let mounts = parse_v1_mounts(table);
        assert_eq!(
            mounts,
            [PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"), "/sys/fs/cgroup/memory".into()]
        );
        let cgroup = Cgroup::new(Hierarchies::V1(mounts), "/swarm", "t1");
        assert_eq!(
            cgroup.oom_file().unwrap(),
            Path::new("/sys/fs/cgroup/memory/swarm/t1/memory.oom_control")
        );
        let cpu = cgroup.controller_file("cpuacct", "x", "y").unwrap();
        assert_eq!(cpu, Path::new("/sys/fs/cgroup/cpu,cpuacct/swarm/t1/x"));
        assert_eq!(cgroup.controller_file("pids", "x", "y"), None);
    }
}
