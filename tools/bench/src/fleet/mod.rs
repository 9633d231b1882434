//! A swarm of a thousand nodes on one machine: real managers, with real sessions to workers that have no kernel. Every
//! worker joins with the token, has a certificate and a connection of its own, keeps what it is told, says at once that
//! its tasks run, and acknowledges.

mod kernel;
mod process;
mod worker;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::future::{try_join, try_join_all};
use serde_json::{Value, json};
use swarm_pki::JoinToken;

use crate::api::{Api, service_spec};
use crate::latencies::summary;
use process::Watch;
use worker::{Arrivals, Swarm, Worker};

/// Services on each network.
const SERVICES_PER_NETWORK: usize = 5;
/// How long the managers' idleness is watched.
const IDLE: Duration = Duration::from_secs(10);
/// Workers that join at a time: managers sign their certificates one after the other anyway.
const JOINING: usize = 32;
/// How often a small service is scaled while the others come up.
const SCALINGS: u64 = 10;
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
    /// How many tasks
    #[arg(long, default_value_t = 10_000)]
    tasks: usize,
    /// Tasks of each service
    #[arg(long, default_value_t = 100)]
    replicas: usize,
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
    let bystander = api.create_service(&service_spec("bystander", 1, None)).await?;
    let services = create(&mut api, options).await?;
    let created = began.elapsed();
    let mut bystanders = api.clone();
    let all_in_force = async {
        for (id, revision) in &services {
            api.wait_in_force_within(id, *revision, PATIENCE).await?;
        }
        anyhow::Ok(began.elapsed())
    };
    let (scheduled, bystander) =
        try_join(all_in_force, scale(&mut bystanders, &bystander.id)).await?;
    let scheduling = busy.end()?;
    check(&workers, services.len(), options.replicas)?;

    let idle_full = Watch::begin(&options.pids)?.after(IDLE).await?;
    let busy = Watch::begin(&options.pids)?;
    let arrivals = changes(&mut api, &workers, options).await?;
    let changing = busy.end()?;
    Ok(json!({
        "workers": options.workers,
        "tasks": services.len() * options.replicas,
        "join_s": joined.as_secs_f64(),
        "create_s": created.as_secs_f64(),
        "in_force_s": scheduled.as_secs_f64(),
        "bystander_scaled_ms": summary(bystander),
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
async fn create(api: &mut Api, options: &Options) -> Result<Vec<(String, u64)>> {
    let count = options.tasks / options.replicas;
    // Room for the tasks of its services, and for those that come and go.
    let room = u32::try_from(SERVICES_PER_NETWORK * options.replicas * 8)?.next_power_of_two();
    let mut services = Vec::with_capacity(count);
    let mut network = String::new();
    for n in 0..count {
        if n % SERVICES_PER_NETWORK == 0 {
            let at = u32::try_from(n / SERVICES_PER_NETWORK)?;
            network = format!("fleet-{at}");
            let first = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + at * room);
            let subnet = format!("{first}/{}", u32::BITS - room.trailing_zeros());
            api.create_network(&network, &subnet).await?;
        }
        let spec = service_spec(&format!("fleet-{n}"), options.replicas as u64, Some(&network));
        let created = api.create_service(&spec).await?;
        services.push((created.id, created.revision));
    }
    Ok(services)
}

/// How long a small service takes to scale while the others come up.
async fn scale(api: &mut Api, id: &str) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for replicas in 2..2 + SCALINGS {
        let began = Instant::now();
        api.scale_until_in_force(id, replicas).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Every task is on a worker, and every worker knows every ready endpoint of its networks.
fn check(workers: &[Worker], services: usize, replicas: usize) -> Result<()> {
    let placed: usize = workers.iter().map(|worker| worker.tasks()).sum();
    let tasks = services * replicas + 1 + usize::try_from(SCALINGS)?;
    ensure!(placed == tasks, "workers have {placed} tasks, not {tasks}");
    let full = SERVICES_PER_NETWORK * replicas;
    // The last network may have fewer services than the others.
    let missing = services.next_multiple_of(SERVICES_PER_NETWORK) - services;
    for worker in workers {
        let (networks, ready) = worker.networks();
        let all = networks * full;
        let fits = ready == all || ready + missing * replicas == all;
        ensure!(fits, "a worker knows {ready} endpoints in {networks} networks, of {all}");
    }
    Ok(())
}

/// Scales the first service up and down; how long from a task's report until the nodes on its network were told of it.
async fn changes(api: &mut Api, workers: &[Worker], options: &Options) -> Result<Arrivals> {
    let Some(first) = workers.first() else { bail!("no workers") };
    let mut all = Arrivals::default();
    let id = api.service_id("fleet-0").await?;
    let replicas = options.replicas as u64;
    for _ in 0..options.changes {
        first.swarm().arrivals.lock().watch(&id);
        api.scale_until_in_force(&id, replicas + 1).await?;
        all.add(first.swarm().arrivals.lock().take()?);
        api.scale_until_in_force(&id, replicas).await?;
    }
    Ok(all)
}
