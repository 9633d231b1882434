//! `swarm-bench`: load and latencies at the control API, for `cargo xtask bench`. It prints one JSON object.
//!
//! | module | what it holds |
//! |---|---|
//! | `api` | the connection to `swarmd` and the few calls that are measured |
//! | `writes` | acknowledged writes a second |
//! | `endpoint` | the time from a task's report `running` until every node has programmed its endpoint |
//! | `fleet` | a thousand workers without kernels: how managers bear them |
//! | `journal` | acknowledged writes, told one by one |
//! | `latencies` | percentiles |
#![forbid(unsafe_code)]

mod api;
mod endpoint;
mod fleet;
mod journal;
mod latencies;
mod writes;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Load and latencies at the control API
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create services without replicas, then remove them: how many a second are acknowledged
    Writes(writes::Options),
    /// Scale a service up and down: how long until every node has programmed the new endpoint
    Endpoint(endpoint::Options),
    /// Create services, telling each that is acknowledged
    Journal(journal::Options),
    /// Join workers without kernels: how managers bear them, their tasks and changes
    Fleet(fleet::Options),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return swarm_usage::report(&error),
    };
    let measured = match cli.command {
        Command::Writes(options) => writes::run(&options).await,
        Command::Endpoint(options) => endpoint::run(&options).await,
        Command::Journal(options) => journal::run(&options).await,
        Command::Fleet(options) => fleet::run(&options).await,
    };
    match measured {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
