//! `swarmctl` on a terminal: its screen, as a person sees it.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::termios::tcsetwinsize;
use swarm_proto::control::{Progress, SlotProgress};
use tokio::sync::mpsc;

use crate::fake::{Fake, Live};
use crate::lists::service;
use crate::support::{self, size, swarmctl, wait};

const PATIENCE: Duration = Duration::from_secs(30);
const NOT_FOUND: &str = "exec: \"/nope\": stat /nope: no such file or directory";

/// A terminal with `swarmctl` on it, and what its screen shows.
struct Terminal {
    main: OwnedFd,
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// `swarmctl` as the foreground of a terminal of 24 rows.
    fn run(fake: &Fake, line: &str, columns: u16) -> Terminal {
        Terminal::run_on(fake, line, columns, "xterm-256color")
    }

    fn run_on(fake: &Fake, line: &str, columns: u16, kind: &str) -> Terminal {
        let (main, other) = support::terminal();
        tcsetwinsize(&other, size(24, columns)).unwrap();
        let program = swarmctl(fake, line);
        // The terminal's signals are for those that it controls.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program.get_program()).args(program.get_args());
        command.env("SWARM_HOST", fake.host()).env("TERM", kind);
        let open = || other.try_clone().unwrap();
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        // The terminal is gone with its last holder.
        drop((command, other));
        let parser = vt100::Parser::new(nonzero(24), nonzero(columns), 0);
        let screen = Arc::new(Mutex::new(parser));
        std::thread::spawn({
            let mut main = File::from(main.try_clone().unwrap());
            let screen = Arc::clone(&screen);
            move || {
                let mut bytes = [0; 4096];
                // A terminal that nobody holds any more is an error, not an end.
                while let Ok(length @ 1..) = main.read(&mut bytes) {
                    screen.lock().unwrap().process(&bytes[..length]);
                }
            }
        });
        Terminal { main, child, screen }
    }

