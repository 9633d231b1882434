//! `cargo xtask scale`: how managers bear more and more nodes. Real managers in a playground, workers without kernels in
//! one process (`swarm-bench fleet`). What each figure means is in `docs/reliability.md`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use swarm_playground::{Binaries, Options as Playgrounds, Playground};

use crate::processes::processes;
use crate::run::output;
use crate::{binaries, interrupt};

const NAME: &str = "scale";
const MANAGERS: usize = 3;
const TASKS_PER_WORKER: usize = 10;
/// Of each service.
const REPLICAS: usize = 100;

/// Options of `cargo xtask scale`.
#[derive(Args)]
pub(crate) struct Options {
    /// Numbers of workers, each with a fresh swarm
    #[arg(long, value_delimiter = ',', default_values_t = [100, 300, 1000])]
    workers: Vec<usize>,
    /// One service of so many tasks, instead of many small ones
    #[arg(long)]
    replicas: Option<usize>,
    #[command(flatten)]
    programs: binaries::Programs,
}

/// Measures, and prints a table and JSON.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the managers are hosts made of network namespaces: run it as root");
    }
    let dir = options.programs.build()?;
    interrupt::catch()?;
    let mut rows = Vec::new();
    println!("{}", header());
    for workers in &options.workers {
        let row = measure(&dir, *workers, options.replicas)
            .with_context(|| format!("{workers} workers"))?;
        println!("{}", line(&row));
        rows.push(row);
    }
    println!("{}", json!(rows));
    Ok(())
}

fn measure(dir: &Path, workers: usize, replicas: Option<usize>) -> Result<Value> {
    // Of a run that could not clean up.
    Playground::down(NAME)?;
    let mut options = Playgrounds::new(NAME, &Binaries::in_dir(dir)?);
    options.nodes = MANAGERS;
    options.managers = Some(MANAGERS);
    let playground = Playground::up(&options)?;
    let _guard = playground.guard();
    interrupt::check()?;
    let first = playground.node(1);
    // The managers have kernels, which are not what is measured.
    for node in playground.nodes() {
        first.swarmctl(["node", "update", "--availability", "drain", node.name()])?;
    }
    let token = first.swarmctl(["join-token", "worker", "-q"])?;
    let (mut addresses, mut pids) = (Vec::new(), Vec::new());
    for node in playground.nodes() {
        addresses.push(format!("{}:2377", node.address()));
        let pid =
            processes(&node)?.daemon.with_context(|| format!("no swarmd on {}", node.name()))?;
        pids.push(pid.to_string());
    }
    let tasks = replicas.unwrap_or(workers * TASKS_PER_WORKER);
    let replicas = replicas.unwrap_or(REPLICAS);
    let mut load = Command::new("nsenter");
    load.args(["--target", &pids[0], "--net"]).arg(dir.join("swarm-bench")).arg("fleet");
    load.arg("--socket").arg(first.path_of("/run/swarmd/swarmd.sock")?);
    load.args(["--managers", &addresses.join(","), "--pids", &pids.join(",")]);
    load.args(["--token", token.trim(), "--workers", &workers.to_string()]);
    load.args(["--tasks", &tasks.to_string(), "--replicas", &replicas.to_string()]);
    let text = output(&mut load)?;
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

fn header() -> String {
    "workers   tasks  join s  in force s  bystander p50/max ms  endpoint p50/p99/max ms  idle CPU %  idle MB  sessions lost".into()
}

fn line(row: &Value) -> String {
    let number = |pointer: &str| row.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let most = |phase: &str, figure: &str| {
        let used = row["managers"][phase].as_array().into_iter().flatten();
        used.filter_map(|manager| manager[figure].as_f64()).fold(0.0, f64::max)
    };
    format!(
        "{:>7} {:>7} {:>7.1} {:>11.1} {:>21} {:>25} {:>11.1} {:>8.1} {:>14}",
        number("/workers"),
        number("/tasks"),
        number("/join_s"),
        number("/in_force_s"),
        format!(
            "{:.0}/{:.0}",
            number("/bystander_scaled_ms/p50"),
            number("/bystander_scaled_ms/max")
        ),
        format!(
            "{:.0}/{:.0}/{:.0}",
            number("/endpoint_ms/p50"),
            number("/endpoint_ms/p99"),
            number("/endpoint_ms/max")
        ),
        most("idle_with_tasks", "cpus") * 100.0,
        most("idle_with_tasks", "rss_mb"),
        number("/sessions_lost"),
    )
}
