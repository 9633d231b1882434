//! Running `swarmctl`, never longer than a time-out.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::fake::Fake;

const TIMEOUT: Duration = Duration::from_secs(30);

/// What a run of `swarmctl` left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
}

impl Ran {
    /// It worked, and said nothing on stderr.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// It failed with this line and nothing else.
    #[track_caller]
    pub(crate) fn failed(self, line: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(
            (self.stdout.as_str(), self.stderr.as_str()),
            ("", format!("{line}\n").as_str())
        );
    }
}

/// `swarmctl` for a socket.
pub(crate) fn swarmctl(fake: &Fake, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmctl"));
    command.env("SWARM_HOST", fake.host()).args(shlex::split(line).expect("a line of words"));
    command
}

/// Runs `swarmctl` with nothing on its standard input.
pub(crate) fn run(fake: &Fake, line: &str) -> Ran {
    finish(spawn(swarmctl(fake, line).stdin(Stdio::null())))
}

/// Starts a command with pipes for what it writes.
pub(crate) fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("swarmctl starts")
}

/// Waits for a child's end, and reads what it wrote.
pub(crate) fn finish(mut child: Child) -> Ran {
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let status = wait(&mut child);
    let text = |reader: std::thread::JoinHandle<String>| reader.join().expect("a reader");
    Ran { stdout: text(stdout), stderr: text(stderr), code: status.code() }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).expect("a readable pipe");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end of a child; kills one that hangs.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if Instant::now() > deadline {
            // It may have ended just now.
            let _ = child.kill();
            panic!("swarmctl hangs");
        }
        std::thread::sleep(Duration::from_millis(5)); // std has no wait with a deadline
    }
}

/// Waits until `done` says so.
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !done() {
        assert!(Instant::now() < deadline, "no {what} in time");
        std::thread::sleep(Duration::from_millis(5)); // any condition: there is no event of it
    }
}

/// A terminal of 24 rows and 80 columns: the side that shows it, and the side for a program.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&main).expect("a terminal of ours");
    unlockpt(&main).expect("an open terminal");
    let path = ptsname(&main, Vec::new()).expect("a terminal with a name");
    let path = path.to_str().expect("a plain name");
    let other = File::options().read(true).write(true).open(path).expect("the other side");
    tcsetwinsize(&other, size(24, 80)).expect("a terminal with a size");
    (main, other.into())
}

pub(crate) fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
