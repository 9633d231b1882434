//! Writes that are told one by one as they are acknowledged, for whoever then takes the power away.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::{Api, service_spec};

/// The pause after a write that failed: managers may be electing a leader.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Options of `swarm-bench journal`.
#[derive(Args)]
pub(crate) struct Options {
    /// Socket of a manager; each of several has a client
    #[arg(long = "socket", required = true)]
    sockets: Vec<PathBuf>,
    /// What the names of the services begin with
    #[arg(long)]
    prefix: String,
    /// How many services each client creates
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
}

/// Prints `acknowledged NAME` for each service once it is created.
pub(crate) async fn run(options: &Options) -> Result<Value> {
    let mut clients = JoinSet::new();
    for (number, socket) in options.sockets.iter().cloned().enumerate() {
        let (prefix, count) = (format!("{}-{number}", options.prefix), options.count);
        clients.spawn(async move { write(Api::connect(&socket).await?, &prefix, count).await });
    }
    let mut acknowledged = 0;
    while let Some(client) = clients.join_next().await {
        acknowledged += client??;
    }
    Ok(json!({ "acknowledged": acknowledged }))
}

async fn write(mut api: Api, prefix: &str, count: u64) -> Result<u64> {
    let mut acknowledged = 0;
    for n in 0..count {
        let name = format!("{prefix}-{n}");
        match api.create_service(&service_spec(&name, 0, None)).await {
            Ok(_) => {
                // One call of write(2) for a line, whoever else writes.
                let line = format!("acknowledged {name}\n");
                std::io::stdout().write_all(line.as_bytes()).context("cannot tell")?;
                acknowledged += 1;
            }
            Err(e) => {
                eprintln!("{name}: {e:#}");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
    Ok(acknowledged)
}
