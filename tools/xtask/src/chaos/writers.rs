//! Services created and removed without pause through every manager, and what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use swarm_playground::Node;

use super::swarm::Swarm;

/// Services that each writer leaves, and its pause between writes: enough to see a gap, little enough to serve.
const KEEP: &str = "50";
const PAUSE_MS: &str = "50";

/// What was acknowledged, and when.
struct Ledger {
    created: BTreeSet<String>,
    /// Whose removal was asked for: there or not, both is right, unless it was acknowledged too.
    removing: BTreeSet<String>,
    removed: BTreeSet<String>,
    last: BTreeMap<String, Instant>,
    newest: Instant,
    longest_gap: Duration,
}

impl Ledger {
    fn new() -> Ledger {
        Ledger {
            created: BTreeSet::new(),
            removing: BTreeSet::new(),
            removed: BTreeSet::new(),
            last: BTreeMap::new(),
            newest: Instant::now(),
            longest_gap: Duration::ZERO,
        }
    }

    /// A line of a writer at `manager`.
    fn hear(&mut self, manager: &str, line: &str) {
        let Some((what, name)) = line.split_once(' ') else { return };
        match what {
            "acknowledged" => self.created.insert(name.to_owned()),
            "removed" => self.removed.insert(name.to_owned()),
            "removing" => {
                self.removing.insert(name.to_owned());
                return;
            }
            _ => return,
        };
        let now = Instant::now();
        self.longest_gap = self.longest_gap.max(now - self.newest);
        self.newest = now;
        self.last.insert(manager.to_owned(), now);
    }

    /// How what is there differs from what was acknowledged: creations that are lost, removals undone.
    fn lost<'a>(&'a self, there: &BTreeSet<String>) -> Vec<&'a String> {
        let gone = self.created.difference(&self.removing).filter(|name| !there.contains(*name));
        let back = self.removed.iter().filter(|name| there.contains(*name));
        gone.chain(back).collect()
    }
}

/// What came of all writes.
#[derive(Default)]
pub(super) struct Writes {
    pub(super) acknowledged: usize,
    pub(super) lost: Vec<String>,
}

/// A writer at each manager.
pub(super) struct Writers {
    ledger: Arc<Mutex<Ledger>>,
    running: BTreeMap<String, Child>,
    started: usize,
}

impl Writers {
    pub(super) fn start(swarm: &Swarm) -> Result<Writers> {
        let ledger = Arc::new(Mutex::new(Ledger::new()));
        let mut writers = Writers { ledger, running: BTreeMap::new(), started: 0 };
        for manager in swarm.managers() {
            writers.run(swarm, &manager)?;
        }
        Ok(writers)
    }

    fn run(&mut self, swarm: &Swarm, manager: &Node) -> Result<()> {
        self.started += 1;
        let mut command = Command::new(swarm.program("swarm-bench"));
        command.arg("journal").arg("--socket").arg(swarm.socket(manager)?);
        command.args([
            "--prefix",
            &format!("w{}", self.started),
            "--keep",
            KEEP,
            "--pause",
            PAUSE_MS,
        ]);
        // That writes fail while things go wrong is no news.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot run swarm-bench journal")?;
        let lines = BufReader::new(child.stdout.take().context("a writer has no output")?).lines();
        let (ledger, manager_name) = (Arc::clone(&self.ledger), manager.name().to_owned());
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                lock(&ledger).hear(&manager_name, &line);
            }
        });
        self.running.insert(manager.name().to_owned(), child);
        Ok(())
    }

    /// Writers of their own for managers whose sockets are new.
    pub(super) fn restart(&mut self, swarm: &Swarm, hosts: &[&str]) -> Result<()> {
        for manager in swarm.managers().iter().filter(|m| hosts.contains(&m.name())) {
            if let Some(child) = self.running.remove(manager.name()) {
                end(child)?;
            }
            self.run(swarm, manager)?;
        }
        Ok(())
    }

    /// From now on gaps are of what happens next.
    pub(super) fn mark(&self) {
        let mut ledger = lock(&self.ledger);
        ledger.newest = Instant::now();
        ledger.longest_gap = Duration::ZERO;
    }

    /// The longest time since the mark in which no manager acknowledged anything.
    pub(super) fn longest_gap(&self) -> Duration {
        let ledger = lock(&self.ledger);
        ledger.longest_gap.max(ledger.newest.elapsed())
    }

    /// Whether each manager has acknowledged a write since.
    pub(super) fn all_acknowledge_since(&self, moment: Instant) -> Result<(), String> {
        let ledger = lock(&self.ledger);
        let silent = |name: &&String| ledger.last.get(*name).is_none_or(|last| *last <= moment);
        match self.running.keys().find(silent) {
            Some(manager) => Err(format!("{manager} acknowledges no writes")),
            None => Ok(()),
        }
    }

    /// Ends them, and compares what was acknowledged with what every manager has.
    pub(super) fn stop(mut self, swarm: &Swarm) -> Result<Writes> {
        while let Some((_, child)) = self.running.pop_first() {
            end(child)?;
        }
        let mut lost = BTreeSet::new();
        for manager in swarm.managers() {
            let there = swarm.services(&manager)?;
            ensure!(there.len() > 2, "{} has no services", manager.name());
            lost.extend(lock(&self.ledger).lost(&there).into_iter().cloned());
        }
        let ledger = lock(&self.ledger);
        let acknowledged = ledger.created.len() + ledger.removed.len();
        Ok(Writes { acknowledged, lost: lost.into_iter().collect() })
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        while let Some((name, child)) = self.running.pop_first() {
            if let Err(error) = end(child) {
                eprintln!("the writer of {name}: {error:#}");
            }
        }
    }
}

fn end(mut child: Child) -> Result<()> {
    child.kill().context("cannot end a writer")?;
    child.wait().context("cannot wait for a writer").map(drop)
}

/// A reader that panicked has told all it knew.
fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn lost_is_what_was_acknowledged_and_is_otherwise() {
        let mut ledger = Ledger::new();
        let lines =
            ["acknowledged a", "acknowledged b", "acknowledged c", "removing b", "removing c"];
        for line in lines.into_iter().chain(["removed c", "w: error", ""]) {
            ledger.hear("pg-1", line);
        }
        // b: nobody knows.
        assert!(ledger.lost(&there(&["a", "b", "web"])).is_empty());
        assert!(ledger.lost(&there(&["a"])).is_empty());
        assert_eq!(ledger.lost(&there(&["b"])), ["a"]);
        assert_eq!(ledger.lost(&there(&["a", "c"])), ["c"]);
    }
}
