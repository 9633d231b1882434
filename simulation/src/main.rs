//! `cargo xtask sim`: simulates seeds until one fails.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use swarm_simulation::{Break, Plan, Report, run};

/// Simulate whole swarms
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Options {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long)]
    seed: Option<u64>,
    /// How many beside each other
    #[arg(long, default_value_t = 1)]
    jobs: usize,
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
    fingerprint: u64,
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
        self.fingerprint ^= report.fingerprint;
        if report.violation.is_some() {
            self.failed.push(seed);
        }
    }
}

/// Simulates the seeds, several beside each other; the first failure ends it unless asked otherwise.
fn simulate(options: &Options) -> Sum {
    let first = options.seed.unwrap_or(1);
    let next = AtomicU64::new(first);
    let (end, sum) = (AtomicU64::new(first + options.seeds), Mutex::new(Sum::default()));
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end.load(Ordering::Relaxed) {
            return;
        }
        let report = run(Plan { seed, broken: options.broken, verbose: options.verbose });
        sum.lock().unwrap_or_else(PoisonError::into_inner).add(seed, &report);
        if let Some(violation) = &report.violation {
            println!("seed {seed}: {}: {}", violation.invariant, violation.what);
            println!(
                "  replay: cargo xtask sim --seeds 1 --seed {seed}{} -v",
                options.break_flag()
            );
            if !options.keep_going {
                end.store(0, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(work);
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Options {
    fn break_flag(&self) -> String {
        let name = self.broken.and_then(|broken| broken.to_possible_value());
        name.map(|name| format!(" --break {}", name.get_name())).unwrap_or_default()
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(
            std::env::var("RUST_LOG").unwrap_or_else(|_| "off".into()),
        ))
        .without_time()
        .init();
    let started = Instant::now();
    let sum = simulate(&options);
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
    if options.verbose {
        println!("fingerprint {:016x}", sum.fingerprint);
    }
    if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
