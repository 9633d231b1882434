//! A runtime with directories, a busybox root and a network namespace of its own, and nothing left of it at the end.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use swarm_runtime::{ContainerSpec, Options, Runtime};

/// What one test works in.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) name: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Random, since in a pid namespace the pid tells nothing.
        let unique =
            dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        let name = format!("swrt-{unique}");
        make_rootfs(&dir.path().join("layer"));
        let added = Command::new("ip").args(["netns", "add", &name]).status().unwrap();
        assert!(added.success());
        let runtime = Runtime::open(options(dir.path(), &name)).unwrap();
        Self { runtime, dir, name }
    }

    pub(crate) fn options(&self) -> Options {
        options(self.dir.path(), &self.name)
    }

    pub(crate) fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    /// A container that runs `args`.
    pub(crate) fn spec(&self, id: &str, args: &[&str]) -> ContainerSpec {
        ContainerSpec {
            id: id.into(),
            layers: vec![self.layer()],
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            netns: PathBuf::from("/run/netns").join(&self.name),
            hosts: "127.0.0.1 localhost\n10.0.0.9 self\n".into(),
            resolv_conf: "nameserver 127.0.0.11\noptions ndots:0\n".into(),
            ..Default::default()
        }
    }

    /// A container that runs a shell script.
    pub(crate) fn sh(&self, id: &str, script: &str) -> ContainerSpec {
        self.spec(id, &["sh", "-c", script])
    }

    /// Runs `spec` to its end and returns the lines of its standard output.
    pub(crate) async fn output(&self, spec: &ContainerSpec) -> Vec<String> {
        self.runtime.start(spec).await.unwrap();
        self.runtime.wait(&spec.id).await.unwrap();
        self.lines(&spec.id).await
    }

    pub(crate) async fn lines(&self, id: &str) -> Vec<String> {
        collect(self.runtime.logs(id, swarm_runtime::LogOptions::default()).await.unwrap()).await
    }

    /// Directories of a container's (or all containers') cgroups that exist.
    pub(crate) fn cgroups(&self, id: &str) -> Vec<PathBuf> {
        let roots = fs::read_dir("/sys/fs/cgroup").unwrap().map(|e| e.unwrap().path());
        let mut dirs: Vec<PathBuf> =
            roots.map(|r| r.join(&self.name).join(id)).filter(|d| d.exists()).collect();
        dirs.extend(
            Some(Path::new("/sys/fs/cgroup").join(&self.name).join(id)).filter(|d| d.exists()),
        );
        dirs
    }

    /// The shim of container `id`, which has been started.
    pub(crate) fn shim(&self, id: &str) -> i32 {
        let lock = fs::read_to_string(self.dir.path().join("run").join(id).join("lock")).unwrap();
        lock.split(|c: char| !c.is_ascii_digit()).find(|n| !n.is_empty()).unwrap().parse().unwrap()
    }

    /// Shims and exec helpers: processes whose command line names this test's directory. (One may be missed for the
    /// moment in which it executes itself anew.)
    pub(crate) fn shims(&self) -> Vec<i32> {
        let needle = self.dir.path().to_str().unwrap().to_owned();
        pids().filter(|pid| command_line(*pid).is_some_and(|c| c.contains(&needle))).collect()
    }

    /// Starts a container as a daemon that then ends: nothing of it stays in this process.
    pub(crate) async fn start_by_earlier_daemon(
        &self,
        spec: &ContainerSpec,
    ) -> swarm_runtime::Started {
        let (options, spec) = (self.options(), spec.clone());
        let daemon = move || {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio.block_on(async { Runtime::open(options).unwrap().start(&spec).await.unwrap() })
        };
        tokio::task::spawn_blocking(daemon).await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Also after a failed assertion: kill the shims and all in our cgroups, then remove these.
        for shim in self.shims() {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(shim),
                nix::sys::signal::Signal::SIGKILL,
            )
            .ok();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.remove_cgroups() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5)); // before the next try to remove them
        }
        Command::new("ip").args(["netns", "del", &self.name]).status().ok();
    }
}

impl World {
    fn remove_cgroups(&self) -> bool {
        for parent in self.cgroups("") {
            for entry in
                fs::read_dir(&parent).into_iter().flatten().flatten().filter(|e| e.path().is_dir())
            {
                for pid in fs::read_to_string(entry.path().join("cgroup.procs"))
                    .unwrap_or_default()
                    .lines()
                {
                    let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
                }
                fs::remove_dir(entry.path()).ok();
            }
            fs::remove_dir(&parent).ok();
        }
        self.cgroups("").is_empty()
    }
}

fn options(dir: &Path, name: &str) -> Options {
    Options {
        shim_exe: env!("CARGO_BIN_EXE_swarm-shim").into(),
        ..Options::new(dir.join("state"), dir.join("run"), format!("/{name}"))
    }
}

fn make_rootfs(dir: &Path) {
    for sub in ["bin", "etc", "tmp"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "echo", "sleep", "id", "env", "pwd", "hostname", "ls", "grep", "true", "head",
        "tail", "tr", "dd", "mount", "ps", "stty", "yes", "touch", "seq", "kill", "wc", "tty",
        "mknod", "mkdir",
    ] {
        symlink("busybox", dir.join("bin").join(applet)).unwrap();
    }
    fs::write(
        dir.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n",
    )
    .unwrap();
    fs::write(dir.join("etc/group"), "root:x:0:\nwww:x:34:\nlogs:x:4:web\n").unwrap();
    fs::write(dir.join("etc/plain"), "not a program\n").unwrap();
    fs::write(dir.join("bin/broken"), "no program either\n").unwrap();
    fs::set_permissions(dir.join("bin/broken"), fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) async fn collect(mut stream: swarm_runtime::LogStream) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await {
        lines.push(String::from_utf8(line.unwrap().line).unwrap());
    }
    lines
}

pub(crate) fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
}

pub(crate) fn command_line(pid: i32) -> Option<String> {
    Some(
        String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).ok()?).replace('\0', " "),
    )
}

pub(crate) fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| !s.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

/// Waits until `condition` holds; fails after ten seconds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await; // before the condition is looked at again
    }
}
