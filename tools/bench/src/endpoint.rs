//! The time from a task's report `running`, by the clock of its node, until the client hears that every node has
//! programmed its endpoint. Nodes and client share a machine, so the clock is the same.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::api::{Api, service_spec};
use crate::latencies::summary;

const NAME: &str = "bench-endpoint";

/// Options of `swarm-bench endpoint`.
#[derive(Args)]
pub(crate) struct Options {
    /// Socket of a manager
    #[arg(long)]
    socket: PathBuf,
    /// Network that every node is on
    #[arg(long)]
    network: String,
    /// How many endpoints come
    #[arg(long, default_value_t = 100)]
    changes: usize,
}

/// `changes` and `latency_ms`.
pub(crate) async fn run(options: &Options) -> Result<Value> {
    let mut api = Api::connect(&options.socket).await?;
    let service = api.create_service(&service_spec(NAME, 1, Some(&options.network))).await?;
    let measured = measure(&mut api, &service.id, service.revision, options.changes).await;
    let removed = api.remove_service(&service.id).await;
    let taken = measured?;
    removed?;
    Ok(json!({ "changes": taken.len(), "latency_ms": summary(taken) }))
}

async fn measure(api: &mut Api, id: &str, revision: u64, changes: usize) -> Result<Vec<Duration>> {
    api.wait_in_force(id, revision).await?;
    let mut taken = Vec::with_capacity(changes);
    for _ in 0..changes {
        api.scale_until_in_force(id, 2).await?;
        let in_force = OffsetDateTime::now_utc();
        let running = api.newest_running(id).await?;
        taken.push((in_force - running).max(time::Duration::ZERO).unsigned_abs());
        api.scale_until_in_force(id, 1).await?;
    }
    Ok(taken)
}
