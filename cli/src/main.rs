//! `swarmctl`: the command line of a swarm. It talks to the `swarmd` of this machine over a unix socket.
//!
//! | module | what it holds |
//! |---|---|
//! | `args` | the words: commands and flags (clap) |
//! | `commands` | what each command does |
//! | `rows` | how an object looks in a list |
//! | `output` | tables, JSON, times and sizes as people read them |
//! | `client` | the connection to `swarmd` |
//! | `follow` | waiting until a change is in force |
//! | `progress`, `rotation`, `display`, `screen` | how far it is, and showing it |
//! | `signals` | being ended by a signal |
//! | `playground` | becoming `swarm-playground` |
//! | `terminal` | raw mode and size of the terminal |
//! | `units`, `filter`, `natural` | durations and sizes as flags, `--filter`, natural order |
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod display;
mod error;
mod filter;
mod follow;
mod natural;
mod output;
mod playground;
mod progress;
mod rotation;
mod rows;
mod screen;
mod signals;
mod terminal;
mod units;

use std::process::ExitCode;

use args::{Action, Cli};
use clap::Parser;
use error::Error;

fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => return swarm_usage::report(&error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::failure(&error);
            ExitCode::from(error.exit_status())
        }
    }
}

fn run(cli: Cli) -> Result<(), Error> {
    let command = match cli.action {
        Action::Ask(command) => command,
        Action::Playground { words } => match playground::run(&words)? {},
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Error::io("start the event loop", source))?;
    let outcome = runtime.block_on(commands::run(&cli.host, command));
    // A thread that still reads standard input must not hold up the end.
    runtime.shutdown_background();
    outcome
}
