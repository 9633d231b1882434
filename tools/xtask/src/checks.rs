//! What became of the checks that run several to a cluster, which `cargo nextest` cannot list: their test programs add it
//! to a file (`integration-tests/src/checks.rs`), and this sums it up.

use crate::binaries::target_dir;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file's variable; it is the test programs', too.
const VARIABLE: &str = "SWARM_CHECKS_REPORT";

/// The file of one run.
pub(crate) struct ChecksFile(PathBuf);

impl ChecksFile {
    /// Begins anew.
    pub(crate) fn begin() -> Result<Self> {
        let path = target_dir()?.join("checks");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(Self(path)),
        }
    }

    /// Has the tests that `command` runs write to it.
    pub(crate) fn hand_to(&self, command: &mut Command) {
        command.env(VARIABLE, &self.0);
    }

    /// What it says now.
    pub(crate) fn read(&self) -> Result<Checks> {
        let path: &Path = &self.0;
        match fs::read_to_string(path) {
            Ok(text) => Checks::parse(&text),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Checks::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// What became of one check in one try.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// It was to be run, and its program ended before.
    NotRun,
    Passed(f64),
    Failed(f64),
}

/// Program and name of each check, and its tries.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Checks(BTreeMap<(String, String), BTreeMap<u32, Outcome>>);

impl Checks {
    fn parse(text: &str) -> Result<Self> {
        let mut checks = Self::default();
        for line in text.lines() {
            let malformed = || format!("malformed report of a check {line:?}");
            let words: Vec<&str> = line.split(' ').collect();
            let [attempt, program, name, word, seconds] =
                <[&str; 5]>::try_from(words).ok().with_context(malformed)?;
            let seconds: f64 = seconds.parse().with_context(malformed)?;
            let outcome = match word {
                "planned" => Outcome::NotRun,
                "ok" => Outcome::Passed(seconds),
                "FAILED" => Outcome::Failed(seconds),
                _ => anyhow::bail!(malformed()),
            };
            let tries = checks.0.entry((program.to_owned(), name.to_owned())).or_default();
            tries.insert(attempt.parse().with_context(malformed)?, outcome);
        }
        Ok(checks)
    }

    /// Whether no test program had any.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn count(&self, what: impl Fn(Outcome) -> bool) -> usize {
        let last = self.0.values().filter_map(|tries| tries.values().next_back());
        last.filter(|outcome| what(**outcome)).count()
    }
}

/// A line for each check, and one with their numbers; nothing if there was none.
impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        let mut flaky = 0;
        for ((program, name), tries) in &self.0 {
            let passed = |outcome: &Outcome| matches!(outcome, Outcome::Passed(_));
            let (took, word) = match tries.values().next_back() {
                Some(Outcome::Passed(took)) if tries.values().all(passed) => (*took, "ok"),
                Some(Outcome::Passed(took)) => {
                    flaky += 1;
                    (*took, "FLAKY, passed at the second try")
                }
                Some(Outcome::Failed(took)) => (*took, "FAILED"),
                Some(Outcome::NotRun) | None => (0.0, "NOT RUN"),
            };
            writeln!(f, "{took:>8.1} s  {program}/{name}  {word}")?;
        }
        let passed = self.count(|outcome| matches!(outcome, Outcome::Passed(_)));
        let failed = self.count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let not_run = self.count(|outcome| outcome == Outcome::NotRun);
        writeln!(f, "checks: {passed} passed ({flaky} flaky), {failed} failed, {not_run} not run")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_try_counts() {
        let report = "1 dns planned 0.0\n";
        let error = Checks::parse(report).unwrap_err().to_string();
        assert_eq!(error, "malformed report of a check \"1 dns planned 0.0\"");

        let planned = |attempt: u32, program: &str| {
            ["a", "b"].map(|name| format!("{attempt} {program} {name} planned 0.0\n")).concat()
        };
        let report = planned(1, "dns") + "1 dns a ok 1.0\n1 dns b FAILED 2.5\n"
            + &planned(2, "dns") + "2 dns a ok 1.0\n2 dns b ok 2.0\n"
            // The second one's cluster broke down.
            + &planned(1, "scale") + "1 scale a FAILED 3.0\n";
        assert_eq!(
            Checks::parse(&report).unwrap().to_string(),
            "     1.0 s  dns/a  ok\n     2.0 s  dns/b  FLAKY, passed at the second try\n     \
             3.0 s  scale/a  FAILED\n     0.0 s  scale/b  NOT RUN\n\
             checks: 2 passed (1 flaky), 1 failed, 1 not run\n"
        );
        assert_eq!(Checks::parse("").unwrap().to_string(), "");
    }
}
