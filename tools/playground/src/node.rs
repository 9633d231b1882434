//! One host of a playground: run commands on it; cut its cable, its power, its daemon.

use crate::error::IoContext;
use crate::host::{self, SWARMD_RUN_DIR};
use crate::lan::{Cut, Lan};
use crate::process::{ProcessId, succeed};
use crate::record::Record;
use crate::wait::wait_until;
use crate::{Error, Result};
use std::ffi::OsStr;
use std::fmt;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

/// On the host: stay in the directory of the caller where the host has it, and end when the caller does.
const INSIDE: &str = "cd \"$0\" 2>/dev/null; exec setpriv --pdeathsig KILL -- \"$@\"";
/// Seconds after which [`Node::exec`] and what is built on it give up, by `timeout(1)`, which exits with 124 then.
const EXEC_TIMEOUT_SECONDS: &str = "180";
const DAEMON_TIMEOUT: Duration = Duration::from_secs(20);

/// Whether a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// No power.
    Off,
    /// Booted.
    Running,
    /// Booted, and every process stopped.
    Paused,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::Running => "running",
            Self::Paused => "paused",
        })
    }
}

/// A host. Cheap to clone and to give to another thread.
#[derive(Debug, Clone)]
pub struct Node {
    record: Arc<Record>,
    index: usize,
}

impl Node {
    pub(crate) fn new(record: Arc<Record>, index: usize) -> Self {
        Self { record, index }
    }

