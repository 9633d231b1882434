//! `swarmctl` on one node, and what it says about tasks, nodes and networks.

use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Output;
use swarm_playground::Node;

/// Runs `swarmctl` on a node. Commands are given as one line, split at white space; `_words` variants take words as they are.
#[derive(Debug, Clone)]
pub struct Client {
    node: Node,
}

/// A task as `task inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// All 25 characters.
    pub id: String,
    /// Such as `web.1`.
    pub name: String,
    /// Number of its slot, from 1.
    pub slot: u64,
    /// Host name of its node; empty while it has none.
    pub node: String,
    /// Such as `running`, in lower case.
    pub state: String,
    /// The state it is told to be in.
    pub desired: String,
    /// Why it is not in that state; else empty.
    pub error: String,
    /// Its address on each network, by the network's id.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// The whole document.
    pub document: Value,
}

impl Task {
    /// The address of a task that is on one network.
    ///
    /// # Panics
    /// When it is on none or several.
    #[must_use]
    #[track_caller]
    pub fn address(&self) -> Ipv4Addr {
        assert_eq!(self.addresses.len(), 1, "{} is on {:?}", self.name, self.addresses);
        *self.addresses.values().next().expect("counted just now")
    }

    /// Host name inside the container: the id's first 12 characters.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.id[..12]
    }

    /// Whether it runs and is to go on running.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == "running" && self.desired == "running"
    }
}

impl Client {
    /// On that node.
    #[must_use]
    pub fn of(node: Node) -> Self {
        Self { node }
    }

    /// Runs a command that must succeed; gives its stdout.
    #[track_caller]
    pub fn ctl(&self, line: &str) -> String {
        self.ctl_words(&words(line))
    }

    /// The same of words.
    #[track_caller]
    pub fn ctl_words(&self, words: &[&str]) -> String {
        self.node.swarmctl(words).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Runs a command whether it succeeds or not.
    #[track_caller]
    pub fn ctl_output(&self, line: &str) -> Output {
        self.ctl_output_words(&words(line))
    }

    /// The same of words.
    #[track_caller]
    pub fn ctl_output_words(&self, words: &[&str]) -> Output {
        self.node.swarmctl_output(words).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Runs a command that must fail with `code` after one line on stderr; gives that line.
    #[track_caller]
    pub fn refused(&self, line: &str, code: i32) -> String {
        let output = self.ctl_output(line);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "swarmctl {line}: {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "swarmctl {line}: not one line: {stderr}");
        stderr.trim_end().to_owned()
    }

    /// The document of one object, such as of `service inspect web`.
    #[track_caller]
    pub fn inspect(&self, line: &str) -> Value {
        let documents = self.inspect_all(line);
        assert_eq!(documents.len(), 1, "swarmctl {line}: {documents:?}");
        documents.into_iter().next().expect("counted just now")
    }

    /// The documents of several objects.
    #[track_caller]
    pub fn inspect_all(&self, line: &str) -> Vec<Value> {
        let text = self.ctl(line);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("swarmctl {line}: {e}: {text}"))
    }

    /// The objects of a list, such as of `service ls`.
    #[track_caller]
    pub fn list(&self, line: &str) -> Vec<Value> {
        let text = self.ctl(&format!("{line} --format json"));
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        text.lines().map(parse).collect()
    }

    /// The leader's name, as this node sees it; an error when it sees none.
    pub fn leader(&self) -> Result<String, String> {
        let output = self.ctl_output("node ls --format json");
        let listed = text(&output.stdout);
        let nodes = listed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut leaders = nodes.filter(|node| node["ManagerStatus"] == "Leader");
        let leader = leaders.find_map(|node| node["Hostname"].as_str().map(str::to_owned));
        leader.ok_or_else(|| format!("no leader: {listed}{}", text(&output.stderr)))
    }

    /// Makes a network; gives its id. `flags` may be empty.
    #[track_caller]
    pub fn create_network(&self, flags: &str, name: &str) -> String {
        self.ctl(&format!("network create {flags} {name}")).trim().to_owned()
    }

    /// The id of a network.
    #[track_caller]
    pub fn network_id(&self, name: &str) -> String {
        string(&self.inspect(&format!("network inspect {name}"))["Id"])
    }

    /// Makes a service of the sample image and waits until it is in force. `flags` may be empty.
    #[track_caller]
    pub fn create_service(&self, name: &str, flags: &str) {
        self.ctl(&format!("service create -q --name {name} {flags} whoami"));
    }

    /// The VIP of a service on its only network.
    ///
    /// # Panics
    /// When it has none or several.
    #[must_use]
    #[track_caller]
    pub fn vip(&self, service: &str) -> Ipv4Addr {
        let vips = self.vips(service);
        assert_eq!(vips.len(), 1, "{service}: {vips:?}");
        *vips.values().next().expect("counted just now")
    }

    /// The VIPs of a service, by id of the network.
    #[must_use]
    #[track_caller]
    pub fn vips(&self, service: &str) -> BTreeMap<String, Ipv4Addr> {
        let document = self.inspect(&format!("service inspect {service}"));
        let vips = document["Endpoint"]["VirtualIPs"].as_array().cloned().unwrap_or_default();
        vips.iter().map(|vip| (string(&vip["NetworkID"]), address(&vip["Addr"]))).collect()
    }

    /// All tasks of a service that the swarm remembers, by slot, the newest first.
    #[must_use]
    #[track_caller]
    pub fn all_tasks(&self, service: &str) -> Vec<Task> {
        let ids = self.ctl(&format!("service ps -q --no-trunc {service}"));
        if ids.trim().is_empty() {
            return Vec::new();
        }
        let hostnames = self.hostnames();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        // A task may be forgotten between the two commands: what is there still is printed.
        let output = self.ctl_output_words(&[&["task", "inspect"], ids.as_slice()].concat());
        let said = text(&output.stderr);
        assert!(said.lines().all(|line| line.ends_with("not found")), "task inspect: {said}");
        let documents: Vec<Value> = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("task inspect: {e}: {}", text(&output.stderr)));
        documents.into_iter().map(|document| task(document, &hostnames)).collect()
    }

