//! Counts and latencies of many calls, and their summary.

use crate::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Kinds of error text that are told apart; the rest is counted together.
const MAX_KEYS: usize = 1000;

/// What a number of calls gave. Each worker has its own; they are added up in the end.
pub(crate) struct Stats {
    started: Instant,
    hosts: BTreeMap<String, u64>,
    clients: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    calls: u64,
    failed: u64,
    latencies_us: Vec<u32>,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            hosts: BTreeMap::new(),
            clients: BTreeMap::new(),
            errors: BTreeMap::new(),
            calls: 0,
            failed: 0,
            latencies_us: Vec::new(),
        }
    }

    pub(crate) fn success(&mut self, took: Duration, who: Option<(String, String)>) {
        self.calls += 1;
        self.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        if let Some((host, client)) = who {
            count(&mut self.hosts, host);
            count(&mut self.clients, client);
        }
    }

    pub(crate) fn failure(&mut self, error: &impl ToString) {
        self.calls += 1;
        self.failed += 1;
        count(&mut self.errors, error.to_string());
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.latencies_us.extend(other.latencies_us);
        for (mine, theirs) in [
            (&mut self.hosts, other.hosts),
            (&mut self.clients, other.clients),
            (&mut self.errors, other.errors),
        ] {
            for (key, n) in theirs {
                *mine.entry(key).or_default() += n;
            }
        }
    }

    /// One JSON object: `calls`, `failed`, `seconds`, `rate` (successes a second), `hosts`, `clients`, `errors`, `latency_us`.
    pub(crate) fn summary(mut self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        self.latencies_us.sort_unstable();
        let at = |percent: usize| percentile(&self.latencies_us, percent).to_string();
        let latency =
            json::object([("p50", at(50)), ("p90", at(90)), ("p99", at(99)), ("max", at(100))]);
        json::object([
            ("calls", self.calls.to_string()),
            ("failed", self.failed.to_string()),
            ("seconds", format!("{seconds:.3}")),
            ("rate", format!("{:.1}", (self.calls - self.failed) as f64 / seconds.max(1e-9))),
            ("hosts", json::counts(&self.hosts)),
            ("clients", json::counts(&self.clients)),
            ("errors", json::counts(&self.errors)),
            ("latency_us", latency),
        ])
    }
}

fn count(counts: &mut BTreeMap<String, u64>, key: String) {
    let known = counts.len() < MAX_KEYS || counts.contains_key(&key);
    *counts.entry(if known { key } else { "others".to_owned() }).or_default() += 1;
}

/// The nearest-rank percentile of sorted values; 0 of none.
fn percentile(sorted: &[u32], percent: usize) -> u32 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<u32> = (1..=200).collect();
        assert_eq!([50, 99, 100].map(|p| percentile(&values, p)), [100, 198, 200]);
        assert_eq!(percentile(&[7], 50), 7);
        assert_eq!(percentile(&[], 99), 0);
    }

    #[test]
    fn workers_add_up() {
        let (mut a, mut b) = (Stats::new(), Stats::new());
        a.success(Duration::from_micros(5), Some(("h1".into(), "c".into())));
        b.success(Duration::from_micros(9), Some(("h1".into(), "d".into())));
        b.failure(&"refused");
        a.add(b);
        let text = a.summary();
        assert!(text.contains("\"calls\":3,\"failed\":1"), "{text}");
        assert!(
            text.contains(
                "\"hosts\":{\"h1\":2},\"clients\":{\"c\":1,\"d\":1},\"errors\":{\"refused\":1}"
            ),
            "{text}"
        );
        assert!(text.contains("\"max\":9"), "{text}");
    }
}
