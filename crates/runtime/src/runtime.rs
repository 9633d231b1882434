//! [`Runtime`]: the containers of one daemon.

use std::collections::{BTreeMap, HashMap};
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::bundle::{Bundle, LogLimits};
use crate::cgroup::{Cgroup, Hierarchies, Stats};
use crate::error::{ExecError, FileContext, RuntimeError, StartError};
use crate::exec::{self, ExecSession};
use crate::log::{self, Changes, LogOptions, LogStream};
use crate::process::signal_unless_ended;
use crate::spec::{Adopted, ContainerSpec, ContainerState, ExecSpec, Exit, Started, validate_id};
use crate::{monitor, start};

/// How long a killed container may take to end.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Containers set up at the same time; more would only contend for the kernel's mount and cgroup locks.
const PARALLEL_STARTS: usize = 8;

/// Where a runtime keeps things.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds writable layers and logs; a directory of this runtime's own.
    pub state_dir: PathBuf,
    /// Holds bundles; a directory of this runtime's own, best on tmpfs.
    pub run_dir: PathBuf,
    /// The executable whose `main` calls [`crate::shim::main`].
    pub shim_exe: PathBuf,
    /// The cgroup below which containers' cgroups are made, such as `/swarm`.
    pub cgroup_parent: String,
    /// Bytes per log file.
    pub log_file_size: u64,
    /// Log files kept per container.
    pub log_files: u64,
}

impl Options {
    /// With this very executable as the shim and 3 log files of 10 MB.
    pub fn new(state_dir: PathBuf, run_dir: PathBuf, cgroup_parent: impl Into<String>) -> Self {
        Self {
            state_dir,
            run_dir,
            shim_exe: "/proc/self/exe".into(),
            cgroup_parent: cgroup_parent.into(),
            log_file_size: 10_000_000,
            log_files: 3,
        }
    }
}

/// Starts containers and looks after them. Cloning is cheap; all clones are the same runtime. Containers live on when
/// it is dropped.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) starts: Semaphore,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    changes: Mutex<Option<Changes>>,
}

