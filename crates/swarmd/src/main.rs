//! `swarmd`: the daemon of a swarm's node. It answers swarmctl on a unix socket and, once the node is
//! part of a swarm, other nodes over mTLS.

mod addresses;
mod alone;
mod args;
mod config;
mod daemon;
mod images;
mod keyfile;
mod life;
mod local;
mod locked;
mod membership;
mod moved;
mod node;
mod renew;
mod restore;
mod roles;
mod server;
mod socket;
mod twin;
mod upkeep;
mod vault;
mod voter;

use std::io::IsTerminal;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // A shim is this executable too. It forks, so it must come before any thread.
    if swarm_runtime::shim::requested() {
        return swarm_runtime::shim::main();
    }
    let args = match args::Args::read() {
        Ok(args) => args,
        Err(status) => return status,
    };
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn run(args: args::Args) -> anyhow::Result<()> {
    let Some(args::Command::Restore(restore)) = args.command else {
        return local::serve(args).await;
    };
    let said = restore::run(&args.state_dir, &args.run_dir, restore).await?;
    println!("{said}");
    Ok(())
}