    fn rows(&self) -> Vec<String> {
        let screen = self.screen.lock().unwrap();
        let width = screen.screen().size().1.get();
        let rows = screen.screen().rows(0, width).map(|row| row.trim_end().to_owned());
        let mut rows: Vec<String> = rows.collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    /// Waits until the screen shows these rows, and none else.
    #[track_caller]
    fn shows(&self, rows: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while self.rows() != rows {
            assert!(
                Instant::now() < deadline,
                "not\n{}\nbut\n{}",
                rows.join("\n"),
                self.rows().join("\n")
            );
            std::thread::sleep(Duration::from_millis(5)); // the screen is fed by another thread, which tells nobody
        }
    }

    fn type_text(&self, text: &str) {
        File::from(self.main.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
    }

    fn resize(&self, columns: u16) {
        tcsetwinsize(&self.main, size(24, columns)).unwrap();
        let mut screen = self.screen.lock().unwrap();
        screen.screen_mut().set_size(nonzero(24), nonzero(columns));
    }

    #[track_caller]
    fn ends(&mut self, code: i32) {
        assert_eq!(wait(&mut self.child).code(), Some(code), "{}", self.rows().join("\n"));
    }
}

fn nonzero(size: u16) -> NonZero<u16> {
    NonZero::new(size).unwrap()
}

fn slot(slot: u64, state: &str, err: &str) -> SlotProgress {
    SlotProgress { slot, state: state.into(), err: err.into(), message: String::new() }
}

fn progress(running: u64, slots: Vec<SlotProgress>) -> Progress {
    let desired = slots.len() as u64;
    Progress { desired, running, nodes: 2, slots, ..Progress::default() }
}

/// A start that is tried again and again, as fast as states can change: the last of it says why it does not work.
fn burst() -> Vec<Progress> {
    let states = ["new", "pending", "assigned", "accepted", "preparing", "ready", "starting"];
    let mut said = Vec::new();
    for _ in 0..20 {
        for state in states {
            said.push(progress(0, vec![slot(1, state, ""), slot(2, state, "")]));
        }
    }
    let failed = || vec![slot(1, "starting", NOT_FOUND), slot(2, "starting", "")];
    said.push(progress(0, failed()));
    said
}

fn converged() -> Progress {
    let slots = vec![slot(1, "running", ""), slot(2, "running", "")];
    Progress { converged: true, nodes_in_force: 2, ..progress(2, slots) }
}

/// Says all of it at once to the next watch, which stays open.
fn say(fake: &Fake, said: Vec<Progress>) -> Live {
    let (live, watch) = mpsc::unbounded_channel();
    fake.world().live.push_back(watch);
    for progress in said {
        live.send(Ok(progress)).unwrap();
    }
    live
}

/// Each command that waits for a service, with what it prints of it.
const COMMANDS: [(&str, &str); 3] = [
    ("service create --name web --replicas 2 nginx /nope", "service-id"),
    ("service update --force web", "web"),
    ("service scale web=2", "web scaled to 2"),
];

fn fake() -> Fake {
    let fake = Fake::new();
    fake.world().services = vec![service("web")];
    fake
}

const HALF: &str = "[===========================================>      ]";
const FULL: &str = "[==================================================]";

#[test]
fn the_last_of_a_burst_is_what_is_shown_while_it_is_waited_for() {
    for (line, printed) in COMMANDS {
        let fake = fake();
        let live = say(&fake, burst());
        let mut terminal = Terminal::run(&fake, line, 80);
        terminal.shows(&[
            printed,
            "overall progress: 0 out of 2 tasks",
            &format!("1/2: starting  {NOT_FOUND}"),
            &format!("2/2: starting  {HALF}"),
            "verify: in force on 0 of 2 nodes",
        ]);
        live.send(Ok(converged())).unwrap();
        terminal.ends(0);
        terminal.shows(&[
            printed,
            "overall progress: 2 out of 2 tasks",
            &format!("1/2: running   {FULL}"),
            &format!("2/2: running   {FULL}"),
            "verify: Service web converged",
        ]);
    }
}

#[test]
fn a_narrow_terminal_has_the_words_whole() {
    let narrow: [(u16, &[&str]); 2] = [
        (
            40,
            &[
                "overall progress: 0 out of 2 tasks",
                "1/2: starting  exec: \"/nope\": stat /nope",
                ": no such file or directory",
                "2/2: starting  [====================>  ]",
                "verify: in force on 0 of 2 nodes",
            ],
        ),
        (
            20,
            &[
                "overall progress: 0",
                "out of 2 tasks",
                "1/2: starting  exec:",
                " \"/nope\": stat /nope",
                ": no such file or d…",
                "2/2: starting",
                "verify: in force on",
                "0 of 2 nodes",
            ],
        ),
    ];
    for (columns, rows) in narrow {
        let fake = fake();
        let _live = say(&fake, burst());
        let mut terminal = Terminal::run(&fake, "service update --force web", columns);
        terminal.shows(&[&["web"], rows].concat());
        terminal.child.kill().unwrap();
        terminal.child.wait().unwrap();
    }
}

#[test]
fn a_failure_stands_below_what_is_shown() {
    for (line, printed) in COMMANDS {
        let fake = fake();
        let failure = "task web.1.x failed: no such image".to_owned();
        let said = progress(0, vec![slot(1, "rejected", "no such image"), slot(2, "new", "")]);
        let _live = say(&fake, vec![Progress { failure, ..said }]);
        let mut terminal = Terminal::run(&fake, line, 80);
        terminal.ends(1);
        terminal.shows(&[
            printed,
            "overall progress: 0 out of 2 tasks",
            "1/2: rejected  no such image",
            "2/2: new       [======>                                           ]",
            "verify: in force on 0 of 2 nodes",
            "error: service web: task web.1.x failed: no such image",
        ]);
    }
}

#[test]
fn what_is_shown_fits_the_terminal_as_it_changes() {
    let fake = fake();
    let live = say(&fake, burst());
    let mut terminal = Terminal::run(&fake, "service update --force web", 80);
    let wide = |columns: usize| {
        let cut = |text: &str| text.chars().take(columns).collect::<String>().trim_end().to_owned();
        [
            "web".to_owned(),
            cut("overall progress: 0 out of 2 tasks"),
            cut(&format!("1/2: starting  {NOT_FOUND}")),
            cut(&format!("2/2: starting  {HALF}")),
            cut("verify: in force on 0 of 2 nodes"),
        ]
    };
    let before = wide(80);
    terminal.shows(&before.each_ref().map(String::as_str));

    // What is there already is the terminal's: this one cuts it. What comes is begun anew below, and fits.
    terminal.resize(40);
    live.send(Ok(progress(1, vec![slot(1, "running", ""), slot(2, "ready", "")]))).unwrap();
    let left = wide(40);
    let new = [
        "overall progress: 1 out of 2 tasks",
        "1/2: running   [=======================]",
        "2/2: ready     [=================>     ]",
        "verify: in force on 0 of 2 nodes",
    ];
    terminal.shows(&[&left.each_ref().map(String::as_str)[..], &new].concat());

    terminal.resize(100);
    live.send(Ok(converged())).unwrap();
    terminal.ends(0);
    let full = [1, 2].map(|number| format!("{number}/2: running   {FULL}"));
    let new =
        ["overall progress: 2 out of 2 tasks", &full[0], &full[1], "verify: Service web converged"];
    terminal.shows(&[&left.each_ref().map(String::as_str)[..], &new].concat());
}

#[test]
fn ctrl_c_leaves_what_is_shown_and_says_that_the_work_goes_on() {
    for (line, printed) in COMMANDS {
        let fake = fake();
        let _live = say(&fake, burst());
        let mut terminal = Terminal::run(&fake, line, 80);
        let shown = [
            printed,
            "overall progress: 0 out of 2 tasks",
            &format!("1/2: starting  {NOT_FOUND}"),
            &format!("2/2: starting  {HALF}"),
            "verify: in force on 0 of 2 nodes",
        ];
        terminal.shows(&shown);
        terminal.type_text("\x03");
        terminal.ends(130);
        let said =
            ["^C", "The work goes on in the background. Watch it with: swarmctl service ps web"];
        terminal.shows(&[&shown[..], &said].concat());
    }
}

#[test]
fn a_rotation_of_the_root_is_shown_to_its_end() {
    let bar = "[========================================]";
    let shown: [(u16, [&str; 3]); 3] = [
        (
            80,
            [
                "desired root digest: sha256:00ff",
                &format!("  rotated TLS certificates: {bar} 2/2 nodes"),
                &format!("  rotated CA certificates:  {bar} 2/2 nodes"),
            ],
        ),
        (
            40,
            [
                "desired root digest: sha256:00ff",
                "  rotated TLS certificates: 2/2 nodes",
                "  rotated CA certificates: 2/2 nodes",
            ],
        ),
        (
            20,
            [
                "desired root digest:\n sha256:00ff",
                "  rotated TLS certif\nicates: 2/2 nodes",
                "  rotated CA certifi\ncates: 2/2 nodes",
            ],
        ),
    ];
    for (columns, rows) in shown {
        let fake = Fake::new();
        let mut terminal = Terminal::run(&fake, "ca --rotate", columns);
        terminal.ends(0);
        let certificate = if columns == 20 {
            "-----BEGIN CERTIFICA\nTE-----"
        } else {
            "-----BEGIN CERTIFICATE-----"
        };
        let rows = format!("{}\n{certificate}", rows.join("\n"));
        terminal.shows(&rows.lines().collect::<Vec<_>>());
    }
}

#[test]
fn a_terminal_that_cannot_be_painted_on_gets_lines() {
    let fake = fake();
    let live = say(&fake, vec![progress(0, vec![slot(1, "starting", NOT_FOUND)]), converged()]);
    let mut terminal = Terminal::run_on(&fake, "service scale web=2", 80, "dumb");
    terminal.ends(0);
    terminal.shows(&[
        "web scaled to 2",
        "overall progress: 0 out of 1 tasks",
        &format!("1/1: starting: {NOT_FOUND}"),
        "overall progress: 2 out of 2 tasks",
        "1/2: running",
        "2/2: running",
        "verify: in force on 2 of 2 nodes",
        "verify: Service web converged",
    ]);
    drop(live);
}
