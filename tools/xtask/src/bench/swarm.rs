//! The swarm that is measured: a playground of release binaries, spoken to with `swarmctl` as a person would.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use swarm_playground::{Binaries, Guard, Node, Options, Playground};

use crate::interrupt;
use crate::run::output;

const NAME: &str = "bench";
/// Three managers, so that a write is acknowledged by a majority, and a node that is only a worker.
pub(super) const NODES: usize = 4;
const MANAGERS: usize = 3;
/// The network that tasks are on.
pub(super) const NETWORK: &str = "bench";
/// A service with a task on every node, so that every node has the network.
pub(super) const CLIENT: &str = "client";

/// A swarm; it goes when this is dropped.
pub(super) struct Swarm {
    pub(super) playground: Playground,
    pub(super) binaries: Binaries,
    load: PathBuf,
    _guard: Guard,
}

/// A running task.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) node: String,
}

impl Swarm {
    /// Makes it, with [`NETWORK`] and [`CLIENT`].
    pub(super) fn up(binaries: &Binaries, load: PathBuf) -> Result<Swarm> {
        // Of a run that could not clean up.
        Playground::down(NAME)?;
        let mut options = Options::new(NAME, binaries);
        options.nodes = NODES;
        options.managers = Some(MANAGERS);
        let playground = Playground::up(&options)?;
        let guard = playground.guard();
        let swarm = Swarm { playground, binaries: binaries.clone(), load, _guard: guard };
        swarm.ctl(&["network", "create", "-d", "overlay", NETWORK])?;
        swarm.create_service(CLIENT, NODES)?;
        Ok(swarm)
    }

    /// `service create` of the sample image, until it is in force.
    pub(super) fn create_service(&self, name: &str, replicas: usize) -> Result<()> {
        let replicas = replicas.to_string();
        let words = ["--name", name, "--network", NETWORK, "--replicas", &replicas, "whoami"];
        self.ctl(&[&["service", "create"], &words[..]].concat()).map(drop)
    }

    pub(super) fn remove_service(&self, name: &str) -> Result<()> {
        self.ctl(&["service", "rm", name])?;
        // Its tasks are still on their way out, which would disturb what is measured next.
        swarm_playground::wait_until(
            "the end of its tasks",
            std::time::Duration::from_secs(60),
            || {
                let left = self.containers().map_err(|e| format!("{e:#}"))?;
                if left == NODES { Ok(()) } else { Err(format!("{left} shims run")) }
            },
        )?;
        Ok(())
    }

    /// Shims on all nodes.
    fn containers(&self) -> Result<usize> {
        let mut shims = 0;
        for node in self.playground.nodes() {
            shims += crate::processes::processes(&node)?.shims.len();
        }
        Ok(shims)
    }

    /// `swarmctl` at the first node's daemon.
    pub(super) fn ctl(&self, words: &[&str]) -> Result<String> {
        interrupt::check()?;
        let mut command = Command::new(&self.binaries.swarmctl);
        output(command.args(words).env("SWARM_HOST", self.host(&self.playground.node(1))?))
    }

    fn host(&self, node: &Node) -> Result<String> {
        Ok(format!("unix://{}", Self::socket(node)?))
    }

    fn socket(node: &Node) -> Result<String> {
        Ok(node.path_of("/run/swarmd/swarmd.sock")?.display().to_string())
    }

    /// The sockets of all managers, the first node's first: it leads unless something went wrong.
    pub(super) fn manager_sockets(&self) -> Result<Vec<String>> {
        self.playground.nodes().iter().take(MANAGERS).map(Self::socket).collect()
    }

    /// `swarm-bench`, which prints JSON.
    pub(super) fn load(&self, words: &[&str]) -> Result<Value> {
        interrupt::check()?;
        json(&output(Command::new(&self.load).args(words))?)
    }

    /// The running tasks of a service, by node.
    pub(super) fn tasks(&self, service: &str) -> Result<Vec<Task>> {
        let text = self.ctl(&["service", "ps", service, "--no-trunc", "--format", "json"])?;
        let mut tasks = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let task = json(line)?;
            let field = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
            if field("CurrentState").starts_with("Running") && field("DesiredState") == "Running" {
                tasks.push(Task { id: field("ID"), node: field("Node") });
            }
        }
        tasks.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(tasks)
    }

    /// A task's address on [`NETWORK`].
    pub(super) fn address(&self, task: &Task) -> Result<String> {
        let inspected = json(&self.ctl(&["task", "inspect", &task.id])?)?;
        let address = inspected[0]["NetworksAttachments"][0]["Addresses"][0].as_str();
        let address = address.with_context(|| format!("task {} has no address", task.id))?;
        Ok(address.split('/').next().unwrap_or(address).to_owned())
    }

    /// The sample tool inside a task; it prints JSON.
    pub(super) fn whoami(&self, task: &Task, words: &[&str]) -> Result<Value> {
        json(&self.ctl(&[&["task", "exec", &task.id, "/whoami"], words].concat())?)
    }

    /// The node of that name.
    pub(super) fn node(&self, name: &str) -> Result<Node> {
        let mut nodes = self.playground.nodes().into_iter();
        nodes.find(|node| node.name() == name).with_context(|| format!("no node {name}"))
    }
}

pub(super) fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))
}

/// A number of a JSON object, by JSON pointer (RFC 6901).
pub(super) fn number(value: &Value, pointer: &str) -> Result<f64> {
    let found = value.pointer(pointer).and_then(Value::as_f64);
    found.with_context(|| format!("no number at {pointer} of {value}"))
}
