//! `cargo xtask sim`: simulates seeds until one fails.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use swarm_simulation::{Break, Plan, Report, run};

/// Simulate whole swarms
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Options {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them; with it alone, only this one, told step by step
    #[arg(long)]
    seed: Option<u64>,
    /// Go on after a seed that fails
    #[arg(long)]
    keep_going: bool,
    /// Break something on purpose: the simulation has to find it
    #[arg(long = "break", value_name = "WHAT")]
    broken: Option<Break>,
    /// Tell what happens; set RUST_LOG for what the programs say
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    failed: Vec<u64>,
    virtual_time: Duration,
    entries: u64,
    writes: u64,
    unknown: u64,
    reads: u64,
    faults: u64,
    slowest: u64,
}

impl Sum {
    fn add(&mut self, seed: u64, report: &Report) {
        self.seeds += 1;
        self.virtual_time += Duration::from_millis(report.time);
        self.entries += report.entries;
        self.writes += report.traffic.writes;
        self.unknown += report.traffic.failed;
        self.reads += report.traffic.reads;
        self.faults += report.faults;
        self.slowest = self.slowest.max(report.settled_in);
        if report.violation.is_some() {
            self.failed.push(seed);
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .without_time()
        .init();
    let first = options.seed.unwrap_or(1);
    let started = Instant::now();
    let mut sum = Sum::default();
    for seed in first..first + options.seeds {
        let report = run(Plan { seed, broken: options.broken, verbose: options.verbose });
        sum.add(seed, &report);
        if let Some(violation) = &report.violation {
            println!("seed {seed}: {}: {}", violation.invariant, violation.what);
            let broken = options.broken.map(|_| " --break ...").unwrap_or_default();
            println!("  replay: cargo xtask sim --seeds 1 --seed {seed}{broken} --verbose");
            if !options.keep_going {
                break;
            }
        }
    }
    println!(
        "{} seeds in {:.1} s: {:.0} s of virtual time, {} log entries, {} faults; \
         {} writes acknowledged, {} refused or unknown, {} reads; slowest to settle {:.1} s; {} failed {:?}",
        sum.seeds,
        started.elapsed().as_secs_f64(),
        sum.virtual_time.as_secs_f64(),
        sum.entries,
        sum.faults,
        sum.writes,
        sum.unknown,
        sum.reads,
        Duration::from_millis(sum.slowest).as_secs_f64(),
        sum.failed.len(),
        sum.failed,
    );
    if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
