//! The swarm, and whether all of it serves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use swarm_playground::{Binaries, Guard, Node, NodeState, Options, Playground};

use crate::interrupt;
use crate::processes::processes;

const NAME: &str = "chaos";
const HOSTS: usize = 5;
const MANAGERS: usize = 3;
const NETWORK: &str = "net";
const SERVICE: &str = "web";
/// The service whose tasks' namespaces calls are made from.
pub(super) const CALLER: &str = "caller";
const TASKS: usize = 2 * HOSTS;
/// What daemons are given before they are looked at.
const SETTLE: Duration = Duration::from_secs(5);

/// Three managers and two workers; they go when this is dropped.
pub(super) struct Swarm {
    playground: Playground,
    dir: PathBuf,
    binaries: Binaries,
    _guard: Guard,
}

/// A running task.
pub(super) struct Task {
    pub(super) id: String,
    pub(super) host: String,
}

/// What a daemon takes.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    pub(super) host: String,
    /// Resident set, in MB (10^6 bytes).
    pub(super) memory: f64,
    pub(super) open_files: usize,
}

impl Swarm {
    pub(super) fn up(dir: &Path) -> Result<Swarm> {
        // Of a run that could not clean up.
        Playground::down(NAME)?;
        let binaries = Binaries::in_dir(dir)?;
        let mut options = Options::new(NAME, &binaries);
        options.nodes = HOSTS;
        options.managers = Some(MANAGERS);
        let playground = Playground::up(&options)?;
        let guard = playground.guard();
        let swarm = Swarm { playground, dir: dir.to_owned(), binaries, _guard: guard };
        let first = swarm.playground.node(1);
        first.swarmctl(["network", "create", NETWORK])?;
        for (name, tasks) in [(SERVICE, TASKS), (CALLER, HOSTS)] {
            let tasks = tasks.to_string();
            let words = ["--name", name, "--network", NETWORK, "--replicas", &tasks, "whoami"];
            first.swarmctl([&["service", "create", "-q"], &words[..]].concat())?;
        }
        Ok(swarm)
    }

    pub(super) fn hosts(&self) -> Vec<Node> {
        self.playground.nodes()
    }

    pub(super) fn managers(&self) -> Vec<Node> {
        self.hosts().into_iter().take(MANAGERS).collect()
    }

