//! `cargo xtask sim`: whole swarms in one thread, by the seed.

use crate::binaries::VM_PROFILE;
use crate::run::{cargo, status};
use anyhow::Result;
use clap::Args;
use rand::Rng;

/// Options of `cargo xtask sim`.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Those of the simulation; --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the simulation and runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    simulate(options.arguments.iter().map(String::as_str))
}

/// Part of the tests. A seed is the same run on any machine, whatever else that does.
pub(crate) fn test() -> Result<()> {
    simulate(["--seeds", "500", "--jobs", "2"].into_iter())
}

/// Part of the long tests: seeds that no run had.
pub(crate) fn test_new() -> Result<()> {
    let first = rand::rng().random_range(1_000_000..1_000_000_000_u64).to_string();
    println!("from seed {first}");
    simulate(["--seeds", "3000", "--seed", &first, "--jobs", "2"].into_iter())
}

fn simulate<'a>(arguments: impl Iterator<Item = &'a str>) -> Result<()> {
    let run = ["run", "--quiet", "--profile", VM_PROFILE, "-p", "swarm-simulation", "--"];
    status(cargo().args(run).args(arguments))
}
