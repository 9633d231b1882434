//! Network namespaces for tests; they go when dropped.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

/// Where `ip` looks for namespaces.
const DIRECTORY: &str = "/run/netns";

/// Generous: the machine may be busy, and only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A named network namespace.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(label: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("ipsec-{}-{count}-{label}", process::id()) };
        fs::create_dir_all(DIRECTORY).expect("root may");
        let file = namespace.path();
        fs::write(&file, "").expect("the namespace's file");
        // As `ip netns add` does; but starting a process takes long where the CPU is emulated.
        let make = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make namespaces");
            let own = Some("/proc/thread-self/ns/net");
            mount(own, &file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .expect("root may mount");
        };
        thread::spawn(make).join().expect("the namespace");
        namespace
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Runs `ip` inside, once for a command on each line.
    pub(crate) fn ip(&self, commands: &str) {
        let arguments = ["-n", &self.name, "-batch", "-"];
        let mut ip = Command::new("ip").args(arguments).stdin(Stdio::piped()).spawn().expect("ip");
        let mut input = ip.stdin.take().expect("ip's input is piped");
        input.write_all(commands.as_bytes()).expect("ip reads its commands");
        drop(input);
        assert!(ip.wait().expect("ip ends").success(), "ip in {}: {commands}", self.name);
    }

    /// Runs a command inside and returns what it printed; panics if it fails.
    pub(crate) fn command(&self, line: &str) -> String {
        let words: Vec<_> = line.split(' ').collect();
        self.enter(|| {
            let output = Command::new(words[0]).args(&words[1..]).output().expect(words[0]);
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{line}: {complaint}");
            String::from_utf8(output.stdout).expect("text")
        })
    }

    /// Runs `work` on a thread inside. Sockets opened there stay there.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = swarm_netns::Namespace::open(&self.path()).expect("the namespace's file");
        namespace.run_blocking(work).expect("entering the namespace")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing better can be done while dropping, perhaps in a panic.
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
        let _ = fs::remove_file(self.path());
    }
}

/// Waits for a condition; panics if it does not come true.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: waited until {what}");
        thread::sleep(Duration::from_millis(5)); // before the condition is looked at again
    }
}
