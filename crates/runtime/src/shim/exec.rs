//! `shim-exec <bundle>`: places one process in a running container with libcontainer's tenant builder. Standard input is
//! a packet socket to the daemon: the request comes in, the process's pipes (or terminal) and then its exit status go out.
//! If the daemon closes it, the process is killed.

use std::fs;
use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{fstat, major, minor};
use nix::sys::statfs::fstatfs;
use nix::unistd::{Gid, Pid, Uid, dup2_stdin, fchown, pipe2};
use pathrs::Root;
use pathrs::flags::OpenFlags;
use serde::{Deserialize, Serialize};

use super::detach::leave_the_daemon_behind;
use super::executor::{CommandExecutor, words};
use super::{rootfs, setup_error};
use crate::bundle::{Bundle, Manifest, RunState, read_json, write_json};
use crate::error::Failure;
use crate::oci;
use crate::spec::ExecSpec;
use crate::sys;
use crate::user::User;

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Longest request.
const MAX_REQUEST: usize = 4 << 20;

/// What the daemon wants.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    /// `<state_dir>/<id>`.
    pub(crate) data: PathBuf,
    pub(crate) spec: ExecSpec,
}

/// What the daemon is told. `Started` comes with descriptors: the terminal, or standard output, error and, if wanted, input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ExecUpdate {
    Started,
    Failed(Failure),
    Exited { code: i32 },
}

/// The two sides of a process's standard files.
struct Stdio {
    /// For the daemon, in the order of [`ExecUpdate::Started`].
    ours: Vec<OwnedFd>,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    let daemon = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| setup_error("take over the daemon's socket", e))?;
    let (pid, ours) = match start(dir, &daemon) {
        Ok(started) => started,
        Err(failure) => {
            tell(&daemon, &ExecUpdate::Failed(failure.clone()), &[])?;
            return Err(failure);
        }
    };
    let process = sys::pidfd_open(pid).map_err(|e| setup_error("watch the process", e))?;
    if tell(&daemon, &ExecUpdate::Started, &ours).is_err() {
        kill_session(pid);
    }
    drop(ours);
    await_end(pid, &process, &daemon)?;
    let (code, _) = sys::reap(pid).map_err(|e| setup_error("reap the process", e))?;
    tell(&daemon, &ExecUpdate::Exited { code }, &[])
}

fn start(dir: &Path, daemon: &OwnedFd) -> Result<(i32, Vec<OwnedFd>), Failure> {
    leave_the_daemon_behind()?;
    let null = fs::File::open("/dev/null").map_err(|e| setup_error("open /dev/null", e))?;
    dup2_stdin(&null).map_err(|e| setup_error("replace standard input", e))?;
    let request = receive(daemon)?;
    let bundle = Bundle { dir: dir.to_owned(), data: request.data };
    let gone = || Failure::setup("the container is not running");
    let read_failed = |e| setup_error("read the bundle", e);
    let manifest: Manifest =
        read_json(&bundle.manifest()).map_err(read_failed)?.ok_or_else(gone)?;
    let run: RunState = read_json(&bundle.run_state()).map_err(read_failed)?.ok_or_else(gone)?;
    let root = rootfs::open(Path::new(&format!("/proc/{}/root", run.init.pid)))?;
    // After the root was opened: so it was the container's.
    run.init.open().map_err(|e| setup_error("look at the container", e))?.ok_or_else(gone)?;
    let spec = request.spec;
    let wanted = if spec.user.is_empty() { &manifest.spec.user } else { &spec.user };
    let user = rootfs::resolve_user(&root, wanted)?;
    let cwd = if spec.cwd.is_empty() { oci::cwd(&manifest.spec) } else { spec.cwd.clone() };
    root.resolve(&cwd).map_err(|e| missing_directory(&cwd, &e))?;
    let stdio =
        if spec.tty { Stdio::terminal(&root, &spec, &user)? } else { Stdio::pipes(&spec, &user)? };
    let process = oci::process(
        &spec.args,
        &environment(&manifest, &spec, &user),
        &cwd,
        &user,
        &manifest.cgroup,
    );
    place(&bundle, &manifest, &process, spec.tty, stdio)
}

fn missing_directory(cwd: &str, err: &pathrs::error::Error) -> Failure {
    let text = crate::error::chain(err);
    let cause = if text.contains("os error 2") { words(Errno::ENOENT) } else { text };
    Failure::setup(format!("chdir to cwd ({cwd:?}) set in config.json failed: {cause}"))
}

fn environment(manifest: &Manifest, spec: &ExecSpec, user: &User) -> Vec<String> {
    let mut base = oci::environment(&manifest.spec, user);
    if spec.tty {
        base = oci::merge_environment(&["TERM=xterm".to_owned()], &base);
    }
    oci::merge_environment(&base, &spec.env)
}

