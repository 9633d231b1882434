//! Memory of daemons and shims, and the size of the programs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::figure::{Bar, Figure, median};
use super::swarm::{NODES, Swarm};
use crate::processes::processes;

/// What the daemons are given to settle. It is part of what is measured: the memory of an idle swarm.
const SETTLE: Duration = Duration::from_secs(5);

/// Memory of one process, in MB (10^6 bytes).
struct Usage {
    /// Resident set, with the pages of the program itself that others share.
    rss: f64,
    /// Its anonymous part.
    anonymous: f64,
    /// Resident set, shared pages divided by how many share them.
    pss: f64,
}

fn usage(pid: i32) -> Result<Usage> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        number.with_context(|| format!("no {name} in {path}"))
    };
    let mb = |kib: f64| kib * 1024.0 / 1e6;
    Ok(Usage { rss: mb(kib("Rss")?), anonymous: mb(kib("Anonymous")?), pss: mb(kib("Pss")?) })
}

/// An idle swarm: every node has one network and one task.
pub(super) fn idle(swarm: &Swarm) -> Result<Vec<Figure>> {
    measure(swarm, "idle", true)
}

/// The same swarm after all other phases.
pub(super) fn after_load(swarm: &Swarm) -> Result<Vec<Figure>> {
    measure(swarm, "after load", false)
}

fn measure(swarm: &Swarm, when: &str, bars: bool) -> Result<Vec<Figure>> {
    std::thread::sleep(SETTLE); // part of what is measured
    let (mut managers, mut workers, mut shims) = (vec![], vec![], vec![]);
    for (index, node) in swarm.playground.nodes().iter().enumerate() {
        let found = processes(node)?;
        let daemon = usage(found.daemon.with_context(|| format!("no swarmd on {}", node.name()))?)?;
        if index + 1 < NODES {
            managers.push(daemon)
        } else {
            workers.push(daemon)
        }
        for pid in found.shims {
            shims.push(usage(pid)?);
        }
    }
    let mut figures = Vec::new();
    for (name, usages, bar) in
        [("manager", managers, 35.0), ("worker", workers, 20.0), ("shim", shims, 4.0)]
    {
        let all = |part: fn(&Usage) -> f64| usages.iter().map(part).collect::<Vec<_>>();
        let rss = Figure::median(format!("{name} RSS, {when}"), "MB", all(|u| u.rss));
        figures.push(if bars { rss.bar(Bar::AtMost(bar)) } else { rss });
        figures.push(Figure::new(
            format!("{name} anonymous, {when}"),
            "MB",
            median(&all(|u| u.anonymous)),
        ));
        figures.push(Figure::new(format!("{name} PSS, {when}"), "MB", median(&all(|u| u.pss))));
    }
    Ok(figures)
}

/// The programs as they are shipped.
pub(super) fn sizes(swarm: &Swarm) -> Result<Vec<Figure>> {
    let programs = [
        ("swarmd", &swarm.binaries.swarmd),
        ("swarmctl", &swarm.binaries.swarmctl),
        ("whoami", &swarm.binaries.whoami),
    ];
    let figure = |(name, path): (&str, &std::path::PathBuf)| {
        let size = fs::metadata(path).with_context(|| format!("no {}", path.display()))?.len();
        Ok(Figure::new(format!("size of {name}"), "MB", size as f64 / 1e6))
    };
    programs.into_iter().map(figure).collect()
}
