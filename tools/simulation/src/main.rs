//! `cargo xtask sim`: simulates seeds until one fails.
#![forbid(unsafe_code)]

use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};
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
    /// Simulate the one seed in this process, and tell the outcome as JSON
    #[arg(long, hide = true)]
    one: bool,
    /// Tell what happens; set RUST_LOG for what the programs say
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    failed: Vec<u64>,
    time: u64,
    entries: u64,
    writes: u64,
    unknown: u64,
    reads: u64,
    faults: u64,
    slowest: u64,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds += 1;
        self.time += outcome.time;
        self.entries += outcome.entries;
        self.writes += outcome.writes;
        self.unknown += outcome.unknown;
        self.reads += outcome.reads;
        self.faults += outcome.faults;
        self.slowest = self.slowest.max(outcome.settled_in);
        if outcome.violation.is_some() {
            self.failed.push(seed);
        }
    }
}

/// A report, from one process to another.
#[derive(Serialize, Deserialize)]
struct Outcome {
    violation: Option<String>,
    time: u64,
    settled_in: u64,
    faults: u64,
    entries: u64,
    writes: u64,
    unknown: u64,
    reads: u64,
    fingerprint: String,
}

impl From<Report> for Outcome {
    fn from(report: Report) -> Outcome {
        let violation = report.violation.map(|v| format!("{}: {}", v.invariant, v.what));
        Outcome {
            violation,
            time: report.time,
            settled_in: report.settled_in,
            faults: report.faults,
            entries: report.entries,
            writes: report.traffic.writes,
            unknown: report.traffic.failed,
            reads: report.traffic.reads,
            fingerprint: format!("{:016x}", report.fingerprint),
        }
    }
}

/// Simulates a seed in a process of its own: tokio counts the runtimes of a process and draws from that
/// count, so that a seed would depend on those before it.
fn in_a_process(seed: u64, options: &Options) -> Result<Outcome, String> {
    let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
    command.args(["--one", "--seed", &seed.to_string()]).stdout(Stdio::piped());
    command.args(options.verbose.then_some("--verbose")).args(options.break_flag());
    let output = command.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (told, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
    if !told.is_empty() {
        println!("{told}");
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(last).map_err(|e| format!("{e}: {last} {}", errors.trim_end()))
}

/// Simulates the seeds, several beside each other; the first failure ends it unless asked otherwise.
fn simulate(options: &Options) -> Sum {
    let first = options.seed.unwrap_or(1);
    let next = AtomicU64::new(first);
    let (end, sum) = (AtomicU64::new(first + options.seeds), Mutex::new(Sum::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end.load(Ordering::Relaxed) {
                return;
            }
            let fails = tell(seed, in_a_process(seed, options), options, &sum);
            if fails && !options.keep_going {
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

fn tell(seed: u64, outcome: Result<Outcome, String>, options: &Options, sum: &Mutex<Sum>) -> bool {
    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
    let violation = match outcome {
        Ok(outcome) => {
            if options.verbose {
                println!("seed {seed}: {} ms, fingerprint {}", outcome.time, outcome.fingerprint);
            }
            sum.add(seed, &outcome);
            outcome.violation
        }
        Err(reason) => {
            sum.failed.push(seed);
            Some(format!("the simulation itself works: {reason}"))
        }
    };
    let Some(violation) = violation else { return false };
    let flags = options.break_flag().join(" ");
    println!("seed {seed}: {violation}");
    println!("  replay: cargo xtask sim --seeds 1 --seed {seed} --verbose {flags}");
    true
}

impl Options {
    fn break_flag(&self) -> Vec<String> {
        let name = self.broken.and_then(|broken| broken.to_possible_value());
        name.map(|name| vec!["--break".into(), name.get_name().into()]).unwrap_or_default()
    }
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return swarm_usage::report(&error),
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stdout)
        .with_env_filter(tracing_subscriber::EnvFilter::new(
            std::env::var("RUST_LOG").unwrap_or_else(|_| "off".into()),
        ))
        .without_time()
        .init();
    if options.one {
        let seed = options.seed.unwrap_or(1);
        let report = run(Plan { seed, broken: options.broken, verbose: options.verbose });
        println!("{}", serde_json::json!(Outcome::from(report)));
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let sum = simulate(&options);
    println!(
        "{} seeds in {:.1} s: {:.0} s of virtual time, {} log entries, {} faults; \
         {} writes acknowledged, {} refused or unknown, {} reads; slowest to settle {:.1} s; {} failed {:?}",
        sum.seeds,
        started.elapsed().as_secs_f64(),
        Duration::from_millis(sum.time).as_secs_f64(),
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
