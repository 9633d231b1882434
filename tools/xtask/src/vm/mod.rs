//! `cargo xtask vm`: a throw-away VM with Debian's stock kernel, for what the kernel here lacks (IPVS, IPsec ESP).
//!
//! The scripts in `integration-tests/vm` prepare and run it; `suites` are the tests that run in it.

mod bench;
mod panics;
mod power_cuts;
mod suites;

use crate::packages;
use crate::run::{status, workspace};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Options of `cargo xtask vm`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    /// What to run, as root in this directory; a shell if nothing is given. integration-tests/vm/run.sh tells its environment
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Subcommand)]
enum Action {
    /// Run the tests that need the VM
    Test {
        /// This suite only; `traffic`, which takes hours, is not run otherwise
        suite: Option<String>,
    },
    /// Measure ipvs, nftables and Docker's way of balancing against no balancer, side by side
    Bench(bench::Options),
    /// Take the power from three managers under load, again and again: nothing acknowledged may be lost
    PowerCuts(power_cuts::Options),
}

/// Runs the suites, or becomes the command in the VM and so ends with its status.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.action {
        Some(Action::Test { suite }) => return test(suite.as_deref()),
        Some(Action::Bench(options)) => return bench::run(options),
        Some(Action::PowerCuts(options)) => return power_cuts::run(options),
        None => {}
    }
    prepare()?;
    let error = in_vm().args(&options.command).exec();
    Err(error).context("cannot run the VM")
}

/// Runs one suite, or all; then also what they rely on.
pub(crate) fn test(only: Option<&str>) -> Result<()> {
    let chosen = suites::choose(only)?;
    prepare()?;
    if only.is_none() {
        println!("in the VM: a panic");
        panics::check()?;
    }
    for suite in chosen {
        println!("in the VM: {}", suite.name);
        suite.run(in_vm())?;
    }
    Ok(())
}

/// Changes a service under traffic so many times in each way, with IPVS.
pub(crate) fn test_traffic(runs: u32) -> Result<()> {
    prepare()?;
    for suite in suites::choose(Some(suites::TRAFFIC))? {
        let mut vm = in_vm();
        vm.env("SWARM_RUNS", runs.to_string());
        suite.run(vm)?;
    }
    Ok(())
}

/// Cuts the power so many times, of all managers at once and of one at a time.
pub(crate) fn test_power_cuts(cuts: usize) -> Result<()> {
    power_cuts::run(&power_cuts::Options { cuts, one: false })?;
    power_cuts::run(&power_cuts::Options { cuts, one: true })
}

/// Installs the emulator and fetches the kernel, unless they are there.
fn prepare() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the VM shows the whole file system to its guest: run it as root");
    }
    packages::install_for_vm()?;
    status(&mut script("setup.sh"))
}

fn in_vm() -> Command {
    script("run.sh")
}

fn script(name: &str) -> Command {
    Command::new(workspace().join("integration-tests/vm").join(name))
}
