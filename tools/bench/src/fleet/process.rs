//! What processes use, from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Clock ticks a second in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that Debian has.
const TICKS: f64 = 100.0;

/// Processes, watched from a moment on.
pub(super) struct Watch {
    since: Instant,
    /// Process id and CPU seconds then.
    processes: Vec<(u32, f64)>,
}

impl Watch {
    pub(super) fn begin(pids: &[u32]) -> Result<Watch> {
        let processes = pids.iter().map(|pid| Ok((*pid, cpu_seconds(*pid)?)));
        Ok(Watch { since: Instant::now(), processes: processes.collect::<Result<_>>()? })
    }

    /// [`Watch::end`] after a while.
    pub(super) async fn after(self, time: Duration) -> Result<Value> {
        tokio::time::sleep(time).await; // what is measured is that nothing happens
        self.end()
    }

    /// For each process: CPUs used on average since, and memory now.
    pub(super) fn end(self) -> Result<Value> {
        let seconds = self.since.elapsed().as_secs_f64();
        let used = self.processes.iter().map(|(pid, before)| {
            let cpus = (cpu_seconds(*pid)? - before) / seconds;
            Ok(json!({ "cpus": (cpus * 1e3).round() / 1e3, "rss_mb": resident(*pid)? }))
        });
        used.collect::<Result<Vec<Value>>>().map(Value::from)
    }
}

/// User and system time of a process so far.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th words after it.
    let after = text.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>().with_context(|| format!("no times in {path}"))? / TICKS)
}

/// Resident set, in MB (10^6 bytes).
fn resident(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok((kib.with_context(|| format!("no VmRSS in {path}"))? * 1.024).round() / 1e3)
}
