//! The last steps inside the container: find the command, restore what a program expects, execute it; and say, over a
//! pipe that a successful execve closes, what went wrong in Docker's words.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{AccessFlags, access, execve, pipe2};

use super::setup_error;
use crate::error::{Failure, FailureKind};
use crate::sys;

/// Executes a command with exactly the environment of its spec, and reports through a pipe why it could not.
#[derive(Clone)]
pub(super) struct CommandExecutor {
    report: Arc<OwnedFd>,
    tty: bool,
}

/// The reading side of [`CommandExecutor`]'s pipe.
pub(super) struct ExecReport(OwnedFd);

impl CommandExecutor {
    /// With `tty`, standard input becomes the controlling terminal.
    pub(super) fn new(tty: bool) -> Result<(Self, ExecReport), Failure> {
        let (reader, writer) =
            pipe2(OFlag::O_CLOEXEC).map_err(|e| setup_error("create pipe", e))?;
        Ok((Self { report: Arc::new(writer), tty }, ExecReport(reader)))
    }

    fn tell(&self, failure: &Failure) {
        let text = serde_json::to_string(failure).unwrap_or_else(|_| failure.message.clone());
        if let Ok(fd) = self.report.try_clone() {
            // If the pipe's reader is gone nobody waits for the answer.
            let _ = std::fs::File::from(fd).write_all(text.as_bytes());
        }
    }

    fn execute(&self, spec: &Spec) -> Result<Infallible, Failure> {
        let command = find_command(spec)?;
        let args = c_strings(
            spec.process().as_ref().and_then(|p| p.args().as_deref()).unwrap_or_default(),
        )?;
        let env = c_strings(environment(spec))?;
        if self.tty {
            sys::set_controlling_terminal(std::io::stdin().as_fd())
                .map_err(|e| setup_error("set the controlling terminal", e))?;
        }
        sys::reset_signals().map_err(|e| setup_error("reset signals", e))?;
        execve(&command, &args, &env).map_err(|errno| {
            let kind = match errno {
                Errno::ENOENT => FailureKind::NotFound,
                Errno::EACCES => FailureKind::NotExecutable,
                _ => FailureKind::Setup,
            };
            Failure::new(kind, format!("exec {}: {}", command.to_string_lossy(), words(errno)))
        })
    }
}

impl Executor for CommandExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        match self.execute(spec) {
            Ok(never) => match never {},
            Err(failure) => {
                self.tell(&failure);
                Err(ExecutorError::Other(failure.message))
            }
        }
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        find_command(spec).map(|_| ()).map_err(|failure| {
            self.tell(&failure);
            ExecutorValidationError::ArgValidationError(failure.message)
        })
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // execve gets the environment itself, in order; ours has nothing that leaks.
        Ok(())
    }
}

impl ExecReport {
    /// Waits until the command is executed or has failed to be; all copies of the writing side in this process must be gone.
    pub(super) fn failure(self) -> Option<Failure> {
        let mut text = Vec::new();
        match std::fs::File::from(self.0).read_to_end(&mut text) {
            Err(e) => Some(setup_error("read from the container", e)),
            Ok(_) => first_failure(&text),
        }
    }

    /// What has been told so far; for when libcontainer says that it failed, and some process may hang.
    pub(super) fn told(self) -> Option<Failure> {
        let mut text = vec![0; 16 * 1024];
        fcntl(&self.0, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
        // Nothing to be read means that nothing was told.
        let length = std::fs::File::from(self.0).read(&mut text).ok()?;
        first_failure(&text[..length])
    }
}

/// validate and exec may both speak; the first is the cause.
fn first_failure(text: &[u8]) -> Option<Failure> {
    let first = serde_json::Deserializer::from_slice(text).into_iter::<Failure>().next()?;
    Some(first.unwrap_or_else(|_| Failure::setup(String::from_utf8_lossy(text))))
}

fn c_strings(strings: &[String]) -> Result<Vec<CString>, Failure> {
    strings
        .iter()
        .map(|s| CString::new(s.as_str()).map_err(|e| setup_error("a NUL byte in the command", e)))
        .collect()
}

fn environment(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|p| p.env().as_deref()).unwrap_or_default()
}

fn find_command(spec: &Spec) -> Result<CString, Failure> {
    let args = spec.process().as_ref().and_then(|p| p.args().as_deref()).unwrap_or_default();
    let name = args.first().map_or("", String::as_str);
    let path =
        environment(spec).iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
    let found = find(name, path)?;
    CString::new(found).map_err(|e| setup_error("a NUL byte in the command", e))
}

/// As Go's `exec.LookPath`, whose words people know from Docker.
fn find(name: &str, path: &str) -> Result<String, Failure> {
    if name.contains('/') {
        return check(name).map(|()| name.to_owned());
    }
    let candidates =
        path.split(':').map(|dir| format!("{}/{name}", if dir.is_empty() { "." } else { dir }));
    let found =
        if name.is_empty() { None } else { candidates.into_iter().find(|c| check(c).is_ok()) };
    found.ok_or_else(|| {
        Failure::new(
            FailureKind::NotFound,
            format!("exec: {name:?}: executable file not found in $PATH"),
        )
    })
}

fn check(path: &str) -> Result<(), Failure> {
    let metadata = Path::new(path).metadata().map_err(|e| {
        let errno = Errno::from_raw(e.raw_os_error().unwrap_or(0));
        let kind =
            if errno == Errno::ENOENT { FailureKind::NotFound } else { FailureKind::NotExecutable };
        Failure::new(kind, format!("exec: {path:?}: stat {path}: {}", words(errno)))
    })?;
    if metadata.is_dir() {
        return Err(Failure::new(
            FailureKind::NotExecutable,
            format!("exec: {path:?}: is a directory"),
        ));
    }
    access(path, AccessFlags::X_OK).map_err(|e| {
        Failure::new(FailureKind::NotExecutable, format!("exec: {path:?}: {}", words(e)))
    })
}

/// The system's words for an error, in lower case.
pub(super) fn words(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_in_dockers_words() {
        let none = find("no-such-command", "/bin").unwrap_err();
        assert_eq!(none.message, "exec: \"no-such-command\": executable file not found in $PATH");
        assert_eq!(none.kind, FailureKind::NotFound);
        let absent = find("/no/such", "").unwrap_err();
        assert_eq!(absent.message, "exec: \"/no/such\": stat /no/such: no such file or directory");
        let dir = find("/etc", "").unwrap_err();
        assert_eq!(
            (dir.kind, dir.message.as_str()),
            (FailureKind::NotExecutable, "exec: \"/etc\": is a directory")
        );
        let plain = find("/etc/passwd", "").unwrap_err();
        assert_eq!(plain.message, "exec: \"/etc/passwd\": permission denied");
        assert_eq!(find("sh", "/nowhere:/bin").unwrap(), "/bin/sh");
    }

    #[test]
    fn the_first_failure_told_is_the_one_reported() {
        let (executor, report) = CommandExecutor::new(false).unwrap();
        for n in 1..3 {
            executor.tell(&Failure::new(FailureKind::NotFound, format!("{n}")));
        }
        drop(executor);
        assert_eq!(report.failure().unwrap().message, "1");
    }
}
