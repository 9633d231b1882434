//! Percentiles of how long calls took.

use std::time::Duration;

use serde_json::{Value, json};

/// The nearest-rank percentiles of `taken`, in milliseconds, as JSON.
pub(crate) fn summary(mut taken: Vec<Duration>) -> Value {
    taken.sort_unstable();
    let at = |percent: usize| {
        let rank = (taken.len() * percent).div_ceil(100);
        let duration = taken.get(rank.saturating_sub(1)).copied().unwrap_or_default();
        (duration.as_secs_f64() * 1e6).round() / 1e3
    };
    json!({ "p50": at(50), "p90": at(90), "p99": at(99), "max": at(100) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let taken = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(summary(taken), json!({"p50": 100.0, "p90": 180.0, "p99": 198.0, "max": 200.0}));
        assert_eq!(summary(vec![])["p99"], json!(0.0));
    }
}
