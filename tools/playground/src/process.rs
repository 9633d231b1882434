//! Programs we run, and processes we must recognise again.

use crate::error::IoContext;
use crate::{Error, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs `command` to its end and gives what it wrote to stdout.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().io("run", name)?;
    succeed(command, output)
}

/// Runs `command` with `input` on its stdin, for tools that read a batch (`ip -batch -`, `nft -f -`).
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .io("run", &name)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A tool that stops reading early reports its own error; that one is of more use than "broken pipe".
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().io("run", &name)?;
    let text = succeed(command, output)?;
    written.io("write to", name)?;
    Ok(text)
}

/// Output of a command that succeeded, as text; else the error that says what it was and what it said.
pub(crate) fn succeed(command: &Command, output: Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(Error::Command {
        command: command_line(command),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(said).trim().to_owned(),
    })
}

fn command_line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A process of the machine, told from a later one of the same pid by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat` (proc(5)).
    start_time: u64,
}

impl ProcessId {
    /// The process that has `pid` now; `None` when there is none or it is a zombie.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in brackets and may hold anything, brackets too.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start_time })
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends SIGKILL if it is still the same process.
    pub(crate) fn kill(self) -> Result<()> {
        if self.is_alive() {
            kill_pid(self.pid)?;
        }
        Ok(())
    }
}

/// Sends SIGKILL; a process that is gone already is fine.
pub(crate) fn kill_pid(pid: i32) -> Result<()> {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).io("kill process", pid),
    }
}
