//! A histogram of `u64` values in buckets that grow with the value: what openraft calls of the crate of this name.
//!
//! openraft keeps some twenty of them, whether one looks at them or not, so they are small: a histogram has as many counters
//! as its largest value needs, 252 at most. `docs/adr/0007` says why this is not the registry's crate.

#![forbid(unsafe_code)]

mod chart;
mod scale;

pub use chart::{AsciiChart, Detailed};

use std::fmt;
use std::marker::PhantomData;

/// How often each value was seen, by buckets: up to 7 exactly, above that to a quarter of the value or better.
///
/// openraft names a type parameter, for parts of a sliding window that it never makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// One counter a bucket; the last one is not zero.
    counts: Vec<u64>,
    total: u64,
    part: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// A histogram without values.
    pub fn new() -> Self {
        Self { counts: Vec::new(), total: 0, part: PhantomData }
    }

    /// Counts `value` once.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `value` `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        if count == 0 {
            return;
        }
        let bucket = scale::bucket(value);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += count;
        self.total += count;
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// A value that the share `p` (0 to 1) of the values does not exceed: one in the same bucket as the exact one. Of an
    /// empty histogram, 0.
    pub fn percentile(&self, p: f64) -> u64 {
        let rank = (self.total as f64 * p).ceil() as u64;
        self.value_at(rank.clamp(1, self.total.max(1)))
    }

    /// The percentiles that openraft shows.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }

    /// The value of a rank, counted from 1, as if the values of a bucket were spread evenly over it.
    fn value_at(&self, rank: u64) -> u64 {
        let mut below = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            if rank <= below + count {
                let (first, width) = scale::range(bucket);
                let offset = u128::from(width) * u128::from(rank - below - 1) / u128::from(count);
                return first + offset as u64;
            }
            below += count;
        }
        0
    }
}

/// Percentiles of a histogram's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values there are
    pub samples: u64,
    /// Percentile 0.1
    pub p0_1: u64,
    /// Percentile 1
    pub p1: u64,
    /// Percentile 5
    pub p5: u64,
    /// Percentile 10
    pub p10: u64,
    /// Percentile 50, the median
    pub p50: u64,
    /// Percentile 90
    pub p90: u64,
    /// Percentile 99
    pub p99: u64,
    /// Percentile 99.9
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(
            f,
            "[samples: {samples}, P0.1: {p0_1}, P1: {p1}, P5: {p5}, P10: {p10}, P50: {p50}, P90: {p90}, P99: {p99}, P99.9: {p99_9}]"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn histogram(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::new();
        values.iter().for_each(|&value| histogram.record(value));
        histogram
    }

    /// The exact percentile, from the sorted values.
    fn exact(values: &[u64], p: f64) -> u64 {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let rank = ((sorted.len() as f64 * p).ceil() as usize).clamp(1, sorted.len());
        sorted[rank - 1]
    }

    /// Values of all sizes: a random number of bits, then a random number of so many.
    fn value() -> impl Strategy<Value = u64> {
        (0..=64u32, any::<u64>())
            .prop_map(|(bits, value)| value.checked_shr(64 - bits).unwrap_or(0))
    }

    proptest! {
        #[test]
        fn a_percentile_is_in_the_bucket_of_the_exact_one(
            values in prop::collection::vec(value(), 1..200),
            p in 0.0..=1.0,
        ) {
            let found = histogram(&values).percentile(p);
            prop_assert_eq!(scale::bucket(found), scale::bucket(exact(&values, p)));
        }

        #[test]
        fn small_values_are_exact(values in prop::collection::vec(0..8u64, 1..200)) {
            let stats = histogram(&values).percentile_stats();
            let exactly = PercentileStats {
                samples: values.len() as u64,
                p0_1: exact(&values, 0.001),
                p1: exact(&values, 0.01),
                p5: exact(&values, 0.05),
                p10: exact(&values, 0.1),
                p50: exact(&values, 0.5),
                p90: exact(&values, 0.9),
                p99: exact(&values, 0.99),
                p99_9: exact(&values, 0.999),
            };
            prop_assert_eq!(stats, exactly);
        }

        #[test]
        fn recording_n_times_is_recording_that_often(value in value(), n in 0..9u64) {
            let mut at_once = Histogram::<()>::new();
            at_once.record_n(value, n);
            prop_assert_eq!(at_once, histogram(&vec![value; n as usize]));
        }
    }

    #[test]
    fn an_empty_one_says_zero() {
        let stats = Histogram::<()>::new().percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p99_9), (0, 0, 0));
    }

    #[test]
    fn memory_grows_with_the_largest_value_to_two_kilobytes() {
        assert_eq!(histogram(&[]).counts.capacity(), 0);
        assert!(histogram(&[200; 1000]).counts.capacity() < 64);
        assert_eq!(histogram(&[u64::MAX]).counts.len(), 252);
    }
}
