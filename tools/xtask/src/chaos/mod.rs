//! `cargo xtask chaos`: a swarm of three managers and two workers under load, to which one thing after another happens.
//! What is looked at, and what each figure means, is in `docs/reliability.md`.
//!
//! | module | what it holds |
//! |---|---|
//! | `swarm` | the swarm, and whether all of it serves |
//! | `faults` | what happens, and to whom |
//! | `writers` | services created and removed without pause, and what was acknowledged |
//! | `callers` | HTTP calls through the VIP from every host, and how they failed |
//! | `report` | what came of it |

mod callers;
mod faults;
mod report;
mod swarm;
mod writers;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use swarm_playground::wait_until;

use crate::{binaries, interrupt};
use callers::Callers;
use faults::{Fault, Victims};
use report::{Report, Row};
use swarm::Swarm;
use writers::Writers;

/// How long a fault lasts, in milliseconds.
const FAULT_MS: std::ops::Range<u64> = 1000..8000;
/// The longest that the swarm may take to be whole again once a fault is over.
const CONVERGED: Duration = Duration::from_secs(60);

/// Options of `cargo xtask chaos`.
#[derive(Args)]
pub(crate) struct Options {
    /// How long things go wrong
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The order of faults and how long they last; their effects differ from run to run [default: random]
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    programs: binaries::Programs,
}

/// Ten minutes of it, with an order that no run had.
pub(crate) fn test() -> Result<()> {
    run(&Options { minutes: 10, seed: None, programs: binaries::Programs::default() })
}

/// Runs, and prints a line for each fault, then tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the hosts are made of network namespaces: run it as root");
    }
    let dir = options.programs.build()?;
    interrupt::catch()?;
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}");
    let swarm = Swarm::up(&dir)?;
    let mut report = Report { before: swarm.usage()?, ..Report::default() };
    let mut writers = Writers::start(&swarm)?;
    let callers = Callers::start(&swarm)?;
    let mut chance = StdRng::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs(60 * options.minutes);
    while Instant::now() < end {
        let row = misfortune(&swarm, &mut writers, &callers, &mut chance)?;
        println!("{row}");
        report.rows.push(row);
        // Tasks do not move back to a host that was away: it would be spared from then on.
        swarm.spread()?;
        callers.use_tasks(&swarm)?;
    }
    report.calls = callers.stop();
    report.writes = writers.stop(&swarm)?;
    report.after = swarm.usage()?;
    report.print();
    report.verdict()
}

/// One fault, from its beginning until all is well again.
fn misfortune(
    swarm: &Swarm,
    writers: &mut Writers,
    callers: &Callers,
    chance: &mut StdRng,
) -> Result<Row> {
    interrupt::check()?;
    let victims = Victims::choose(chance);
    let fault = Fault::choose(chance);
    let hosts = victims.hosts(swarm, chance)?;
    let lasts = Duration::from_millis(chance.random_range(FAULT_MS));
    let names: Vec<_> = hosts.iter().map(|host| host.name()).collect();
    let what = format!("{fault} {victims} ({}) for {:.1} s", names.join(", "), lasts.as_secs_f64());
    callers.hit(&names);
    writers.mark();
    for host in &hosts {
        fault.inflict(host).with_context(|| what.clone())?;
    }
    std::thread::sleep(lasts); // the fault lasts that long
    for host in &hosts {
        fault.undo(host).with_context(|| format!("the end of: {what}"))?;
    }
    let over = Instant::now();
    if fault.ends_processes() {
        writers.restart(swarm, &names)?;
    }
    wait_until("a swarm that is whole", CONVERGED, || {
        writers.all_acknowledge_since(over)?;
        swarm.is_whole().map_err(|e| format!("{e:#}"))
    })
    .with_context(|| format!("after: {what}"))?;
    callers.healed();
    Ok(Row { fault, victims, what, no_writes: writers.longest_gap(), converged: over.elapsed() })
}