impl Stdio {
    fn pipes(spec: &ExecSpec, user: &User) -> Result<Self, Failure> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|e| setup_error("create pipe", e));
        let (stdout_reader, stdout) = pipe()?;
        let (stderr_reader, stderr) = pipe()?;
        let mut ours = vec![stdout_reader, stderr_reader];
        let stdin = if spec.stdin {
            let (stdin, writer) = pipe()?;
            ours.push(writer);
            stdin
        } else {
            fs::File::open("/dev/null").map_err(|e| setup_error("open /dev/null", e))?.into()
        };
        for fd in [&stdout, &stderr].into_iter().chain(spec.stdin.then_some(&stdin)) {
            give(fd, user)?;
        }
        Ok(Self { ours, stdin, stdout, stderr })
    }

    /// A terminal of the container's own devpts, so that `tty` and `/dev/pts/N` work in it.
    fn terminal(root: &Root, spec: &ExecSpec, user: &User) -> Result<Self, Failure> {
        let failed = |e: pathrs::error::Error| setup_error("open the container's /dev/pts/ptmx", e);
        let handle = root.resolve("/dev/pts/ptmx").map_err(failed)?;
        // The container may have put anything there; opening the wrong thing could block or do harm.
        let stat =
            fstat(handle.as_fd()).map_err(|e| setup_error("look at the container's ptmx", e))?;
        let magic =
            fstatfs(handle.as_fd()).map_err(|e| setup_error("look at the container's ptmx", e))?;
        if (major(stat.st_rdev), minor(stat.st_rdev)) != (5, 2)
            || magic.filesystem_type().0 != DEVPTS_MAGIC
        {
            return Err(Failure::setup(
                "the container's /dev/pts/ptmx is not a terminal multiplexer",
            ));
        }
        let flags = OpenFlags::O_RDWR | OpenFlags::O_NOCTTY | OpenFlags::O_CLOEXEC;
        let master: OwnedFd = handle.reopen(flags).map_err(failed)?.into();
        let peer = sys::open_terminal_peer(master.as_fd())
            .map_err(|e| setup_error("open the terminal", e))?;
        if let Some((rows, cols)) = spec.tty_size {
            sys::set_window_size(master.as_fd(), rows, cols)
                .map_err(|e| setup_error("size the terminal", e))?;
        }
        give(&peer, user)?;
        let copy = || peer.try_clone().map_err(|e| setup_error("copy a descriptor", e));
        Ok(Self { ours: vec![master], stdin: copy()?, stdout: copy()?, stderr: peer })
    }
}

/// Makes `user` the owner, so that it can open `/dev/stdout` and the like; the group stays.
fn give(fd: &OwnedFd, user: &User) -> Result<(), Failure> {
    let group: Option<Gid> = None;
    fchown(fd, Some(Uid::from_raw(user.uid)), group)
        .map_err(|e| setup_error("change the owner of a pipe", e))
}

/// Has libcontainer start the process.
fn place(
    bundle: &Bundle,
    manifest: &Manifest,
    process: &serde_json::Value,
    tty: bool,
    stdio: Stdio,
) -> Result<(i32, Vec<OwnedFd>), Failure> {
    let id = &manifest.spec.id;
    // libcontainer leaves a socket per exec in its directory for the container; so each gets a copy, removed afterwards.
    let copy = bundle.dir.join(format!("exec-{}", std::process::id()));
    let placed = (|| {
        let prepared = fs::create_dir_all(copy.join(id)).and_then(|()| {
            fs::copy(
                bundle.dir.join("libcontainer").join(id).join("state.json"),
                copy.join(id).join("state.json"),
            )
        });
        prepared.map_err(|e| setup_error("prepare the exec's directory", e))?;
        write_json(&copy.join("process.json"), process)
            .map_err(|e| setup_error("write process.json", e))?;
        let (executor, report) = CommandExecutor::new(tty)?;
        let built = ContainerBuilder::new(id.clone(), SyscallType::Linux)
            .with_executor(executor)
            .with_stdin(stdio.stdin)
            .with_stdout(stdio.stdout)
            .with_stderr(stdio.stderr)
            .with_root_path(&copy)
            .and_then(|b| {
                b.as_tenant()
                    .with_process(Some(copy.join("process.json")))
                    .with_detach(true)
                    .build()
            });
        match built {
            Ok(pid) => report.failure().map_or(Ok(pid.as_raw()), Err),
            Err(e) => Err(report.told().unwrap_or_else(|| setup_error("enter the container", e))),
        }
    })();
    if let Err(e) = fs::remove_dir_all(&copy) {
        eprintln!("remove {}: {e}", copy.display()); // goes with the bundle
    }
    Ok((placed?, stdio.ours))
}

/// Until the process ends; kills it if the daemon hangs up.
fn await_end(pid: i32, process: &OwnedFd, daemon: &OwnedFd) -> Result<(), Failure> {
    let mut connected = true;
    loop {
        let mut fds = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        if connected {
            fds.push(PollFd::new(daemon.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(setup_error("wait for the process", e)),
        }
        if fds[0].any().unwrap_or(true) {
            return Ok(());
        }
        // The daemon says nothing more, so whatever comes from there is the end.
        if fds.get(1).is_some_and(|fd| fd.any().unwrap_or(true)) {
            kill_session(pid);
            connected = false;
        }
    }
}

/// Kills the process and its process group, of which it is the leader.
fn kill_session(pid: i32) {
    // Either may have ended.
    let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

fn receive(daemon: &OwnedFd) -> Result<ExecRequest, Failure> {
    let mut bytes = vec![0; MAX_REQUEST];
    let socket = daemon.try_clone().map_err(|e| setup_error("read the request", e))?;
    let length =
        fs::File::from(socket).read(&mut bytes).map_err(|e| setup_error("read the request", e))?;
    serde_json::from_slice(&bytes[..length]).map_err(|e| setup_error("decode the request", e))
}

fn tell(daemon: &OwnedFd, update: &ExecUpdate, fds: &[OwnedFd]) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(update).map_err(|e| setup_error("encode a message", e))?;
    let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    sendmsg::<()>(
        daemon.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map_err(|e| setup_error("answer the daemon", e))?;
    Ok(())
}
