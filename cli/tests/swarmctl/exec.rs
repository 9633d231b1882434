//! `task exec`: streams, exit codes, and the terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr, tcsetwinsize};

use crate::fake::Fake;
use crate::support::{finish, run, size, spawn, swarmctl, terminal, until, wait};

#[test]
fn the_exit_code_is_the_command_s() {
    let fake = Fake::new();
    let ran = run(&fake, "task exec -e A=1 -u 5 web.1 exit -x 42");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(42), ""));
    assert_eq!(ran.stderr, "web.1 [\"exit\", \"-x\", \"42\"] [\"A=1\"] \"5\"\n");
    run(&fake, "task exec none.1 true").failed("error: task none.1 not found");
}

#[test]
fn standard_input_goes_to_the_command_until_it_ends() {
    let fake = Fake::new();
    let mut child = spawn(swarmctl(&fake, "task exec -i web.1 cat").stdin(Stdio::piped()));
    let input: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    let mut stdin = child.stdin.take().unwrap();
    let text = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let ran = finish(child);
    writer.join().unwrap();
    assert_eq!(ran.code, Some(0));
    assert!(ran.stdout == input, "{} of {} bytes came back", ran.stdout.len(), input.len());
}

#[test]
fn a_terminal_is_asked_for_only_where_there_is_one() {
    let fake = Fake::new();
    let ran = run(&fake, "task exec -it web.1 sh");
    assert_eq!(ran.code, Some(2));
    assert_eq!(ran.stderr, "error: --tty needs a terminal as standard input\n");
}

/// A terminal with `swarmctl` on it.
struct Terminal {
    main: OwnedFd,
    other: OwnedFd,
    child: Child,
}

impl Terminal {
    fn exec(fake: &Fake) -> Terminal {
        let (main, terminal) = terminal();
        let open = || terminal.try_clone().unwrap();
        let child = swarmctl(fake, "task exec -it web.1 sh")
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        Terminal { main, other: terminal, child }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.other).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn type_text(&self, text: &str) {
        File::from(self.main.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
    }
}

#[test]
fn the_terminal_is_raw_while_the_command_runs_and_follows_its_size() {
    let fake = Fake::new();
    let mut terminal = Terminal::exec(&fake);
    until("raw mode", || terminal.is_raw());
    // Ctrl-C is the command's.
    terminal.type_text("a\x03b");
    let mut echoed = Vec::new();
    let mut main = File::from(terminal.main.try_clone().unwrap());
    while !echoed.ends_with(b"a\x03b") {
        let mut byte = [0];
        main.read_exact(&mut byte).unwrap();
        echoed.push(byte[0]);
    }
    tcsetwinsize(&terminal.other, size(50, 132)).unwrap();
    terminal.signal(Signal::WINCH);
    until("new size", || fake.world().sizes == [(24, 80), (50, 132)]);
    terminal.type_text("q");
    assert_eq!(wait(&mut terminal.child).code(), Some(0));
    assert!(!terminal.is_raw());
}

#[test]
fn the_terminal_is_itself_again_after_a_signal() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let fake = Fake::new();
        let mut terminal = Terminal::exec(&fake);
        until("raw mode", || terminal.is_raw());
        terminal.signal(signal);
        assert_eq!(wait(&mut terminal.child).code(), Some(code));
        assert!(!terminal.is_raw());
    }
}