    /// Its hostname, such as `pg-1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.nodes[self.index].hostname
    }

    /// Its address on the playground's LAN, on `eth0`.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.record.nodes[self.index].address
    }

    /// Whether it runs now.
    ///
    /// # Errors
    /// When the kernel or the playground's files cannot be read.
    pub fn state(&self) -> Result<NodeState> {
        if self.init()?.is_none() {
            return Ok(NodeState::Off);
        }
        let frozen = self.cgroup()?.is_frozen()?;
        Ok(if frozen { NodeState::Paused } else { NodeState::Running })
    }

    /// A command to be run on this host: in its namespaces and cgroup, with `SWARM_HOST` naming its `swarmd`. It ends with the process that is spawned here.
    ///
    /// # Errors
    /// [`Error::NodeState`] when the host does not run.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let init = self.running("run a command on")?;
        // The shell joins the cgroups before it becomes nsenter, so that whatever comes of the command can be found, frozen and killed.
        let mut script = String::new();
        for file in self.cgroup()?.member_files() {
            script += &format!("echo 0 > '{}' || exit 125; ", file.display());
        }
        script += &format!(
            "exec nsenter --target {} --mount --uts --ipc --net --pid --cgroup -- sh -c '{INSIDE}' \"$PWD\" \"$@\"",
            init.pid
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, "playground-exec"])
            .arg(program)
            .env("SWARM_HOST", format!("unix://{SWARMD_RUN_DIR}/swarmd.sock"));
        Ok(command)
    }

    /// Runs `words` (program and arguments) on this host and captures what it writes; ended after 180 s with exit status 124.
    ///
    /// # Errors
    /// When it cannot be started; a command that fails is an `Output` like any other.
    pub fn exec<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Output> {
        let mut command = self.bounded(words)?;
        command.output().io("run a command on", self.name())
    }

    /// As [`Node::exec`], for a command that must succeed; gives its stdout.
    ///
    /// # Errors
    /// [`Error::Command`] with its stderr when it fails.
    pub fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<String> {
        let words: Vec<_> = words.into_iter().map(|w| w.as_ref().to_owned()).collect();
        let output = self.exec(&words)?;
        let mut shown = Command::new(format!("{}:", self.name()));
        shown.args(&words);
        succeed(&shown, output)
    }

    /// Runs `swarmctl` on this host, against its own daemon; gives its stdout.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn swarmctl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.run(self.swarmctl_words(args))
    }

    /// Runs `swarmctl` on this host whether it succeeds or not.
    ///
    /// # Errors
    /// As [`Node::exec`].
    pub fn swarmctl_output<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        self.exec(self.swarmctl_words(args))
    }

    fn swarmctl_words<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Vec<std::ffi::OsString> {
        let program = self.record.swarmctl.clone().into_os_string();
        let args = args.into_iter().map(|a| a.as_ref().to_owned());
        std::iter::once(program).chain(args).collect()
    }

    fn bounded<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut command = self.command("timeout")?;
        command.args(["--kill-after=5", EXEC_TIMEOUT_SECONDS]).args(words);
        Ok(command)
    }

    /// Power cut: everything that runs on the host ends at once and says nothing. Its disk stays.
    ///
    /// # Errors
    /// [`Error::NodeState`] when it is off; else when something of it does not go.
    pub fn kill(&self) -> Result<()> {
        self.booted("kill")?;
        host::power_off(&self.record, self.index)
    }

    /// Boots it again after a power cut: same disk, same address, cable plugged in; waits until `swarmd` is started, not until it answers.
    ///
    /// # Errors
    /// [`Error::NodeState`] when it runs already, [`Error::Boot`] when it does not come up.
    pub fn start(&self) -> Result<()> {
        if self.init()?.is_some() {
            return Err(self.state_error("start"));
        }
        host::power_off(&self.record, self.index)?;
        host::boot(&self.record, self.index)
    }

    /// Stops every process of the host, as a machine does that hangs or swaps; its kernel goes on.
    ///
    /// # Errors
    /// When it is off or the freezer fails.
    pub fn pause(&self) -> Result<()> {
        self.booted("pause")?;
        self.cgroup()?.freeze(true)
    }

    /// Undoes [`Node::pause`].
    ///
    /// # Errors
    /// As [`Node::pause`].
    pub fn resume(&self) -> Result<()> {
        self.booted("resume")?;
        self.cgroup()?.freeze(false)
    }

    /// Cuts it off the LAN without its noticing; cuts of both directions add up.
    ///
    /// # Errors
    /// When the bridge's namespace is gone.
    pub fn cut(&self, cut: Cut) -> Result<()> {
        self.lan().cut(self.index, cut)
    }

    /// Undoes [`Node::cut`].
    ///
    /// # Errors
    /// As [`Node::cut`].
    pub fn heal(&self) -> Result<()> {
        self.lan().heal(self.index)
    }

    /// `kill -9` of `swarmd` alone; what it started goes on. It comes back by [`Node::start_daemon`] only.
    ///
    /// # Errors
    /// [`Error::Init`] when it does not run.
    pub fn kill_daemon(&self) -> Result<()> {
        self.ask(host::KILL_DAEMON).map(drop)
    }

    /// SIGTERM to `swarmd`, and waits for its end.
    ///
    /// # Errors
    /// [`Error::Init`] when it does not run, or not end.
    pub fn stop_daemon(&self) -> Result<()> {
        self.ask(host::STOP_DAEMON).map(drop)
    }

    /// Starts `swarmd` and waits until its socket accepts.
    ///
    /// # Errors
    /// [`Error::Init`] when it runs already or cannot be run, [`Error::Boot`] when it does not answer.
    pub fn start_daemon(&self) -> Result<()> {
        self.ask(host::START_DAEMON)?;
        self.wait_for_daemon()
    }

    /// [`Node::kill_daemon`], then [`Node::start_daemon`].
    ///
    /// # Errors
    /// As these.
    pub fn restart_daemon(&self) -> Result<()> {
        self.kill_daemon()?;
        self.start_daemon()
    }

    /// Process id of `swarmd` on the host, as the host sees it; `None` when it does not run.
    ///
    /// # Errors
    /// When the host is not running.
    pub fn daemon_pid(&self) -> Result<Option<i32>> {
        Ok(self.ask(host::DAEMON_PID)?.parse().ok())
    }

    /// Waits until the local API of `swarmd` accepts connections.
    ///
    /// # Errors
    /// [`Error::Boot`] with the end of its log when it ends or stays silent.
    pub fn wait_for_daemon(&self) -> Result<()> {
        let socket = self.path_of(&format!("{SWARMD_RUN_DIR}/swarmd.sock"))?;
        let boot_error = |reason: String| Error::Boot {
            node: self.name().to_owned(),
            reason,
            log: host::log_tail(&self.log_file()),
        };
        let answered = wait_until("an answer of swarmd", DAEMON_TIMEOUT, || {
            match UnixStream::connect(&socket) {
                Ok(_) => Ok(true),
                Err(_) if matches!(self.daemon_pid(), Ok(None)) => Ok(false),
                Err(error) => Err(error.to_string()),
            }
        });
        match answered {
            Ok(true) => Ok(()),
            Ok(false) => Err(boot_error("swarmd ended".to_owned())),
            Err(error) => Err(boot_error(error.to_string())),
        }
    }

    /// The log of `swarmd`, of all its lives.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.disk().join("swarmd.log")
    }

    /// The `--state-dir` of `swarmd`; the same path on the host and on the machine.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.disk().join("state")
    }

    fn disk(&self) -> PathBuf {
        self.record.place().disk_dir().join(self.name())
    }

    /// Where a file of the host, such as `/run/swarmd/swarmd.sock`, is on the machine.
    ///
    /// # Errors
    /// [`Error::NodeState`] when the host does not run.
    pub fn path_of(&self, path: &str) -> Result<PathBuf> {
        let init = self.booted("look into")?;
        Ok(Path::new("/proc")
            .join(init.pid.to_string())
            .join("root")
            .join(path.trim_start_matches('/')))
    }

    /// Process ids, on the machine, of everything that runs on the host.
    ///
    /// # Errors
    /// When its cgroup cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        Ok(self.cgroup()?.processes()?.into_iter().collect())
    }

    pub(crate) fn is_cut(&self) -> Result<bool> {
        Ok(self.lan().cut_ports()?.contains(&self.index))
    }

    fn ask(&self, request: &str) -> Result<String> {
        self.running("talk to init of")?;
        let socket = host::control_socket(&self.record, self.name());
        host::request(self.name(), &socket, request)
    }

    fn init(&self) -> Result<Option<ProcessId>> {
        host::init_process(&self.record, self.name())
    }

    fn booted(&self, action: &'static str) -> Result<ProcessId> {
        self.init()?.ok_or_else(|| self.state_error(action))
    }

    fn running(&self, action: &'static str) -> Result<ProcessId> {
        let init = self.booted(action)?;
        if self.state()? == NodeState::Running {
            return Ok(init);
        }
        Err(self.state_error(action))
    }

    fn state_error(&self, action: &'static str) -> Error {
        let state = self.state().map_or_else(|e| e.to_string(), |s| s.to_string());
        Error::NodeState { action, node: self.name().to_owned(), state }
    }

    fn cgroup(&self) -> Result<crate::cgroup::Group> {
        self.record.place().node_cgroup(self.name())
    }

    fn lan(&self) -> Lan {
        Lan::of(&self.record.place())
    }
}
