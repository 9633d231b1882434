//! Named checks on one cluster: each is reported by its name, a failed one does not keep the others from being run, and
//! what it made is removed before the next.

use crate::{Cluster, eventually};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A check: its name and what it does.
pub type Check = (&'static str, fn(&Cluster));

/// The one check that is to be run, by its name.
const ONLY: &str = "SWARM_CHECK";
/// A file to which what becomes of each check is added; `cargo xtask test` reads it.
const REPORT: &str = "SWARM_CHECKS_REPORT";
/// Which try this is; nextest says so.
const TRY: &str = "NEXTEST_ATTEMPT";

/// Runs functions of a [`Cluster`], each under its own name: `checks!(&cluster, dns, balancing)`.
#[macro_export]
macro_rules! checks {
    ($cluster:expr, $($check:ident),+ $(,)?) => {
        $crate::checks::run(
            $cluster,
            module_path!(),
            &[$((stringify!($check), $check as fn(&$crate::Cluster))),+],
        )
    };
}

/// Runs the checks of a program; services and networks that a check made are removed after it. `SWARM_CHECK=NAME` runs
/// only that one.
///
/// # Panics
/// When one failed, naming all that did; what each said is above it. When there is none of the name that was asked for.
pub fn run(cluster: &Cluster, program: &str, checks: &[Check]) {
    let chosen = choose(std::env::var(ONLY).ok().as_deref(), checks);
    let report = Report::open(program);
    for (name, _) in &chosen {
        report.add(name, "planned", Duration::ZERO);
    }
    let kept = Made::list(cluster);
    let mut failed = Vec::new();
    for (name, check) in chosen {
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            check(cluster);
            Made::list(cluster).remove_but(&kept, cluster);
        }));
        let (word, took) = (if outcome.is_ok() { "ok" } else { "FAILED" }, started.elapsed());
        eprintln!("check {name}: {word} ({:.1} s)", took.as_secs_f64());
        report.add(name, word, took);
        if outcome.is_err() {
            failed.push(name);
            // The next one shall find a clean swarm; that it does not is told by its own failure.
            let _ =
                catch_unwind(AssertUnwindSafe(|| Made::list(cluster).remove_but(&kept, cluster)));
        }
    }
    assert!(failed.is_empty(), "failed checks: {}", failed.join(", "));
}

fn choose(only: Option<&str>, checks: &[Check]) -> Vec<Check> {
    let wanted = |(name, _): &&Check| only.is_none_or(|only| only == *name);
    let chosen: Vec<Check> = checks.iter().filter(wanted).copied().collect();
    let names: Vec<&str> = checks.iter().map(|(name, _)| *name).collect();
    assert!(!chosen.is_empty(), "no check {}: there are {}", only.unwrap_or(""), names.join(", "));
    chosen
}

/// A line for each check that is to be run, and one for what became of it: try, program, name, word, seconds.
struct Report<'a> {
    file: Option<File>,
    attempt: String,
    program: &'a str,
}

impl<'a> Report<'a> {
    fn open(program: &'a str) -> Self {
        let file = std::env::var_os(REPORT).map(|path| {
            let opened = File::options().create(true).append(true).open(&path);
            opened.unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()))
        });
        Self { file, attempt: std::env::var(TRY).unwrap_or_else(|_| "1".to_owned()), program }
    }

    fn add(&self, name: &str, word: &str, took: Duration) {
        let Some(mut file) = self.file.as_ref() else { return };
        let (attempt, program, took) = (&self.attempt, self.program, took.as_secs_f64());
        let line = format!("{attempt} {program} {name} {word} {took:.1}\n");
        file.write_all(line.as_bytes()).expect("the report of checks is written");
    }
}

/// Ids of all services and networks.
struct Made {
    services: BTreeSet<String>,
    networks: BTreeSet<String>,
}

impl Made {
    fn list(cluster: &Cluster) -> Self {
        let ids = |line: &str| cluster.ctl(line).split_whitespace().map(str::to_owned).collect();
        Self {
            services: ids("service ls -q --no-trunc"),
            networks: ids("network ls -q --no-trunc --filter driver=overlay"),
        }
    }

    fn remove_but(&self, kept: &Self, cluster: &Cluster) {
        for id in self.services.difference(&kept.services) {
            cluster.ctl(&format!("service rm {id}"));
        }
        for id in self.networks.difference(&kept.networks) {
            // Tasks of a removed service hold their networks until they have ended.
            eventually("removal of a network", || {
                let output = cluster.ctl_output(&format!("network rm {id}"));
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                if output.status.success() { Ok(()) } else { Err(said) }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &Cluster) {}

    #[test]
    fn one_is_chosen_by_its_whole_name() {
        let checks: [Check; 2] = [("dns", nothing), ("dns_over_tcp", nothing)];
        let names = |only| choose(only, &checks).iter().map(|check| check.0).collect::<Vec<_>>();
        assert_eq!(names(None), ["dns", "dns_over_tcp"]);
        assert_eq!(names(Some("dns")), ["dns"]);
    }

    #[test]
    #[should_panic(expected = "no check dnss: there are dns")]
    fn a_name_that_means_none_is_said() {
        choose(Some("dnss"), &[("dns", nothing)]);
    }
}
