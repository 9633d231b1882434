//! Processes killed in the middle of writing: what they acknowledged must be there afterwards.
//!
//! Those processes are this program, too, called as a manager; so it has a `main` of its own.
#![allow(missing_docs)]

mod support;

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use bytes::Bytes;
use libtest_mimic::{Arguments, Trial};
use support::{Journal, Node};
use swarm_raft::{Options, Raft};
use tempfile::tempdir;
use tokio::io::AsyncBufReadExt;

/// The first argument of a manager; a directory, its id and its address follow.
const MANAGER: &str = "manager-to-be-killed";
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if let [_, word, dir, id, addr] = words.as_slice()
        && word == MANAGER
    {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(manage(Path::new(dir), id.parse().unwrap(), addr));
        return ExitCode::SUCCESS;
    }
    let test = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let tests = vec![
        test(
            "a_manager_killed_again_and_again_loses_nothing",
            a_manager_killed_again_and_again_loses_nothing,
        ),
        test(
            "another_leads_soon_after_the_leader_is_killed",
            another_leads_soon_after_the_leader_is_killed,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// A manager that the tests command on its standard input, and kill.
async fn manage(dir: &Path, id: u64, addr: &str) {
    let options = Options {
        snapshot_every: 150,
        keep_entries: 20,
        ..Options::new(id, dir.join(format!("manager-{id}")), support::key(id))
    };
    let node = Node::try_start(options, addr).await.unwrap();
    say(&format!("addr {}", node.addr));
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["bootstrap"] => node.raft.bootstrap(node.addr.clone()).await.unwrap(),
            ["add", id, addr] => node.raft.add_voter(id.parse().unwrap(), addr).await.unwrap(),
            ["flood"] => flood(&node.raft),
            ["list"] => list(&node.raft, &node.journal).await,
            _ => panic!("unknown command {line}"),
        }
        say("done");
    }
}

/// Writes without end as soon as this manager leads, and tells each write that is acknowledged.
fn flood(raft: &Raft) {
    for client in 0..8 {
        let raft = raft.clone();
        tokio::spawn(async move {
            for i in 0.. {
                let name = format!("{}-{client}-{i}", std::process::id());
                let command = format!("{name} {}", "p".repeat(i % 9000));
                match raft.propose(Bytes::from(command)).await {
                    Ok(_) => say(&format!("acknowledged {name}")),
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await, // while no manager leads
                }
            }
        });
    }
}

/// Tells everything that is committed.
async fn list(raft: &Raft, journal: &Journal) {
    let deadline = Instant::now() + PATIENCE;
    while raft.read_barrier().await.is_err() {
        assert!(Instant::now() < deadline, "no read barrier");
        tokio::time::sleep(Duration::from_millis(10)).await; // before the next try
    }
    for command in journal.commands() {
        let name = std::str::from_utf8(&command).unwrap().split(' ').next().unwrap();
        say(&format!("has {name}"));
    }
}

/// A manager in a process of its own, killed when dropped.
struct Manager {
    process: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
    addr: String,
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Manager {
    fn start(dir: &Path, id: u64, addr: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([MANAGER.as_ref(), dir.as_os_str()])
            .args([&id.to_string(), addr])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let commands = process.stdin.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut manager = Self { process, commands, lines, addr: String::new() };
        manager.addr = manager.expect("addr ");
        manager
    }

    /// The rest of the next line that begins so.
    fn expect(&self, start: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("{start:?} is not said"));
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    fn command(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    fn call(&mut self, command: &str) {
        self.command(command);
        self.expect("done");
    }

    fn acknowledged(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.expect("acknowledged ")).collect()
    }

    /// Kills the process; returns what it had acknowledged beyond what was read.
    fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let rest = std::iter::from_fn(|| self.lines.recv_timeout(Duration::from_secs(5)).ok());
        rest.filter_map(|line| line.strip_prefix("acknowledged ").map(str::to_owned)).collect()
    }

    fn list(&mut self) -> HashSet<String> {
        self.command("list");
        let mut names = HashSet::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("a list ends");
            match line.strip_prefix("has ") {
                Some(name) => drop(names.insert(name.to_owned())),
                None if line == "done" => return names,
                None => {}
            }
        }
    }
}

fn assert_all(acknowledged: &[String], present: &HashSet<String>) {
    let lost: Vec<_> = acknowledged.iter().filter(|name| !present.contains(*name)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
}

fn a_manager_killed_again_and_again_loses_nothing() {
    let dir = tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let mut manager = Manager::start(dir.path(), 1, "127.0.0.1:0");
        if round == 0 {
            manager.call("bootstrap");
        }
        manager.call("flood");
        acknowledged.extend(manager.acknowledged(300));
        acknowledged.extend(manager.kill());
    }
    let mut manager = Manager::start(dir.path(), 1, "127.0.0.1:0");
    assert_all(&acknowledged, &manager.list());
}

fn another_leads_soon_after_the_leader_is_killed() {
    let dir = tempdir().unwrap();
    let mut managers: Vec<Manager> =
        (1..=3).map(|id| Manager::start(dir.path(), id, "127.0.0.1:0")).collect();
    managers[0].call("bootstrap");
    for id in [2, 3] {
        let addr = managers[id - 1].addr.clone();
        managers[0].call(&format!("add {id} {addr}"));
    }
    managers[0].call("flood");
    let mut acknowledged = managers[0].acknowledged(300);
    let first = managers.remove(0);
    let addr = first.addr.clone();
    managers.iter_mut().for_each(|manager| manager.call("flood"));
    let killed = Instant::now();
    acknowledged.extend(first.kill());

    let waited = loop {
        let write = managers.iter().find_map(|manager| manager.lines.try_recv().ok());
        if let Some(name) = write.as_deref().and_then(|line| line.strip_prefix("acknowledged ")) {
            acknowledged.push(name.to_owned());
            break killed.elapsed();
        }
        assert!(killed.elapsed() < PATIENCE, "no new leader");
        std::thread::sleep(Duration::from_millis(1)); // before the lines are looked at again
    };
    println!("writes again {waited:?} after the leader was killed");
    // Two seconds and what a busy machine adds.
    assert!(waited < Duration::from_secs(4), "{waited:?}");

    let mut back = Manager::start(dir.path(), 1, &addr);
    assert_all(&acknowledged, &back.list());
    for mut manager in managers {
        assert_all(&acknowledged, &manager.list());
    }
}
