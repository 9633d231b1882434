//! A swarm of a thousand nodes on one machine: real managers, with real sessions to workers that have no kernel. Every
//! worker joins with the token, has a certificate and a connection of its own, keeps what it is told, says at once that
//! its tasks run, and acknowledges.

mod kernel;
mod process;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::future::try_join_all;
use serde_json::{Value, json};
use swarm_pki::JoinToken;

use crate::api::{Api, service_spec};
use crate::latencies::summary;
use process::Watch;
use worker::{Arrivals, Swarm, Worker};

/// Tasks of each service.
const REPLICAS: usize = 100;
/// Services on each network.
const SERVICES_PER_NETWORK: usize = 5;
/// How long the managers' idleness is watched.
const IDLE: Duration = Duration::from_secs(10);
/// Workers that join at a time: managers sign their certificates one after the other anyway.
const JOINING: usize = 32;
/// What nothing takes as long as.
const PATIENCE: Duration = Duration::from_secs(600);

/// Options of `swarm-bench fleet`.
#[derive(Args)]
pub(crate) struct Options {
    /// Socket of a manager
    #[arg(long)]
    socket: PathBuf,
    /// Managers, `host:port`; sessions are spread over them
    #[arg(long, required = true, value_delimiter = ',')]
    managers: Vec<String>,
    /// Their processes, to see what they use
    #[arg(long, required = true, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Join token of workers
    #[arg(long)]
    token: String,
    /// How many workers
    #[arg(long, default_value_t = 1000)]
    workers: usize,
    /// How many tasks, in services of a hundred
    #[arg(long, default_value_t = 10_000)]
    tasks: usize,
    /// How often one more endpoint comes
    #[arg(long, default_value_t = 50)]
    changes: usize,
}

/// Times in milliseconds and seconds, and what each manager uses.
pub(crate) async fn run(options: &Options) -> Result<Value> {
    let mut api = Api::connect(&options.socket).await?;
    let began = Instant::now();
    let workers = join(options).await?;
    let joined = began.elapsed();
    let idle_empty = Watch::begin(&options.pids)?.after(IDLE).await?;

    let began = Instant::now();
    let busy = Watch::begin(&options.pids)?;
    let services = create(&mut api, options.tasks / REPLICAS).await?;
    let created = began.elapsed();
    for (id, revision) in &services {
        api.wait_in_force_within(id, *revision, PATIENCE).await?;
    }
    let scheduled = began.elapsed();
    let scheduling = busy.end()?;
    check(&workers, services.len() * REPLICAS)?;

    let idle_full = Watch::begin(&options.pids)?.after(IDLE).await?;
    let busy = Watch::begin(&options.pids)?;
    let arrivals = changes(&mut api, &workers, options.changes).await?;
    let changing = busy.end()?;
    Ok(json!({
        "workers": options.workers,
        "tasks": services.len() * REPLICAS,
        "join_s": joined.as_secs_f64(),
        "create_s": created.as_secs_f64(),
        "in_force_s": scheduled.as_secs_f64(),
        "endpoint_ms": summary(arrivals.reached),
        "endpoint_everyone_ms": summary(arrivals.everyone),
        "sessions_lost": workers.iter().map(|worker| worker.sessions_lost()).sum::<usize>(),
        "managers": {
            "idle_without_tasks": idle_empty,
            "scheduling": scheduling,
            "idle_with_tasks": idle_full,
            "changing": changing,
        },
    }))
}

async fn join(options: &Options) -> Result<Vec<Worker>> {
    let token: JoinToken = options.token.parse().context("invalid join token")?;
    let swarm = Arc::new(Swarm::find(&options.managers, token).await?);
    let mut workers = Vec::with_capacity(options.workers);
    while workers.len() < options.workers {
        let some = (workers.len()..options.workers).take(JOINING);
        workers.extend(try_join_all(some.map(|n| Worker::join(Arc::clone(&swarm), n))).await?);
    }
    Ok(workers)
}

/// Creates networks and services; gives the services and their revisions.
async fn create(api: &mut Api, count: usize) -> Result<Vec<(String, u64)>> {
    let mut services = Vec::with_capacity(count);
    let mut network = String::new();
    for n in 0..count {
        if n % SERVICES_PER_NETWORK == 0 {
            let at = n / SERVICES_PER_NETWORK;
            network = format!("fleet-{at}");
            // Room for the tasks of its services, and for those that come and go.
            api.create_network(&network, &format!("10.{}.{}.0/20", at / 16, at % 16 * 16)).await?;
        }
        let spec = service_spec(&format!("fleet-{n}"), REPLICAS as u64, Some(&network));
        let created = api.create_service(&spec).await?;
        services.push((created.id, created.revision));
    }
    Ok(services)
}

/// Every task is on a worker, and every worker knows every ready endpoint of its networks.
fn check(workers: &[Worker], tasks: usize) -> Result<()> {
    let placed: usize = workers.iter().map(|worker| worker.tasks()).sum();
    ensure!(placed == tasks, "workers have {placed} tasks, not {tasks}");
    for worker in workers {
        let (networks, ready) = worker.networks();
        let expected = networks * SERVICES_PER_NETWORK * REPLICAS;
        ensure!(ready == expected, "a worker knows {ready} endpoints of {expected}");
    }
    Ok(())
}

/// Scales the first service up and down; how long from a task's report until the nodes on its network were told of it.
async fn changes(api: &mut Api, workers: &[Worker], changes: usize) -> Result<Arrivals> {
    let Some(first) = workers.first() else { bail!("no workers") };
    let mut all = Arrivals::default();
    let id = api.service_id("fleet-0").await?;
    for _ in 0..changes {
        first.swarm().arrivals.lock().watch(&id);
        api.scale_until_in_force(&id, REPLICAS as u64 + 1).await?;
        all.add(first.swarm().arrivals.lock().take()?);
        api.scale_until_in_force(&id, REPLICAS as u64).await?;
    }
    Ok(all)
}