/// One container the runtime knows.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: Bundle,
    pub(crate) cgroup: Cgroup,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) stop_signal: i32,
    pub(crate) state: watch::Sender<ContainerState>,
    /// The first process, once it runs.
    pub(crate) init: Mutex<Option<OwnedFd>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics with these locks held; if it did, the data would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runtime {
    /// Opens the runtime; makes the directories if need be. Call [`Runtime::adopt`] next.
    ///
    /// # Errors
    /// If the directories cannot be made or no cgroups are found.
    pub fn open(options: Options) -> Result<Self, RuntimeError> {
        for dir in [&options.state_dir, &options.run_dir] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).at("make directory", dir)?;
        }
        let absolute = |dir: &Path| dir.canonicalize().at("resolve", dir);
        let options = Options {
            state_dir: absolute(&options.state_dir)?,
            run_dir: absolute(&options.run_dir)?,
            ..options
        };
        let inner = Inner {
            hierarchies: Hierarchies::detect()?,
            starts: Semaphore::new(PARALLEL_STARTS),
            containers: Mutex::default(),
            changes: Mutex::default(),
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Creates and starts a container; returns when its command has been executed. It goes on to its end even if the
    /// caller stops waiting.
    ///
    /// # Errors
    /// [`StartError`]; nothing of the container is left then.
    pub async fn start(&self, spec: &ContainerSpec) -> Result<Started, StartError> {
        let (inner, spec) = (self.inner.clone(), spec.clone());
        joined(tokio::spawn(start::start(inner, spec)).await)?
    }

    /// Waits until the container has ended; at once if it has already.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], also if it is deleted meanwhile.
    pub async fn wait(&self, id: &str) -> Result<Exit, RuntimeError> {
        self.inner.get(id)?.ended().await
    }

    /// Asks the container to stop, and kills it if it has not ended after `grace`.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], or [`RuntimeError::Unkillable`] if not even killing helps.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<Exit, RuntimeError> {
        let container = self.inner.get(id)?;
        if matches!(container.settled().await?, ContainerState::Running(_)) {
            container.signal(container.stop_signal)?;
            if let Ok(ended) = timeout(grace, container.ended()).await {
                return ended;
            }
        }
        container.kill().await
    }

    /// Sends a signal to the container's first process.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::NotRunning`] before its start and after its end.
    pub fn kill(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        let container = self.inner.get(id)?;
        if !matches!(*container.state.borrow(), ContainerState::Running(_)) {
            return Err(RuntimeError::NotRunning(id.into()));
        }
        container.signal(signal)
    }

    /// Removes the container with its logs and its file system, killing it if it runs. It goes on to its end even if the
    /// caller stops waiting.
    ///
    /// # Errors
    /// [`RuntimeError`] says what could not be removed; the container is still known then, and it may be tried again.
    pub async fn delete(&self, id: &str) -> Result<(), RuntimeError> {
        let (inner, container) = (self.inner.clone(), self.inner.get(id)?);
        joined(tokio::spawn(async move { inner.delete(&container).await }).await)?
    }

    /// Keeps a note with a container, for as long as it is there and the machine is up: a later daemon finds it. It
    /// replaces the former one.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], or if it cannot be written.
    pub async fn note(&self, id: &str, note: Vec<u8>) -> Result<(), RuntimeError> {
        let container = self.inner.get(id)?;
        blocking(move || container.bundle.write_note(&note)).await
    }

    /// The note kept with a container; none if there is none.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], or if it cannot be read.
    pub async fn noted(&self, id: &str) -> Result<Option<Vec<u8>>, RuntimeError> {
        let container = self.inner.get(id)?;
        blocking(move || container.bundle.read_note()).await
    }

    /// All containers, in order of their ids.
    pub fn list(&self) -> Vec<Adopted> {
        let mut list: Vec<Adopted> =
            lock(&self.inner.containers).values().map(|c| c.description()).collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    /// Takes over the containers that an earlier daemon left, and returns all that are known now. Those that ended
    /// meanwhile have their exit status. Those whose shim was killed, or whose start was cut short, are killed and
    /// reported as ended, with the reason.
    ///
    /// # Errors
    /// If the directories cannot be read.
    pub async fn adopt(&self) -> Result<Vec<Adopted>, RuntimeError> {
        monitor::adopt(&self.inner).await?;
        Ok(self.list())
    }

    /// What the container uses now. Cheap: reads two files.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`].
    pub fn stats(&self, id: &str) -> Result<Stats, RuntimeError> {
        Ok(self.inner.get(id)?.cgroup.stats())
    }

    /// What the container prints and has printed.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], or [`RuntimeError::File`] if its logs cannot be followed.
    pub async fn logs(&self, id: &str, options: LogOptions) -> Result<LogStream, RuntimeError> {
        let container = self.inner.get(id)?;
        let dir = container.bundle.logs();
        let changes = if options.follow { Some(self.inner.follow(&dir)?) } else { None };
        let opened = log::open(dir.clone(), options, changes, container.state.subscribe()).await;
        opened.at("open logs in", dir)
    }

    /// Starts a further process in a running container.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn exec(&self, id: &str, spec: ExecSpec) -> Result<ExecSession, ExecError> {
        spec.validate()?;
        let container = self.inner.get(id)?;
        if !matches!(*container.state.borrow(), ContainerState::Running(_)) {
            return Err(RuntimeError::NotRunning(id.into()).into());
        }
        exec::start(&self.inner.options.shim_exe, &container.bundle, spec).await
    }

    /// Removes the cgroup above the containers' if no container is left; for a node that leaves the swarm.
    pub fn remove_cgroup_parent(&self) {
        self.inner.cgroup("x").remove_parent();
    }
}

impl Inner {
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Container>, RuntimeError> {
        lock(&self.containers).get(id).cloned().ok_or_else(|| RuntimeError::NotFound(id.into()))
    }

    /// Adds a container unless its id is known.
    pub(crate) fn add(&self, container: Arc<Container>) -> bool {
        let mut containers = lock(&self.containers);
        if containers.contains_key(&container.id) {
            return false;
        }
        containers.insert(container.id.clone(), container);
        true
    }

    pub(crate) fn forget(&self, id: &str) {
        lock(&self.containers).remove(id);
    }

    pub(crate) fn bundle(&self, id: &str) -> Bundle {
        Bundle::new(&self.options.run_dir, &self.options.state_dir, id)
    }

