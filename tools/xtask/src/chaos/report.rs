//! What came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::callers::{All, Calls};
use super::faults::{Fault, Victims};
use super::swarm::Usage;
use super::writers::Writes;

/// One fault and what it did.
pub(super) struct Row {
    pub(super) fault: Fault,
    pub(super) victims: Victims,
    pub(super) what: String,
    /// The longest time without an acknowledged write.
    pub(super) no_writes: Duration,
    /// From the end of the fault until all was well.
    pub(super) converged: Duration,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (gap, whole) = (self.no_writes.as_secs_f64(), self.converged.as_secs_f64());
        write!(f, "{}: {gap:.1} s without writes, whole {whole:.1} s after it", self.what)
    }
}

/// Everything.
#[derive(Default)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    pub(super) calls: All,
    pub(super) writes: Writes,
    pub(super) before: Vec<Usage>,
    pub(super) after: Vec<Usage>,
}

impl Report {
    pub(super) fn print(&self) {
        println!(
            "\n| fault | times | longest without writes, s | longest until whole, s |\n|---|---|---|---|"
        );
        let mut kinds: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            kinds.entry((row.victims, row.fault)).or_default().push(row);
        }
        for ((victims, fault), rows) in &kinds {
            let longest = |of: fn(&Row) -> Duration| {
                rows.iter().map(|row| of(row)).max().unwrap_or_default().as_secs_f64()
            };
            let (gap, whole) = (longest(|row| row.no_writes), longest(|row| row.converged));
            println!("| {fault} {victims} | {} | {gap:.1} | {whole:.1} |", rows.len());
        }
        println!("\n{} faults", self.rows.len());
        println!(
            "writes: {} acknowledged, {} lost",
            self.writes.acknowledged,
            self.writes.lost.len()
        );
        print_calls("hosts that nothing happened to", &self.calls.elsewhere);
        print_calls("hosts that something happened to", &self.calls.hit);
        println!(
            "\n| swarmd of | MB before | MB after | open files before | after |\n|---|---|---|---|---|"
        );
        for (before, after) in self.before.iter().zip(&self.after) {
            println!(
                "| {} | {:.1} | {:.1} | {} | {} |",
                before.host, before.memory, after.memory, before.open_files, after.open_files
            );
        }
    }

    pub(super) fn verdict(&self) -> Result<()> {
        ensure!(
            self.writes.lost.is_empty(),
            "acknowledged writes are lost: {:?}",
            self.writes.lost
        );
        ensure!(self.writes.acknowledged > 0 && self.calls.elsewhere.made > 0, "nothing was done");
        Ok(())
    }
}

fn print_calls(of: &str, calls: &Calls) {
    let failed: u64 = calls.failed.values().sum();
    println!("HTTP calls from {of}: {} made, {failed} failed", calls.made);
    for (cause, count) in &calls.failed {
        println!("  {count} x {cause}");
    }
}
