//! Writes that are told one by one as they are acknowledged, for whoever then lets things fail.

use std::collections::VecDeque;
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
    /// How many of its services each client leaves; it removes older ones [default: all]
    #[arg(long)]
    keep: Option<usize>,
    /// Milliseconds between two writes of a client
    #[arg(long, default_value_t = 0)]
    pause: u64,
}

/// Prints `acknowledged NAME` for each service once it is created; `removing NAME` before, `removed NAME` after its removal.
pub(crate) async fn run(options: &Options) -> Result<Value> {
    let mut clients = JoinSet::new();
    for (number, socket) in options.sockets.iter().cloned().enumerate() {
        let journal = Journal {
            prefix: format!("{}-{number}", options.prefix),
            count: options.count,
            keep: options.keep.unwrap_or(usize::MAX),
            pause: Duration::from_millis(options.pause),
        };
        clients.spawn(async move { journal.write(Api::connect(&socket).await?).await });
    }
    let mut acknowledged = 0;
    while let Some(client) = clients.join_next().await {
        acknowledged += client??;
    }
    Ok(json!({ "acknowledged": acknowledged }))
}

/// One client's part.
struct Journal {
    prefix: String,
    count: u64,
    keep: usize,
    pause: Duration,
}

impl Journal {
    async fn write(&self, mut api: Api) -> Result<u64> {
        let mut kept = VecDeque::new();
        let mut acknowledged = 0;
        for n in 0..self.count {
            let name = format!("{}-{n}", self.prefix);
            match api.create_service(&service_spec(&name, 0, None)).await {
                Ok(_) => {
                    tell("acknowledged", &name)?;
                    kept.push_back(name);
                    acknowledged += 1;
                }
                Err(e) => failed(&name, &e).await,
            }
            tokio::time::sleep(self.pause).await; // the pace that was asked for
            if kept.len() > self.keep
                && let Some(oldest) = kept.pop_front()
            {
                tell("removing", &oldest)?;
                match api.remove_service(&oldest).await {
                    Ok(()) => tell("removed", &oldest)?,
                    Err(e) => failed(&oldest, &e).await,
                }
                tokio::time::sleep(self.pause).await; // as above
            }
        }
        Ok(acknowledged)
    }
}

fn tell(what: &str, name: &str) -> Result<()> {
    // One call of write(2) for a line, whoever else writes.
    let line = format!("{what} {name}\n");
    std::io::stdout().write_all(line.as_bytes()).context("cannot tell")
}

async fn failed(name: &str, error: &anyhow::Error) {
    eprintln!("{name}: {error:#}");
    tokio::time::sleep(RETRY_PAUSE).await; // a client that cannot write is not to spin
}
