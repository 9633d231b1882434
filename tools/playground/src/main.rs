//! `swarm-playground`: several hosts on this machine, to try a swarm. `swarmctl playground` runs it.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use swarm_playground::cli::{self, Command, Done};
use swarm_playground::{HOST_COMMAND, Result, host_main};

/// Several hosts on this machine, to try a swarm
#[derive(Parser)]
#[command(name = "swarm-playground", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    // Hosts must be booted before there is any thread.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == HOST_COMMAND) {
        return host_main(words);
    }
    let done = match Cli::try_parse() {
        Ok(Cli { command }) => cli::run(command),
        Err(error) => return swarm_usage::report(&error),
    };
    print(done)
}

fn print(done: Result<Done>) -> ExitCode {
    match done {
        Ok(Done { status, text }) => {
            match std::io::stdout().write_all(text.as_bytes()) {
                // `| head` has seen enough.
                Ok(()) => ExitCode::from(status),
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(status),
                Err(e) => failed(&format!("cannot write to standard output: {e}")),
            }
        }
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(text: &str) -> ExitCode {
    // There is no other place to complain to.
    let _ = writeln!(std::io::stderr(), "error: {text}");
    ExitCode::FAILURE
}
