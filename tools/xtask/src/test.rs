//! `cargo xtask test`: everything that must hold before a change goes in. `.ci/run` is this.

use crate::chaos;
use crate::checks::{Checks, ChecksFile};
use crate::deny;
use crate::packages;
use crate::run::{cargo, status, succeeds};
use crate::sim;
use crate::vm;
use anyhow::{Result, bail};
use clap::Args;
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The package whose tests are whole clusters: one at a time.
const CLUSTER_TESTS: &str = "swarm-integration-tests";

/// How often each change of a service is made under traffic in a long test.
const RUNS_UNDER_TRAFFIC: u32 = 30;

/// Options of `cargo xtask test`.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Leave out the tests of whole clusters, simulated ones too, and those in the VM
    #[arg(long)]
    unit: bool,
    /// Leave out the tests in the VM
    #[arg(long)]
    no_vm: bool,
    /// Add what takes hours: 30 runs of each change of a service under traffic with both balancers, 3,000 more simulated
    /// swarms, ten minutes of chaos, 40 power cuts
    #[arg(long, conflicts_with_all = ["unit", "no_vm", "filter", "check"])]
    long: bool,
    /// Run only tests whose names contain this; formatting, lints and dependencies are left out
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Run only one check of those that share a cluster, as the summary names it
    #[arg(long, value_name = "PROGRAM/CHECK", conflicts_with_all = ["unit", "filter"])]
    check: Option<CheckName>,
}

/// A check, such as `dns/unknown_names_do_not_exist`.
#[derive(Clone, Debug)]
struct CheckName {
    program: String,
    check: String,
}

impl FromStr for CheckName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (program, check) = text.split_once('/').ok_or("want PROGRAM/CHECK")?;
        Ok(Self { program: program.to_owned(), check: check.to_owned() })
    }
}

impl Options {
    /// Whether all tests are asked for.
    fn is_whole(&self) -> bool {
        self.filter.is_none() && self.check.is_none()
    }
}

/// Runs every step even if an earlier one failed, but no test on a build that failed; fails if any did.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("tests make network namespaces and mounts: run them as root");
    }
    let mut report = Report::default();
    let ready = report.step("packages", packages::install) && {
        if options.is_whole() {
            report.step("formatting", || status(cargo().args(["fmt", "--all", "--check"])));
            report.step("dependencies", deny::run);
            report.step("lints", lints);
        }
        report.step("build", build)
    };
    if ready {
        let nextest = succeeds(cargo().args(["nextest", "--version"]));
        let checks = ChecksFile::begin()?;
        for (name, mut command) in test_commands(options, nextest) {
            checks.hand_to(&mut command);
            report.step(name, || status(&mut command));
        }
        report.checks = checks.read()?;
        if let Some(CheckName { program, .. }) = &options.check
            && report.checks.is_empty()
        {
            report.step("its checks", || bail!("{program} has no checks that share a cluster"));
        }
        if !options.unit && options.is_whole() {
            report.step("simulation", sim::test);
        }
        if options.no_vm {
            println!("\nleft out, as asked by --no-vm: the tests in the VM");
        } else if !options.unit && options.is_whole() {
            report.step("tests in the VM", || vm::test(None));
        }
        if options.long {
            report.step("simulation of new seeds", sim::test_new);
            report.step("traffic, nftables", || status(&mut traffic()));
            report.step("traffic, ipvs", || vm::test_traffic(RUNS_UNDER_TRAFFIC));
            report.step("chaos", chaos::test);
            report.step("power cuts", || vm::test_power_cuts(20));
        }
    }
    report.finish()
}

/// By libtest: nextest ends what takes this long.
fn traffic() -> Command {
    let mut traffic = cargo();
    traffic.args(["test", "--quiet", "--workspace", "--test", "traffic", "--", "--nocapture"]);
    traffic.env("SWARM_RUNS", RUNS_UNDER_TRAFFIC.to_string());
    traffic
}

