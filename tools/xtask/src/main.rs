//! `cargo xtask`: the project's own commands. Each is a module; `run` is how they call programs.

mod bench;
mod binaries;
mod chaos;
mod checks;
mod demo;
mod deny;
mod interrupt;
mod packages;
mod processes;
mod run;
mod scale;
mod sim;
mod test;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The project's own commands
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build swarmd, swarmctl, the playground and a static whoami into one directory
    Build,
    /// Show a swarm of three hosts on this machine, from nothing to a lost node
    Demo,
    /// Measure release binaries: how fast, how small
    Bench(bench::Options),
    /// Measure how managers bear hundreds of nodes
    Scale(scale::Options),
    /// Let things fail for minutes in a swarm under load
    Chaos(chaos::Options),
    /// Install what tests need, then check formatting, lints and dependencies and run the tests
    Test(test::Options),
    /// Check the versions, licences and sources of what we depend on
    Deny,
    /// Simulate whole swarms, thousands of them, until something does not hold
    Sim(sim::Options),
    /// Run a command, a shell or tests in a throw-away VM with Debian's stock kernel
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return swarm_usage::report(&error),
    };
    let done = match cli.command {
        Command::Build => binaries::build().map(|dir| println!("built into {}", dir.display())),
        Command::Demo => demo::run(),
        Command::Bench(options) => bench::run(&options),
        Command::Scale(options) => scale::run(&options),
        Command::Chaos(options) => chaos::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Deny => deny::run(),
        Command::Sim(options) => sim::run(&options),
        Command::Vm(options) => vm::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // As a shell reports a program that Ctrl-C ended.
        Err(_) if interrupt::seen() => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
