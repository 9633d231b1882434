//! `shim <bundle>`: sets a container up and starts it, tells the daemon, and becomes the watcher.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, chroot, dup2_stdout, execve, fchdir, fchown, pipe2};

use super::detach::leave_the_daemon_behind;
use super::executor::CommandExecutor;
use super::watch::WatchArgs;
use super::{Report, WATCH, rootfs, setup_error};
use crate::bundle::{Bundle, Manifest, RunState, read_json, write_json};
use crate::error::Failure;
use crate::oci;
use crate::process::ProcessId;
use crate::sys;
use crate::user::User;

/// What outlives the setup.
struct Running {
    init: ProcessId,
    lock: File,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Where the daemon lives: the shim goes back there, so that it pins no mount of the host.
struct Home {
    namespace: File,
    root: File,
}

pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    let outcome = start(dir);
    let report = match &outcome {
        Ok((running, _, started_at)) => {
            Report::Started { init: running.init, started_at: *started_at }
        }
        Err(failure) => Report::Failed(failure.clone()),
    };
    tell_daemon(&report);
    let (running, manifest, _) = outcome?;
    let never = become_watcher(dir, &manifest, &running)?;
    match never {}
}

fn start(dir: &Path) -> Result<(Running, Manifest, SystemTime), Failure> {
    let manifest: Manifest = read_json(&dir.join("manifest.json"))
        .map_err(|e| setup_error("read manifest", e))?
        .ok_or_else(|| Failure::setup(format!("{} has no manifest", dir.display())))?;
    let bundle = Bundle { dir: dir.to_owned(), data: manifest.data.clone() };
    let lock = lock(&bundle)?;
    let netns = &manifest.spec.netns;
    File::open(netns)
        .map_err(|e| setup_error(format_args!("open network namespace {}", netns.display()), e))?;
    leave_the_daemon_behind()?;
    let home = Home::remember()?;
    rootfs::enter_mount_namespace()?;
    rootfs::mount_overlay(&bundle, &manifest)?;
    let root = rootfs::open(&bundle.rootfs())?;
    let user = rootfs::resolve_user(&root, &manifest.spec.user)?;
    rootfs::prepare(&root, &oci::cwd(&manifest.spec))?;
    drop(root);
    rootfs::write_config(&bundle, &oci::config(&bundle, &manifest, &user))?;
    let (init, stdout, stderr) = run_container(&bundle, &manifest, &user)?;
    let started_at = SystemTime::now();
    let running = Running { init, lock, stdout, stderr };
    let recorded = write_json(&bundle.run_state(), &RunState { init, started_at })
        .map_err(|e| setup_error("record the container's state", e))
        .and_then(|()| home.go_back());
    if let Err(failure) = recorded {
        abandon(init.pid);
        return Err(failure);
    }
    Ok((running, manifest, started_at))
}

/// Kills a container that started but cannot be kept; the daemon removes its cgroup.
fn abandon(pid: i32) {
    // It may have ended on its own.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// The lock is how a later daemon knows that this shim lives.
fn lock(bundle: &Bundle) -> Result<File, Failure> {
    let path = bundle.lock();
    let mut file = File::create_new(&path).map_err(|e| setup_error("create the shim's lock", e))?;
    file.try_lock().map_err(|e| setup_error("take the shim's lock", e))?;
    let me = ProcessId::of(std::process::id() as i32)
        .map_err(|e| setup_error("look at the own process", e))?;
    let text = serde_json::to_vec(&me).map_err(|e| setup_error("encode the lock", e))?;
    file.write_all(&text).map_err(|e| setup_error("write the shim's lock", e))?;
    Ok(file)
}

impl Home {
    fn remember() -> Result<Self, Failure> {
        let open =
            |path: &str| File::open(path).map_err(|e| setup_error(format_args!("open {path}"), e));
        Ok(Self { namespace: open("/proc/self/ns/mnt")?, root: open("/")? })
    }

    /// The container's own namespace then holds the only mount of its root: both end with its last process.
    fn go_back(&self) -> Result<(), Failure> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNS)
            .map_err(|e| setup_error("return to the mount namespace", e))?;
        fchdir(&self.root)
            .and_then(|()| chroot("."))
            .map_err(|e| setup_error("return to the root directory", e))
    }
}