fn lints() -> Result<()> {
    status(cargo().args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Programs and tests in one go, so that features are unified once and nothing is built twice.
fn build() -> Result<()> {
    status(cargo().args(["build", "--quiet", "--workspace", "--all-targets"]))
}

/// With nextest `.config/nextest.toml` says what runs alone; `cargo test` needs two runs for that.
fn test_commands(options: &Options, nextest: bool) -> Vec<(&'static str, Command)> {
    if let Some(CheckName { program, check }) = &options.check {
        let mut one = cargo();
        one.args(if nextest { ["nextest", "run"].as_slice() } else { &["test", "--quiet"] });
        one.args(["-p", CLUSTER_TESTS, "--test", program]).env("SWARM_CHECK", check);
        return vec![("check", one)];
    }
    let filter = options.filter.as_deref();
    let exclude: &[&str] = if options.unit { &["--exclude", CLUSTER_TESTS] } else { &[] };
    if nextest {
        let mut all = cargo();
        all.args(["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests", "warn"]);
        all.args(exclude).args(filter);
        return vec![("tests", all)];
    }
    let mut units = cargo();
    units.args(["test", "--quiet", "--workspace", "--no-fail-fast", "--exclude", CLUSTER_TESTS]);
    units.args(filter);
    let mut commands = vec![("tests of the crates", units)];
    if !options.unit {
        let mut clusters = cargo();
        clusters.args(["test", "--quiet", "--no-fail-fast", "-p", CLUSTER_TESTS]);
        clusters.args(filter).args(["--", "--test-threads", "1"]);
        commands.push(("tests of clusters", clusters));
    }
    commands
}

/// What was run, how long it took, whether it succeeded.
#[derive(Default)]
struct Report {
    steps: Vec<(&'static str, Duration, Result<()>)>,
    checks: Checks,
}

impl Report {
    fn step(&mut self, name: &'static str, run: impl FnOnce() -> Result<()>) -> bool {
        println!("\n==> {name}");
        let started = Instant::now();
        let outcome = run();
        let succeeded = outcome.is_ok();
        self.steps.push((name, started.elapsed(), outcome));
        succeeded
    }

    fn finish(self) -> Result<()> {
        println!("\n{}", self.checks);
        let mut failed = Vec::new();
        for (name, took, outcome) in self.steps {
            let word = if outcome.is_ok() { "ok" } else { "FAILED" };
            println!("{name:<20} {:>8.1} s  {word}", took.as_secs_f64());
            if let Err(error) = outcome {
                println!("    {error:#}");
                failed.push(name);
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        bail!("failed: {}", failed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(options: &Options, nextest: bool) -> Vec<String> {
        let words = |command: &Command| {
            let words: Vec<_> =
                command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            words.join(" ")
        };
        test_commands(options, nextest).iter().map(|(_, command)| words(command)).collect()
    }

    #[test]
    fn clusters_are_tested_one_at_a_time_without_nextest() {
        let lines = lines(&Options { filter: Some("dns".into()), ..Options::default() }, false);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("--exclude swarm-integration-tests dns"));
        assert!(lines[1].ends_with("-p swarm-integration-tests dns -- --test-threads 1"));
    }

    #[test]
    fn unit_leaves_clusters_out() {
        let options = Options { unit: true, ..Options::default() };
        assert!(lines(&options, true)[0].ends_with("--exclude swarm-integration-tests"));
        assert_eq!(lines(&options, false).len(), 1);
    }

    #[test]
    fn one_check_runs_alone() {
        let options = Options { check: Some("dns/ipv6".parse().unwrap()), ..Options::default() };
        for (nextest, line) in [(true, "nextest run"), (false, "test --quiet")] {
            let (_, command) = &test_commands(&options, nextest)[0];
            assert!(command.get_envs().any(|(_, value)| value == Some("ipv6".as_ref())));
            let wanted = format!("{line} -p swarm-integration-tests --test dns");
            assert_eq!(lines(&options, nextest), [wanted]);
        }
        assert!("dns".parse::<CheckName>().is_err());
    }

    #[test]
    fn a_failed_step_fails_the_whole() {
        let mut report = Report::default();
        assert!(!report.step("one", || bail!("broken")));
        assert!(report.step("two", || Ok(())));
        assert_eq!(report.finish().unwrap_err().to_string(), "failed: one");
    }
}
