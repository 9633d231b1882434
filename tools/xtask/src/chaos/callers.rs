//! HTTP calls through the VIP from every host, and how they failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use swarm_playground::Node;

use super::swarm::{CALLER, Swarm};

/// One round of calls: 100 a second at most, each given up after 2 s.
const ROUND: [&str; 7] = ["get", "--summary", "--duration", "1", "--interval", "10", "--timeout=2"];
/// The pause of a caller whose host cannot be used.
const AWAY: Duration = Duration::from_millis(100);

/// Calls from some hosts.
#[derive(Debug, Default, Clone)]
pub(super) struct Calls {
    pub(super) made: u64,
    pub(super) failed: BTreeMap<String, u64>,
}

impl Calls {
    fn add(&mut self, summary: &Value) {
        self.made += summary["calls"].as_u64().unwrap_or(0);
        for (cause, count) in summary["errors"].as_object().into_iter().flatten() {
            *self.failed.entry(cause.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
    }
}

/// All calls, apart for hosts to which something happened when the calls were made.
#[derive(Debug, Default, Clone)]
pub(super) struct All {
    pub(super) elsewhere: Calls,
    pub(super) hit: Calls,
}

#[derive(Default)]
struct Shared {
    calls: All,
    /// The task to call from, by host.
    tasks: BTreeMap<String, String>,
    hit: Vec<String>,
}

/// A caller on each host.
pub(super) struct Callers {
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Callers {
    pub(super) fn start(swarm: &Swarm) -> Result<Callers> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = Callers { shared, stop, threads: Vec::new() };
        callers.use_tasks(swarm)?;
        let url = format!("http://{}/", swarm.vip()?);
        for host in swarm.hosts() {
            let (shared, stop) = (Arc::clone(&callers.shared), Arc::clone(&callers.stop));
            let words = swarm.whoami(&ROUND, &url);
            callers.threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    if round(&host, &words, &shared).is_none() {
                        thread::sleep(AWAY); // the host is down
                    }
                }
            }));
        }
        Ok(callers)
    }

    /// Tasks come and go.
    pub(super) fn use_tasks(&self, swarm: &Swarm) -> Result<()> {
        let tasks = swarm.tasks(CALLER).context("no callers")?;
        lock(&self.shared).tasks = tasks.into_iter().map(|task| (task.host, task.id)).collect();
        Ok(())
    }

    /// From now on something is wrong with these hosts.
    pub(super) fn hit(&self, hosts: &[&str]) {
        lock(&self.shared).hit = hosts.iter().map(|host| (*host).to_owned()).collect();
    }

    pub(super) fn healed(&self) {
        lock(&self.shared).hit.clear();
    }

    pub(super) fn stop(mut self) -> All {
        self.end();
        lock(&self.shared).calls.clone()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("a caller panicked");
            }
        }
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.end();
    }
}

/// `None` when the host has no caller now, or went away with it.
fn round(host: &Node, words: &[String], shared: &Mutex<Shared>) -> Option<()> {
    let (task, hit_before) = {
        let shared = lock(shared);
        (shared.tasks.get(host.name())?.clone(), is_hit(&shared, host))
    };
    let place = format!("/run/swarmd/netns/t-{task}");
    let namespace = format!("--net={place}");
    let command = ["nsenter", &namespace].into_iter().chain(words.iter().map(String::as_str));
    let output = host.exec(command).ok()?;
    // Whatever ended before it could tell its summary was on a host that went.
    let summary: Value = serde_json::from_slice(&output.stdout).ok()?;
    // The task that called was itself stopped: its calls fail at the caller.
    if !host.path_of(&place).ok()?.exists() {
        return None;
    }
    let mut shared = lock(shared);
    let hit = hit_before || is_hit(&shared, host);
    let calls = if hit { &mut shared.calls.hit } else { &mut shared.calls.elsewhere };
    calls.add(&summary);
    Some(())
}

fn is_hit(shared: &Shared, host: &Node) -> bool {
    shared.hit.iter().any(|name| name == host.name())
}

/// Counts are whole between any two of their changes.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