/// Creates and starts the container; returns when its command has been executed.
fn run_container(
    bundle: &Bundle,
    manifest: &Manifest,
    user: &User,
) -> Result<(ProcessId, OwnedFd, OwnedFd), Failure> {
    let (executor, report) = CommandExecutor::new(false)?;
    let (stdout, container_stdout) = output_pipe(user)?;
    let (stderr, container_stderr) = output_pipe(user)?;
    let stdin = File::open("/dev/null").map_err(|e| setup_error("open /dev/null", e))?;
    let built = ContainerBuilder::new(manifest.spec.id.clone(), SyscallType::Linux)
        .with_executor(executor)
        .with_stdin(stdin)
        .with_stdout(container_stdout)
        .with_stderr(container_stderr)
        .with_root_path(bundle.dir.join("libcontainer"))
        .and_then(|b| b.as_init(&bundle.dir).with_systemd(false).with_detach(true).build());
    let mut container = match built {
        Ok(container) => container,
        Err(e) => return Err(report.told().unwrap_or_else(|| setup_error("create container", e))),
    };
    let pid = container
        .pid()
        .ok_or_else(|| Failure::setup("create container: it has no process"))?
        .as_raw();
    // We are its parent: until we reap it the pid is its.
    let started = ProcessId::of(pid)
        .map_err(|e| setup_error("look at the container's process", e))
        .and_then(|init| {
            container.start().map_err(|e| setup_error("start container", e))?;
            report.failure().map_or(Ok(init), Err)
        });
    if started.is_err() {
        abandon(pid);
    }
    Ok((started?, stdout, stderr))
}

/// A pipe for output: its reading end, and the writing end, owned by `user` so that it can open `/dev/stdout`.
fn output_pipe(user: &User) -> Result<(OwnedFd, OwnedFd), Failure> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|e| setup_error("create pipe", e))?;
    fchown(&writer, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))
        .map_err(|e| setup_error("change the owner of a pipe", e))?;
    Ok((reader, writer))
}

/// Says one line on standard output and closes it.
fn tell_daemon(report: &Report) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    // A daemon that died meanwhile finds the container by its bundle.
    let _ = std::io::stdout().write_all(&line).and_then(|()| std::io::stdout().flush());
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        // The pipe closes with the process at the latest.
        let _ = dup2_stdout(&null);
    }
}

/// Executes this program again as the watcher: same pid and children, but without libcontainer's memory.
fn become_watcher(
    dir: &Path,
    manifest: &Manifest,
    running: &Running,
) -> Result<Infallible, Failure> {
    let args = WatchArgs {
        init: running.init.pid,
        lock: running.lock.as_raw_fd(),
        stdout: running.stdout.as_raw_fd(),
        stderr: running.stderr.as_raw_fd(),
        log_dir: manifest.data.join("logs"),
        log_limits: manifest.log_limits,
        oom_file: manifest.cgroup.oom_file(),
    };
    let c_string =
        |bytes: &[u8]| CString::new(bytes).map_err(|e| setup_error("encode arguments", e));
    let mut argv = vec![
        c_string(b"swarmd")?,
        c_string(WATCH.as_bytes())?,
        c_string(dir.as_os_str().as_bytes())?,
    ];
    for arg in args.to_args() {
        argv.push(c_string(arg.as_bytes())?);
    }
    sys::cloexec_from_3().map_err(|e| setup_error("close descriptors", e))?;
    for fd in [running.lock.as_fd(), running.stdout.as_fd(), running.stderr.as_fd()] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))
            .map_err(|e| setup_error("keep a descriptor", e))?;
    }
    let env: [CString; 0] = [];
    let failed = execve(c"/proc/self/exe", &argv, &env);
    abandon(running.init.pid);
    failed.map_err(|e| setup_error("execute the watcher", e))
}