    pub(crate) fn cgroup(&self, id: &str) -> Cgroup {
        Cgroup::new(self.hierarchies.clone(), &self.options.cgroup_parent, id)
    }

    pub(crate) fn log_limits(&self) -> LogLimits {
        LogLimits { file_size: self.options.log_file_size, files: self.options.log_files }
    }

    fn follow(&self, dir: &Path) -> Result<log::Subscription, RuntimeError> {
        let mut changes = lock(&self.changes);
        if changes.is_none() {
            *changes = Some(Changes::start().at("watch", dir)?);
        }
        // Just set.
        let Some(changes) = changes.as_ref() else {
            return Err(RuntimeError::Invalid("no watcher".into()));
        };
        changes.subscribe(dir).at("watch", dir)
    }

    async fn delete(&self, container: &Arc<Container>) -> Result<(), RuntimeError> {
        match container.kill().await {
            // Its start failed meanwhile, which leaves nothing.
            Err(RuntimeError::NotFound(_)) => return Ok(()),
            other => other?,
        };
        let doomed = container.clone();
        blocking(move || {
            doomed.cgroup.destroy()?;
            doomed.bundle.remove()
        })
        .await?;
        self.forget(&container.id);
        Ok(())
    }
}

impl Container {
    pub(crate) fn new(
        inner: &Inner,
        spec: &ContainerSpec,
        state: ContainerState,
    ) -> Result<Self, RuntimeError> {
        validate_id(&spec.id)?;
        Ok(Self {
            bundle: inner.bundle(&spec.id),
            cgroup: inner.cgroup(&spec.id),
            labels: spec.labels.clone(),
            stop_signal: spec.stop_signal_number()?,
            state: watch::Sender::new(state),
            init: Mutex::default(),
            id: spec.id.clone(),
        })
    }

    pub(crate) fn set_init(&self, pidfd: Option<OwnedFd>) {
        *lock(&self.init) = pidfd;
    }

    fn description(&self) -> Adopted {
        Adopted {
            id: self.id.clone(),
            state: self.state.borrow().clone(),
            labels: self.labels.clone(),
        }
    }

    fn signal(&self, signal: i32) -> Result<(), RuntimeError> {
        match &*lock(&self.init) {
            Some(pidfd) => signal_unless_ended(pidfd, signal).map_err(|source| {
                RuntimeError::System { action: "send a signal to the container", source }
            }),
            // Ended so soon after its start that there was nothing left to watch.
            None => Ok(()),
        }
    }

    async fn until(
        &self,
        wanted: impl FnMut(&ContainerState) -> bool,
    ) -> Result<ContainerState, RuntimeError> {
        let mut receiver = self.state.subscribe();
        // We hold the sender, so waiting cannot fail; a failed start says so by a state of its own.
        let state = receiver.wait_for(wanted).await.map(|s| s.clone());
        state.map_err(|_| RuntimeError::NotFound(self.id.clone()))
    }

    /// Waits while it is being set up.
    async fn settled(&self) -> Result<ContainerState, RuntimeError> {
        self.until(|s| *s != ContainerState::Starting).await
    }

    pub(crate) async fn ended(&self) -> Result<Exit, RuntimeError> {
        match self.until(|s| matches!(s, ContainerState::Exited(_))).await? {
            ContainerState::Exited(exit) => Ok(exit),
            _ => Err(RuntimeError::NotFound(self.id.clone())),
        }
    }

    /// Kills it if it runs, and waits for its end.
    async fn kill(&self) -> Result<Exit, RuntimeError> {
        if matches!(self.settled().await?, ContainerState::Running(_)) {
            self.signal(libc::SIGKILL)?;
        }
        match timeout(KILL_PATIENCE, self.ended()).await {
            Ok(ended) => ended,
            Err(_) => Err(RuntimeError::Unkillable(self.id.clone())),
        }
    }
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    joined(tokio::task::spawn_blocking(work).await)?
}

/// A task's result; a task that panicked or was shut down with its runtime is an error.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, RuntimeError> {
    result.map_err(|e| RuntimeError::System {
        action: "finish a task",
        source: std::io::Error::other(e),
    })
}
