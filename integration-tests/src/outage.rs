//! How long a lost node stays in use: in DNS, in the balancers, and until its tasks run elsewhere.

use crate::client::text;
use crate::{Cluster, PATIENCE, Task};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};
use swarm_playground::{Binaries, Node, wait_until};

/// Times since the loss.
#[derive(Debug, Clone, Copy)]
pub struct Recovery {
    /// Until no surviving node's DNS names a lost task.
    pub names: Duration,
    /// Until no surviving node's balancer sends to one.
    pub balancers: Duration,
    /// Until as many tasks run as before, on the surviving nodes.
    pub replaced: Duration,
}

impl Recovery {
    /// Prints the times and compares them with what is promised (3 s out of use, 5 s replaced), thrice: other programs
    /// may have the machine's processors.
    ///
    /// # Panics
    /// When it took longer.
    #[track_caller]
    pub fn assert_prompt(&self, what: &str) {
        eprintln!(
            "{what}: out of DNS after {:.2?}, out of balancers after {:.2?}, replaced after {:.2?}",
            self.names, self.balancers, self.replaced
        );
        let (out_of_use, replaced) = (Duration::from_secs(9), Duration::from_secs(15));
        assert!(self.names <= out_of_use, "{what}: in DNS for {:?}", self.names);
        assert!(self.balancers <= out_of_use, "{what}: in balancers for {:?}", self.balancers);
        assert!(self.replaced <= replaced, "{what}: replaced after {:?}", self.replaced);
    }
}

/// Has `lose` take the victim away, and watches all other nodes. The service has a task on every one of them and is on
/// one network only.
///
/// # Panics
/// When the survivors go on using the victim's tasks, or do not replace them.
#[track_caller]
pub fn watch_loss(
    cluster: &Cluster,
    victim: &Node,
    service: &str,
    lose: impl FnOnce(),
) -> Recovery {
    let tasks = cluster.tasks(service);
    let network = tasks[0].addresses.keys().next().expect("a network").clone();
    let on_victim = |task: &&Task| task.node == victim.name();
    let lost: BTreeSet<Ipv4Addr> = tasks.iter().filter(on_victim).map(Task::address).collect();
    assert!(!lost.is_empty(), "no task of {service} on {}", victim.name());
    let survivors: Vec<Node> =
        cluster.nodes().into_iter().filter(|node| node.name() != victim.name()).collect();
    lose();
    let since = Instant::now();
    let watch = |what: &str, check: &dyn Fn() -> Result<(), String>| {
        wait_until(what, PATIENCE, check).unwrap_or_else(|e| panic!("{e}"));
        since.elapsed()
    };
    thread::scope(|scope| {
        let spawn_all = |check: fn(&Node, &Task, &str) -> Result<BTreeSet<Ipv4Addr>, String>| {
            let (watch, lost, network) = (&watch, &lost, &network);
            let handles = survivors.iter().map(|node| {
                let task = tasks.iter().find(|task| task.node == node.name());
                let task = task.unwrap_or_else(|| panic!("no task on {}", node.name()));
                scope.spawn(move || {
                    watch(&format!("{} without {lost:?}", node.name()), &|| {
                        let used = check(node, task, network)?;
                        if used.is_disjoint(lost) { Ok(()) } else { Err(format!("{used:?}")) }
                    })
                })
            });
            handles.collect::<Vec<_>>()
        };
        let names = spawn_all(named);
        let balancers = spawn_all(balanced);
        let replaced = scope.spawn(|| {
            watch("replacements", &|| all_run(&survivors, service, victim.name(), tasks.len()))
        });
        let latest = |handles: Vec<thread::ScopedJoinHandle<'_, Duration>>| {
            handles.into_iter().map(|h| h.join().expect("a watch ends well")).max()
        };
        Recovery {
            names: latest(names).expect("a survivor"),
            balancers: latest(balancers).expect("a survivor"),
            replaced: replaced.join().expect("a watch ends well"),
        }
    })
}

/// Runs the sample image's program in a task's network, past `task exec`: that may hang on a manager that is lost.
///
/// # Errors
/// When it cannot be started.
pub fn whoami_output(node: &Node, task: &Task, line: &str) -> Result<Output, String> {
    let whoami = Binaries::locate().map_err(|e| e.to_string())?.whoami;
    let namespace = format!("--net=/run/swarmd/netns/t-{}", task.id);
    let whoami = whoami.to_string_lossy();
    let words = ["nsenter", &namespace, &whoami].into_iter().chain(line.split_whitespace());
    node.exec(words).map_err(|e| e.to_string())
}

/// Runs the sample image's program in the network namespace of a task, past the swarm's own `task exec`.
///
/// # Errors
/// Its stderr when it fails.
pub fn whoami_in(node: &Node, task: &Task, line: &str) -> Result<String, String> {
    let output = whoami_output(node, task, line)?;
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The addresses that a task's resolver gives for `tasks.<service>`.
///
/// # Errors
/// When it gives none.
pub fn named(node: &Node, task: &Task, _network: &str) -> Result<BTreeSet<Ipv4Addr>, String> {
    let service = task.name.rsplit_once('.').map_or(task.name.as_str(), |(service, _)| service);
    let line = format!("resolve --server 127.0.0.11 --timeout 1 --short tasks.{service}");
    let answer = whoami_in(node, task, &line)?;
    Ok(answer.lines().filter_map(|line| line.parse().ok()).collect())
}

fn balanced(node: &Node, _task: &Task, network: &str) -> Result<BTreeSet<Ipv4Addr>, String> {
    Ok(crate::kernel::balancer(node, network).into_values().flatten().collect())
}

/// Asks every surviving node: managers may be in election, workers cannot be asked.
fn all_run(nodes: &[Node], service: &str, victim: &str, wanted: usize) -> Result<(), String> {
    let mut said = String::new();
    for node in nodes {
        let output = node
            .swarmctl_output(["service", "ps", service, "--format", "json"])
            .map_err(|e| e.to_string())?;
        if !output.status.success() {
            said += &text(&output.stderr);
            continue;
        }
        let listed = text(&output.stdout);
        let tasks = listed.lines().filter_map(|line| serde_json::from_str(line).ok());
        let runs = |task: &serde_json::Value| {
            task["DesiredState"] == "Running"
                && task["CurrentState"].as_str().is_some_and(|state| state.starts_with("Running"))
                && task["Node"] != victim
        };
        if tasks.filter(runs).count() == wanted {
            return Ok(());
        }
        said += &listed;
    }
    Err(said)
}
