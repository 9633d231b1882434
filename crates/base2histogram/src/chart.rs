//! Histograms side by side, as text. openraft draws them with its feature `runtime-stats`, which we leave off, but names
//! the type in any case.

use crate::{Histogram, scale};
use std::fmt;

/// The length of the longest bar.
const WIDTH: u128 = 40;

/// Named histograms, to be drawn together.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    series: Vec<(String, Histogram)>,
}

impl AsciiChart {
    /// A chart of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one histogram more.
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.series.push((name.to_string(), histogram));
        self
    }

    /// A block of lines a histogram, a line a bucket that has values: the bucket's first value, a bar, the count.
    pub fn detailed(&self) -> Detailed<'_> {
        Detailed(self)
    }
}

/// The text of a chart.
#[derive(Debug)]
pub struct Detailed<'a>(&'a AsciiChart);

impl fmt::Display for Detailed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.0.series {
            writeln!(f, "{name}: {}", histogram.percentile_stats())?;
            let most = histogram.counts.iter().max().copied().unwrap_or(0);
            for (bucket, &count) in histogram.counts.iter().enumerate() {
                if count > 0 {
                    let length = u128::from(count) * WIDTH / u128::from(most);
                    let bar = "#".repeat((length as usize).max(1));
                    writeln!(f, "{:>20} | {bar} {count}", scale::range(bucket).0)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_bucket_with_values() {
        let mut histogram = Histogram::new();
        histogram.record_n(5, 80);
        histogram.record(100);
        let drawn = AsciiChart::new().add("apply", histogram).detailed().to_string();
        let lines: Vec<_> = drawn.lines().map(str::trim).collect();
        assert!(lines[0].starts_with("apply: [samples: 81,"));
        assert_eq!(lines[1..], [format!("5 | {} 80", "#".repeat(40)).as_str(), "96 | # 1"]);
    }
}
