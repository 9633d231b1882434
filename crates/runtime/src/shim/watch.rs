//! `shim-watch ...`: moves a container's output to its log, waits for its end and writes down how it ended. This is
//! all that stays of a shim, so it is kept small.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::setup_error;
use crate::bundle::{Bundle, LogLimits, write_exit};
use crate::cgroup;
use crate::error::Failure;
use crate::log::{LineSplitter, LogWriter, Stream};
use crate::spec::Exit;
use crate::sys;

/// How long output is awaited after the container's end. All its processes are dead by then; only a descriptor passed
/// out of the container could keep a pipe open.
const DRAIN: Duration = Duration::from_secs(1);

/// What `shim` hands to `shim-watch`, as arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WatchArgs {
    pub(super) init: i32,
    pub(super) lock: i32,
    pub(super) stdout: i32,
    pub(super) stderr: i32,
    pub(super) log_dir: PathBuf,
    pub(super) log_limits: LogLimits,
    pub(super) oom_file: Option<PathBuf>,
}

impl WatchArgs {
    pub(super) fn to_args(&self) -> Vec<OsString> {
        let fds = format!("{},{},{},{}", self.init, self.lock, self.stdout, self.stderr);
        let limits = format!("{},{}", self.log_limits.file_size, self.log_limits.files);
        let oom_file = self.oom_file.clone().unwrap_or_default();
        vec![fds.into(), limits.into(), self.log_dir.clone().into(), oom_file.into()]
    }

    fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let fds = args.next()?.into_string().ok()?;
        let mut fds = fds.split(',').map(|n| n.parse::<i32>());
        let mut fd = || fds.next()?.ok();
        let limits = args.next()?.into_string().ok()?;
        let (file_size, files) = limits.split_once(',')?;
        Some(Self {
            init: fd()?,
            lock: fd()?,
            stdout: fd()?,
            stderr: fd()?,
            log_limits: LogLimits {
                file_size: file_size.parse().ok()?,
                files: files.parse().ok()?,
            },
            log_dir: args.next()?.into(),
            oom_file: args
                .next()
                .filter(|a| a.as_os_str() != OsStr::from_bytes(b""))
                .map(PathBuf::from),
        })
    }
}

/// One of the container's two output pipes.
struct Output {
    stream: Stream,
    pipe: Option<File>,
    lines: LineSplitter,
}

pub(super) fn run(dir: &Path, args: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let args = WatchArgs::parse(args).ok_or_else(|| Failure::setup("malformed arguments"))?;
    sys::ignore_termination();
    let inherited = |fd| sys::own(fd).map_err(|e| setup_error("take over a descriptor", e));
    let _lock: OwnedFd = inherited(args.lock)?;
    let output = |stream, fd| {
        Ok(Output { stream, pipe: Some(inherited(fd)?.into()), lines: LineSplitter::default() })
    };
    let mut outputs = [output(Stream::Stdout, args.stdout)?, output(Stream::Stderr, args.stderr)?];
    let init =
        sys::pidfd_open(args.init).map_err(|e| setup_error("watch the container's process", e))?;
    settle();
    let mut log = LogWriter::new(args.log_dir, args.log_limits);
    pump(&mut outputs, &mut log, &init).map_err(|e| setup_error("wait for the container", e))?;
    let (code, signal) = sys::reap(args.init).map_err(|e| setup_error("reap the container", e))?;
    let oom_killed = args.oom_file.is_some_and(|f| cgroup::oom_kills(&f) > 0);
    let exit = Exit { code, signal, oom_killed, finished_at: SystemTime::now(), error: None };
    let bundle = Bundle { dir: dir.to_owned(), data: PathBuf::new() };
    write_exit(&bundle, &exit).map_err(|e| setup_error("record the container's end", e))
}

/// Makes itself small, and a bad choice for the OOM killer: the shim's end is the container's end. Without either it works
/// as well, so failures are only noted.
fn settle() {
    if let Err(e) = sys::release_code_pages() {
        eprintln!("release memory: {e}");
    }
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", "-998") {
        eprintln!("set oom_score_adj: {e}");
    }
}

/// Copies output until the process `init` has ended and its output is drained.
fn pump(outputs: &mut [Output; 2], log: &mut LogWriter, init: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    let mut drain_until: Option<Instant> = None;
    loop {
        let timeout = match drain_until {
            None => PollTimeout::NONE,
            Some(end) => match end.checked_duration_since(Instant::now()) {
                // Rounded up: a timeout of 0 ms would spin.
                Some(left) => {
                    PollTimeout::try_from(left.as_millis() as u32 + 1).unwrap_or(PollTimeout::ZERO)
                }
                None => break,
            },
        };
        let ready = wait_ready(outputs, drain_until.is_none().then_some(init), timeout)?;
        if ready[2] {
            drain_until = Some(Instant::now() + DRAIN);
        }
        for (output, _) in outputs.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            output.read(&mut buffer, log);
        }
        log.flush();
        if drain_until.is_some() && outputs.iter().all(|o| o.pipe.is_none()) {
            break;
        }
    }
    for output in outputs {
        output.lines.finish(|line| log.push(output.stream, line));
    }
    log.flush();
    Ok(())
}

/// Which of the two pipes and the process can be attended to. Output is ready before the end of the process is noticed.
fn wait_ready(
    outputs: &[Output; 2],
    init: Option<&OwnedFd>,
    timeout: PollTimeout,
) -> io::Result<[bool; 3]> {
    let mut fds = Vec::with_capacity(3);
    let mut places = Vec::with_capacity(3);
    for (place, output) in outputs.iter().enumerate() {
        if let Some(pipe) = &output.pipe {
            fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
            places.push(place);
        }
    }
    if let Some(init) = init {
        fds.push(PollFd::new(init.as_fd(), PollFlags::POLLIN));
        places.push(2);
    }
    let mut ready = [false; 3];
    match poll(&mut fds, timeout) {
        Ok(_) => {}
        Err(nix::errno::Errno::EINTR) => return Ok(ready),
        Err(e) => return Err(e.into()),
    }
    for (fd, place) in fds.iter().zip(places) {
        ready[place] = fd.any().unwrap_or(true);
    }
    Ok(ready)
}

impl Output {
    /// Reads once; a pipe that is at its end or broken is given up.
    fn read(&mut self, buffer: &mut [u8], log: &mut LogWriter) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.read(buffer) {
            Ok(0) => self.pipe = None,
            Ok(n) => self.lines.feed(&buffer[..n], |line| log.push(self.stream, line)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.pipe = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_survive_the_exec() {
        for oom_file in [None, Some(PathBuf::from("/sys/fs/cgroup/x"))] {
            let args = WatchArgs {
                init: 7,
                lock: 3,
                stdout: 4,
                stderr: 5,
                log_dir: "/a b".into(),
                log_limits: LogLimits { file_size: 10, files: 3 },
                oom_file,
            };
            assert_eq!(WatchArgs::parse(args.to_args().into_iter()).unwrap(), args);
        }
        assert_eq!(WatchArgs::parse(["1,2".into()].into_iter()), None);
    }
}
