//! `cargo xtask bench`: figures of release binaries on this machine, as a table and as JSON. What each figure means is
//! in `docs/benchmarks.md`.

pub(crate) mod figure;
mod memory;
mod network;
mod peer;
mod services;
mod swarm;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use swarm_playground::Binaries;

use crate::{binaries, interrupt};
use figure::{Figure, show};
use swarm::Swarm;

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// One run of everything, for a first look
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    programs: binaries::Programs,
    /// Measure only this; may be given several times
    #[arg(long, value_name = "PHASE")]
    only: Vec<Phase>,
    /// Write the figures as JSON to a file, or with `-` to stdout, the table going to stderr
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure Docker Swarm too, with the scripts in this directory (see docs/benchmarks.md)
    #[arg(long, value_name = "DIR")]
    peer: Option<PathBuf>,
}

/// What is measured, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Phase {
    Size,
    Memory,
    Create,
    Scale,
    Endpoint,
    Dns,
    Network,
    Writes,
    MemoryAfter,
}

/// How often things are repeated.
#[derive(Clone, Copy)]
struct Effort {
    quick: bool,
}

impl Effort {
    fn runs(self, runs: usize) -> usize {
        if self.quick { 1 } else { runs }
    }

    fn count(self, count: usize) -> usize {
        if self.quick { count / 5 } else { count }
    }
}

/// Measures; prints what was measured also if a phase failed. A missed bar is no failure.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the benchmark makes hosts of network namespaces: run it as root");
    }
    let dir = options.programs.build()?;
    interrupt::catch()?;
    let mut figures = Vec::new();
    let measured = measure(options, &dir, &mut figures);
    show(options.json.as_deref(), &figures)?;
    measured
}

fn measure(options: &Options, dir: &std::path::Path, figures: &mut Vec<Figure>) -> Result<()> {
    let effort = Effort { quick: options.quick };
    {
        eprintln!("making a swarm");
        let swarm = Swarm::up(&Binaries::in_dir(dir)?, dir.join("swarm-bench"))?;
        for phase in Phase::value_variants() {
            if options.only.is_empty() || options.only.contains(phase) {
                eprintln!("measuring: {phase:?}");
                figures
                    .extend(phase.measure(&swarm, effort).with_context(|| format!("{phase:?}"))?);
            }
        }
    }
    match &options.peer {
        Some(scripts) => {
            eprintln!("measuring Docker Swarm, which takes minutes");
            peer::measure(scripts, effort, figures)
        }
        None => Ok(()),
    }
}

impl Phase {
    fn measure(self, swarm: &Swarm, effort: Effort) -> Result<Vec<Figure>> {
        match self {
            Phase::Size => memory::sizes(swarm),
            Phase::Memory => memory::idle(swarm),
            Phase::Create => services::create(swarm, effort),
            Phase::Scale => services::scale(swarm, effort),
            Phase::Endpoint => services::endpoint(swarm, effort),
            Phase::Dns => network::dns(swarm, effort),
            Phase::Network => network::paths(swarm, effort),
            Phase::Writes => services::writes(swarm, effort),
            Phase::MemoryAfter => memory::after_load(swarm),
        }
    }
}
