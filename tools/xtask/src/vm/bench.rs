//! `cargo xtask vm bench`: the balancers side by side on Debian's stock kernel, by the example `vip-bench` of the crate
//! swarm-balancer. What each figure means is in `docs/benchmarks.md`.

use super::{in_vm, prepare};
use crate::bench::figure::{Figure, show};
use crate::binaries::{VM_PROFILE, build_whoami, target_dir};
use crate::run::{cargo, output, status};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Options of `cargo xtask vm bench`.
#[derive(Args)]
pub(super) struct Options {
    /// One short round, for a first look
    #[arg(long)]
    quick: bool,
    /// Write the figures as JSON to a file, or with `-` to stdout, the table going to stderr
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const DIRECT: &str = "direct";
const WAYS: [&str; 4] = [DIRECT, "ipvs", "nftables", "docker"];
/// Fields of a way in a round, with the names of their figures.
const KINDS: [(&str, &str, &str); 4] = [
    ("gbit_per_s", "throughput", "Gbit/s"),
    ("connections_per_s", "new connections", "1/s"),
    ("request_p50_us", "request p50", "us"),
    ("request_p99_us", "request p99", "us"),
];
/// Fields of an engine that programmed 1000 services with 10 backends each.
const PROGRAMMING: [(&str, &str, &str); 3] = [
    ("all_s", "1000 services", "s"),
    ("one_change_ms", "one change among them", "ms"),
    ("audit_ms", "audit of them", "ms"),
];

pub(super) fn run(options: &Options) -> Result<()> {
    prepare()?;
    let dir = target_dir()?.join(VM_PROFILE);
    eprintln!("building");
    let example = ["-p", "swarm-balancer", "--example", "vip-bench"];
    status(cargo().args(["build", "--quiet", "--profile", VM_PROFILE]).args(example))?;
    build_whoami(&dir)?;
    eprintln!("measuring");
    let measured: Value =
        serde_json::from_str(&measure(&dir, options.quick)?).context("vip-bench prints no JSON")?;
    eprintln!("on Linux {}", measured["machine"]["kernel"].as_str().unwrap_or("?"));
    show(options.json.as_deref(), &figures(&measured)?)
}

fn measure(dir: &Path, quick: bool) -> Result<String> {
    let (rounds, seconds) = if quick { ("1", "2") } else { ("5", "4") };
    let script = "modprobe -a br_netfilter vxlan; exec \"$@\"";
    let mut vm = in_vm();
    vm.args(["bash", "-c", script, "-"]).arg(dir.join("examples/vip-bench"));
    vm.arg(dir.join("swarm-whoami")).args([rounds, seconds]).env("VM_TIMEOUT", "900");
    output(&mut vm)
}

/// Medians of the rounds; ratios are medians of the ratios in each round.
fn figures(measured: &Value) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (field, name, unit) in KINDS {
        let direct = rounds(measured, DIRECT, field)?;
        for way in WAYS {
            figures.push(Figure::median(
                format!("{name}, {way}"),
                unit,
                rounds(measured, way, field)?,
            ));
        }
        for way in WAYS.into_iter().filter(|way| *way != DIRECT) {
            let values = rounds(measured, way, field)?;
            let ratios = values.iter().zip(&direct).map(|(value, direct)| value / direct);
            let name = format!("{name}, {way} / {DIRECT}");
            figures.push(Figure::median(name, "", ratios.collect()));
        }
    }
    for engine in measured["programming"].as_array().context("nothing was programmed")? {
        let name = engine["engine"].as_str().context("an engine has no name")?;
        for (field, what, unit) in PROGRAMMING {
            let value = engine[field].as_f64().with_context(|| format!("{name} has no {field}"))?;
            figures.push(Figure::new(format!("{what}, {name}"), unit, value));
        }
    }
    Ok(figures)
}

/// What was measured of a way, by round.
fn rounds(measured: &Value, way: &str, field: &str) -> Result<Vec<f64>> {
    let ways = measured["ways"].as_array().context("nothing was measured")?;
    let mut values: Vec<(u64, f64)> = ways
        .iter()
        .filter(|one| one["way"] == way)
        .filter_map(|one| Some((one["round"].as_u64()?, one[field].as_f64()?)))
        .collect();
    values.sort_by_key(|(round, _)| *round);
    if values.is_empty() {
        anyhow::bail!("{field} of {way} was not measured");
    }
    Ok(values.into_iter().map(|(_, value)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figure::json;
    use serde_json::json;

    #[test]
    fn ratios_are_those_of_each_round() {
        let way = |way: &str, round: u32, rate: f64| {
            json!({ "way": way, "round": round, "gbit_per_s": rate, "connections_per_s": rate,
                "request_p50_us": rate, "request_p99_us": rate })
        };
        let mut ways = Vec::new();
        for (round, (direct, other)) in [(1.0, 0.5), (4.0, 1.0), (2.0, 1.0)].into_iter().enumerate()
        {
            let round = u32::try_from(round).unwrap();
            // Not in the order of the rounds.
            ways.insert(0, way(DIRECT, round, direct));
            ways.extend(WAYS[1..].iter().map(|name| way(name, round, other)));
        }
        let engine =
            json!({ "engine": "ipvs", "all_s": 2.0, "one_change_ms": 1.0, "audit_ms": 3.0 });
        let measured = json!({ "ways": ways, "programming": [engine] });
        let shown = json(&figures(&measured).unwrap());
        let value = |name: &str| {
            let figure = shown.as_array().unwrap().iter().find(|one| one["figure"] == name);
            figure.unwrap_or_else(|| panic!("no {name}: {shown}"))["value"].clone()
        };
        assert_eq!(value("throughput, direct"), json!(2.0));
        assert_eq!(value("throughput, ipvs / direct"), json!(0.5));
        assert_eq!(value("1000 services, ipvs"), json!(2.0));
        assert!(figures(&json!({ "ways": [], "programming": [] })).is_err());
    }
}
