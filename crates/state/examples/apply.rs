//! How fast commands are applied, and what a state weighs: one service of many tasks, on one network, goes up, runs and
//! goes away. `cargo run -p swarm-state --profile vm --example apply -- TASKS`

use std::time::{Duration, Instant};

use swarm_model::{
    IpamConfig, NetworkAttachmentConfig, NetworkSpec, NodeRole, ServiceMode, ServiceSpec, TaskId,
    TaskState, TaskStatus, Timestamp,
};
use swarm_state::{Change, Command, State};

/// Changes in a command.
const BATCH: usize = 256;
const NODES: usize = 100;

struct Replica {
    state: State,
    /// What a reader holds while the next command is applied.
    published: State,
    /// The longest that one command took.
    longest: Duration,
}

impl Replica {
    fn apply(&mut self, changes: Vec<Change>) {
        let (revision, began) = (self.state.revision() + 1, Instant::now());
        let now = Timestamp(revision as i64);
        let (results, _) = self.state.apply(revision, Command { now, changes });
        self.published = self.state.clone();
        self.longest = self.longest.max(began.elapsed());
        for result in results {
            result.expect("every change here takes effect");
        }
    }

    fn step(&mut self, name: &str, changes: impl Iterator<Item = Change>) {
        self.longest = Duration::ZERO;
        let mut changes = changes.peekable();
        let (mut count, began) = (0, Instant::now());
        while changes.peek().is_some() {
            let batch: Vec<Change> = changes.by_ref().take(BATCH).collect();
            count += batch.len();
            self.apply(batch);
        }
        let each = began.elapsed().as_secs_f64() * 1e6 / count as f64;
        let longest = self.longest.as_secs_f64() * 1e3;
        println!(
            "{name:<10} {count:>7} changes, {each:>8.1} us each, the longest command {longest:.1} ms"
        );
    }
}

fn main() {
    let tasks: usize = std::env::args().nth(1).map_or(20_000, |n| n.parse().expect("a number"));
    let mut replica =
        Replica { state: State::new(), published: State::new(), longest: Duration::ZERO };
    replica.apply(beginning(tasks));
    let id = |n: usize| TaskId::from(format!("{n:025}").as_str());
    let node = |n: usize| format!("node{}", n % NODES).as_str().into();
    let service = || "web".into();
    let create =
        |n| Change::CreateTask { id: id(n), service: service(), slot: n as u64 + 1, node: None };
    replica.step("create", (0..tasks).map(create));
    replica.step("assign", (0..tasks).map(|n| Change::AssignTask { id: id(n), node: node(n) }));
    for state in [TaskState::Starting, TaskState::Running] {
        let status = TaskStatus { state, message: "started".into(), ..TaskStatus::default() };
        let report = |n| Change::ReportTask { id: id(n), status: status.clone() };
        replica.step(&state.to_string(), (0..tasks).map(report));
    }
    println!("resident {} MB, snapshot {} MB", resident(), replica.state.to_snapshot().len() >> 20);
    replica.step("withdraw", (0..tasks).map(|n| Change::WithdrawTask { id: id(n) }));
    let as_of = replica.state.revision();
    replica.step("stop", (0..tasks).map(|n| Change::StopTask { id: id(n), as_of }));
    let status = TaskStatus { state: TaskState::Shutdown, ..TaskStatus::default() };
    replica.step(
        "stopped",
        (0..tasks).map(|n| Change::ReportTask { id: id(n), status: status.clone() }),
    );
    replica.step("remove", (0..tasks).map(|n| Change::RemoveTask { id: id(n) }));
}

/// Nodes, a network with room for all, a service.
fn beginning(tasks: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    for n in 0..NODES {
        let (id, role, hostname) =
            (format!("node{n}").as_str().into(), NodeRole::Worker, format!("host{n}"));
        let (addr, engine) = (String::new(), Default::default());
        changes.push(Change::AddNode { id, role, hostname, addr, engine });
    }
    let mut network =
        NetworkSpec { name: "net".into(), driver: "overlay".into(), ..NetworkSpec::default() };
    let subnet = Some("10.0.0.0/12".parse().expect("a subnet"));
    network.ipam.config = vec![IpamConfig { subnet, ..IpamConfig::default() }];
    changes.push(Change::CreateNetwork { id: "net".into(), spec: network });
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.task_template.container_spec.image = "busybox".into();
    spec.task_template.networks =
        vec![NetworkAttachmentConfig { target: "net".into(), aliases: Vec::new() }];
    spec.mode = ServiceMode::replicated(tasks as u64);
    changes.push(Change::CreateService { id: "web".into(), spec: Box::new(spec) });
    changes
}

/// Of this process, in MB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() >> 10
}