    pub(super) fn workers(&self) -> Vec<Node> {
        self.hosts().into_iter().skip(MANAGERS).collect()
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn socket(&self, host: &Node) -> Result<PathBuf> {
        Ok(host.path_of("/run/swarmd/swarmd.sock")?)
    }

    /// The sample tool, to be run in a task's network namespace.
    pub(super) fn whoami(&self, words: &[&str], last: &str) -> Vec<String> {
        let program = self.binaries.whoami.display().to_string();
        let words = words.iter().map(|word| (*word).to_owned());
        std::iter::once(program).chain(words).chain([last.to_owned()]).collect()
    }

    /// The VIP of the service that is called.
    pub(super) fn vip(&self) -> Result<String> {
        let inspected = self.playground.node(1).swarmctl(["service", "inspect", SERVICE])?;
        let service: Value = serde_json::from_str(&inspected)?;
        let vip = service[0]["Endpoint"]["VirtualIPs"][0]["Addr"].as_str().context("no VIP")?;
        Ok(vip.split('/').next().unwrap_or(vip).to_owned())
    }

    /// The name of the leader.
    pub(super) fn leader(&self) -> Result<String> {
        for manager in self.managers() {
            let nodes = list(&manager, &["node", "ls"])?;
            if let Some(leader) = nodes.iter().find(|node| node["ManagerStatus"] == "Leader") {
                return Ok(field(leader, "Hostname"));
            }
        }
        bail!("no manager leads")
    }

    /// The names of all services that this manager has.
    pub(super) fn services(&self, manager: &Node) -> Result<BTreeSet<String>> {
        let services = list(manager, &["service", "ls"])?;
        Ok(services.iter().map(|service| field(service, "Name")).collect())
    }

    /// The running tasks of a service.
    pub(super) fn tasks(&self, service: &str) -> Result<Vec<Task>> {
        running(&self.playground.node(1), service)
    }

    /// Whether every host is there, every manager votes and knows of all tasks, and every task can be called from every
    /// host that has one.
    pub(super) fn is_whole(&self) -> Result<()> {
        interrupt::check()?;
        for manager in self.managers() {
            for node in list(&manager, &["node", "ls"])? {
                let (name, status) = (field(&node, "Hostname"), field(&node, "Status"));
                let votes = field(&node, "ManagerStatus");
                ensure!(status == "Ready", "{} says {name} is {status}", manager.name());
                ensure!(
                    ["", "Leader", "Reachable"].contains(&votes.as_str()),
                    "{} says {name} is {votes}",
                    manager.name()
                );
            }
            for (service, wanted) in [(SERVICE, TASKS), (CALLER, HOSTS)] {
                let run = running(&manager, service)?.len();
                ensure!(run == wanted, "{} says {run} tasks of {service} run", manager.name());
            }
        }
        let vip = self.vip()?;
        for task in self.tasks(CALLER)? {
            self.answered(&task, &vip)?;
        }
        Ok(())
    }

    /// Whether all tasks answer calls from this one, and only they are named.
    fn answered(&self, from: &Task, vip: &str) -> Result<()> {
        let words = ["get", "--summary", "-n", "30", "--timeout=2"];
        let summary: Value =
            serde_json::from_str(&self.inside(from, &words, &format!("http://{vip}/"))?)?;
        let answered = summary["hosts"].as_object().map_or(0, serde_json::Map::len);
        ensure!(
            answered == TASKS && summary["failed"] == 0,
            "{answered} of {TASKS} tasks answer {}, errors: {}",
            from.host,
            summary["errors"]
        );
        let words = ["resolve", "--server", "127.0.0.11", "--timeout=2", "--short"];
        let named = self.inside(from, &words, &format!("tasks.{SERVICE}"))?.lines().count();
        ensure!(named == TASKS, "the DNS of {} has {named} of {TASKS} tasks", from.host);
        Ok(())
    }

    fn inside(&self, task: &Task, words: &[&str], last: &str) -> Result<String> {
        let hosts = self.hosts();
        let host = hosts.iter().find(|host| host.name() == task.host);
        let host = host.with_context(|| format!("no host {}", task.host))?;
        let namespace = format!("--net=/run/swarmd/netns/t-{}", task.id);
        let words = self.whoami(words, last);
        let words = ["nsenter", &namespace].into_iter().chain(words.iter().map(String::as_str));
        Ok(String::from_utf8_lossy(&host.exec(words)?.stdout).into_owned())
    }

    /// Has tasks of both services on every host again.
    pub(super) fn spread(&self) -> Result<()> {
        for (service, tasks) in [(SERVICE, TASKS), (CALLER, HOSTS)] {
            let used: BTreeSet<_> = self.tasks(service)?.into_iter().map(|t| t.host).collect();
            if used.len() == HOSTS {
                continue;
            }
            for replicas in [2 * tasks, tasks] {
                let scale = format!("{service}={replicas}");
                self.playground.node(1).swarmctl(["service", "scale", &scale])?;
            }
        }
        Ok(())
    }

    /// What the daemons take, given a moment of peace.
    pub(super) fn usage(&self) -> Result<Vec<Usage>> {
        std::thread::sleep(SETTLE); // a moment of peace is what they are given
        self.hosts().iter().map(usage).collect()
    }
}

fn usage(host: &Node) -> Result<Usage> {
    ensure!(host.state()? == NodeState::Running, "{} does not run", host.name());
    let pid = processes(host)?.daemon.with_context(|| format!("no swarmd on {}", host.name()))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 =
        kib.and_then(|text| text.split_whitespace().next()).context("no VmRSS")?.parse()?;
    let open_files = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok(Usage { host: host.name().to_owned(), memory: kib * 1024.0 / 1e6, open_files })
}

fn running(manager: &Node, service: &str) -> Result<Vec<Task>> {
    let tasks = list(manager, &["service", "ps", service, "--no-trunc"])?;
    let runs = |task: &&Value| {
        field(task, "CurrentState").starts_with("Running") && task["DesiredState"] == "Running"
    };
    let task = |task: &Value| Task { id: field(task, "ID"), host: field(task, "Node") };
    Ok(tasks.iter().filter(runs).map(task).collect())
}

/// A list of one manager. One that may be out of date is none.
fn list(manager: &Node, words: &[&str]) -> Result<Vec<Value>> {
    let words = words.iter().chain(&["--format", "json"]);
    let output = manager.swarmctl_output(words)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{}: {}", manager.name(), said.trim());
    let text = String::from_utf8_lossy(&output.stdout);
    let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"));
    text.lines().map(parse).collect()
}

fn field(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}