    /// The tasks of a service that run and are to go on running.
    #[must_use]
    #[track_caller]
    pub fn tasks(&self, service: &str) -> Vec<Task> {
        let mut tasks = self.all_tasks(service);
        tasks.retain(Task::is_up);
        tasks
    }

    /// The one task of a service.
    ///
    /// # Panics
    /// When not exactly one runs.
    #[must_use]
    #[track_caller]
    pub fn task(&self, service: &str) -> Task {
        let mut tasks = self.tasks(service);
        assert_eq!(tasks.len(), 1, "{service}: {tasks:?}");
        tasks.remove(0)
    }

    /// Host names of nodes, by id.
    fn hostnames(&self) -> BTreeMap<String, String> {
        let nodes = self.list("node ls");
        nodes.iter().map(|node| (string(&node["ID"]), string(&node["Hostname"]))).collect()
    }

    /// Runs a command in a task, whether it succeeds or not.
    #[track_caller]
    pub fn exec(&self, task: &Task, line: &str) -> Output {
        self.exec_words(task, &words(line))
    }

    /// The same of words.
    #[track_caller]
    pub fn exec_words(&self, task: &Task, words: &[&str]) -> Output {
        self.ctl_output_words(&[&["task", "exec", task.id.as_str()], words].concat())
    }
}

fn task(document: Value, hostnames: &BTreeMap<String, String>) -> Task {
    let attachments = document["NetworksAttachments"].as_array().cloned().unwrap_or_default();
    let of = |attachment: &Value| {
        (string(&attachment["Network"]["ID"]), address(&attachment["Addresses"][0]))
    };
    let slot = document["Slot"].as_u64().unwrap_or_default();
    Task {
        id: string(&document["ID"]),
        name: format!("{}.{slot}", string(&document["ServiceName"])),
        slot,
        node: hostnames.get(&string(&document["NodeID"])).cloned().unwrap_or_default(),
        state: string(&document["Status"]["State"]),
        desired: string(&document["DesiredState"]),
        error: string(&document["Status"]["Err"]),
        addresses: attachments.iter().map(of).collect(),
        document,
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Bytes of a stream as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A field that is a string; empty when it is not there.
fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The address of `10.0.1.2/24`.
#[track_caller]
fn address(value: &Value) -> Ipv4Addr {
    let text = string(value);
    let address = text.split('/').next().unwrap_or_default().parse();
    address.unwrap_or_else(|e| panic!("{value} is no address: {e}"))
}
