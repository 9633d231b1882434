//! A measured figure, its bar, and how figures are shown.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// What a figure must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

impl Bar {
    fn holds(self, value: f64) -> bool {
        match self {
            Bar::AtMost(bar) => value <= bar,
            Bar::AtLeast(bar) => value >= bar,
        }
    }

    fn text(self) -> String {
        match self {
            Bar::AtMost(bar) => format!("<= {}", number(bar)),
            Bar::AtLeast(bar) => format!(">= {}", number(bar)),
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    value: f64,
    bar: Option<Bar>,
    /// What was measured in each run, if there were several.
    runs: Vec<f64>,
    /// The same on Docker Swarm.
    peer: Option<f64>,
}

impl Figure {
    /// A figure measured once.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, value: f64) -> Figure {
        Figure { name: name.into(), unit, value, bar: None, runs: Vec::new(), peer: None }
    }

    /// The median of several runs.
    pub(crate) fn median(name: impl Into<String>, unit: &'static str, runs: Vec<f64>) -> Figure {
        let value = median(&runs);
        Figure { runs, ..Figure::new(name, unit, value) }
    }

    pub(super) fn bar(self, bar: Bar) -> Figure {
        Figure { bar: Some(bar), ..self }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn set_peer(&mut self, value: f64) {
        self.peer = Some(value);
    }

    fn verdict(&self) -> &'static str {
        match self.bar {
            None => "",
            Some(bar) if bar.holds(self.value) => "ok",
            Some(_) => "MISSED",
        }
    }

    fn json(&self) -> Value {
        json!({
            "figure": self.name,
            "unit": self.unit,
            "value": self.value,
            "runs": self.runs,
            "bar": self.bar.map(Bar::text),
            "ok": self.bar.map(|bar| bar.holds(self.value)),
            "docker_swarm": self.peer,
        })
    }
}

/// The middle of `values`; of an even number the mean of the middle two. NaN of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

/// The figures as a table; the column of Docker Swarm only if it was measured.
pub(super) fn table(figures: &[Figure]) -> String {
    let with_peer = figures.iter().any(|figure| figure.peer.is_some());
    let mut rows = vec![["FIGURE", "VALUE", "UNIT", "BAR", "", "DOCKER SWARM"].map(str::to_owned)];
    rows.extend(figures.iter().map(|figure| {
        [
            figure.name.clone(),
            number(figure.value),
            figure.unit.to_owned(),
            figure.bar.map(Bar::text).unwrap_or_default(),
            figure.verdict().to_owned(),
            figure.peer.map(number).unwrap_or_default(),
        ]
    }));
    let columns = if with_peer { 6 } else { 5 };
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            // Numbers stand under each other.
            if column == 1 || column == 5 {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The figures as JSON.
pub(crate) fn json(figures: &[Figure]) -> Value {
    figures.iter().map(Figure::json).collect()
}

/// Prints the table, and writes JSON to a file if one is given; with `-` JSON to stdout, the table going to stderr.
pub(crate) fn show(json_file: Option<&Path>, figures: &[Figure]) -> Result<()> {
    let table = table(figures);
    let Some(path) = json_file else {
        print!("{table}");
        return Ok(());
    };
    let json = serde_json::to_string_pretty(&json(figures))?;
    if path.as_os_str() == "-" {
        eprint!("{table}");
        println!("{json}");
        return Ok(());
    }
    print!("{table}");
    fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_beside_its_figure() {
        let mut figures = vec![
            Figure::median("create 1", "s", vec![0.5, 0.25, 0.75]).bar(Bar::AtMost(0.3)),
            Figure::new("writes", "1/s", 1200.0).bar(Bar::AtLeast(1000.0)),
            Figure::new("size", "MB", 12.345),
        ];
        let text = table(&figures);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "create 1  0.500  s     <= 0.300  MISSED");
        assert_eq!(lines[2], "writes     1200  1/s   >= 1000   ok");
        assert_eq!(lines[3], "size       12.3  MB");
        figures[0].set_peer(8.0);
        assert!(table(&figures).lines().next().unwrap().ends_with("DOCKER SWARM"));
        assert_eq!(json(&figures)[0]["ok"], Value::Bool(false));
        assert_eq!(json(&figures)[0]["docker_swarm"], json!(8.0));
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
