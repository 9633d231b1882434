//! Acknowledged writes a second: clients that create services without replicas, one after the other, each on a
//! connection of its own; then they remove them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::{Api, service_spec};
use crate::latencies::summary;

/// Options of `swarm-bench writes`.
#[derive(Args)]
pub(crate) struct Options {
    /// Socket of a manager; of several, each takes its share of the clients
    #[arg(long = "socket", required = true)]
    sockets: Vec<PathBuf>,
    /// How many clients write at once
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Writes after which it ends
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// Seconds after which it ends
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

/// What one client did.
struct Share {
    ids: Vec<String>,
    taken: Vec<Duration>,
}

/// `creates` and `removes`, each with `count`, `seconds`, `rate` (a second) and `latency_ms`.
pub(crate) async fn run(options: &Options) -> Result<Value> {
    let mut clients = Vec::with_capacity(options.clients);
    for number in 0..options.clients {
        clients.push(Api::connect(&options.sockets[number % options.sockets.len()]).await?);
    }
    let started = Instant::now();
    let end = started + Duration::from_secs_f64(options.seconds);
    let left = Arc::new(AtomicU64::new(options.count));
    let mut creating = JoinSet::new();
    for (number, client) in clients.iter().cloned().enumerate() {
        creating.spawn(create(client, number, Arc::clone(&left), end));
    }
    let shares = all(creating).await?;
    let creates = started.elapsed();
    let started = Instant::now();
    let mut removing = JoinSet::new();
    let mut created = Vec::new();
    for (client, share) in clients.into_iter().zip(shares) {
        created.push(share.taken);
        removing.spawn(remove(client, share.ids));
    }
    let removed = all(removing).await?;
    Ok(json!({
        "creates": figures(created, creates),
        "removes": figures(removed, started.elapsed()),
    }))
}

async fn create(mut api: Api, number: usize, left: Arc<AtomicU64>, end: Instant) -> Result<Share> {
    let mut share = Share { ids: Vec::new(), taken: Vec::new() };
    let less = |left: u64| left.checked_sub(1);
    while Instant::now() < end
        && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    {
        let spec = service_spec(&format!("bench-{number}-{}", share.ids.len()), 0, None);
        let started = Instant::now();
        share.ids.push(api.create_service(&spec).await?.id);
        share.taken.push(started.elapsed());
    }
    Ok(share)
}

async fn remove(mut api: Api, ids: Vec<String>) -> Result<Vec<Duration>> {
    let mut taken = Vec::with_capacity(ids.len());
    for id in ids {
        let started = Instant::now();
        api.remove_service(&id).await?;
        taken.push(started.elapsed());
    }
    Ok(taken)
}

async fn all<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut done = Vec::with_capacity(tasks.len());
    while let Some(task) = tasks.join_next().await {
        done.push(task??);
    }
    Ok(done)
}

fn figures(taken: Vec<Vec<Duration>>, elapsed: Duration) -> Value {
    let taken = taken.concat();
    let (count, seconds) = (taken.len(), elapsed.as_secs_f64());
    json!({
        "count": count,
        "seconds": seconds,
        "rate": count as f64 / seconds.max(1e-9),
        "latency_ms": summary(taken),
    })
}
