//! The same figures of a real Docker Swarm on the same machine, measured by scripts that are not part of this
//! repository: `peer-measure.sh LABEL PHASE...` in the directory given, which writes `results/LABEL.json`, and
//! `peer-down.sh`. They write beside themselves, so they run from a copy.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use super::Effort;
use super::figure::{Figure, median};
use super::swarm::json;
use crate::interrupt;
use crate::run::output;

const PHASES: [&str; 6] = ["init", "mem", "create", "scale", "writes", "overlay"];
const MIB: f64 = 1.048_576;
/// The scripts run for minutes; Ctrl-C is looked for this often.
const LOOK: Duration = Duration::from_millis(200);

/// Scripts and results; the emulated hosts and the copy go when this is dropped.
struct Peer {
    dir: PathBuf,
}

/// Measures and fills in the column.
pub(super) fn measure(scripts: &Path, effort: Effort, figures: &mut [Figure]) -> Result<()> {
    let peer = Peer::copy(scripts)?;
    let measured = peer.run(effort)?;
    for figure in figures {
        if let Some(value) = value_of(&measured, figure.name()) {
            figure.set_peer(value);
        }
    }
    Ok(())
}

impl Peer {
    fn copy(scripts: &Path) -> Result<Peer> {
        let name = format!("swarm-bench-peer-{}", std::process::id());
        let peer = Peer { dir: std::env::temp_dir().join(name) };
        output(Command::new("cp").arg("-r").arg(scripts).arg(&peer.dir))?;
        Ok(peer)
    }

    fn run(&self, effort: Effort) -> Result<Value> {
        let mut command = Command::new("bash");
        command.current_dir(&self.dir).args(["peer-measure.sh", "bench"]).args(PHASES);
        command.envs([
            ("PEER_N", "4"),
            ("PEER_M", "3"),
            ("PEER_MODES", "vip"),
            ("PEER_QUIET", "2"),
        ]);
        command.env("PEER_RUNS", effort.runs(3).to_string());
        let log = fs::File::create(self.dir.join("log")).context("cannot write a log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut child = command.spawn().context("cannot run peer-measure.sh")?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if interrupt::seen() {
                killpg(Pid::from_raw(child.id().try_into()?), Signal::SIGKILL)?;
                child.wait()?;
                bail!("interrupted");
            }
            std::thread::sleep(LOOK); // between two looks for the end of the scripts
        };
        if !status.success() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(20).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            bail!("peer-measure.sh failed ({status}):\n{}", end.join("\n"));
        }
        let path = self.dir.join("results/bench.json");
        json(&fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Err(error) = output(Command::new("bash").current_dir(&self.dir).arg("peer-down.sh"))
        {
            eprintln!("{error:#}");
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// The peer's figure of that name. Its memory is that of dockerd and containerd together.
fn value_of(measured: &Value, name: &str) -> Option<f64> {
    if let Some(replicas) = name.strip_prefix("service create --replicas ") {
        return medians(measured, &format!("/create/vip{replicas}"), "/running");
    }
    if let Some(step) = name.strip_prefix("service scale ") {
        let step = step.replace(' ', "");
        return medians(measured, "/scale", &format!("/{step}/done"));
    }
    if let Some(clients) = name.strip_prefix("writes, clients: ") {
        return medians(measured, &format!("/writes/leader-c{clients}/create"), "/ops");
    }
    if let Some(clients) = name.strip_prefix("write p99, clients: ") {
        return medians(measured, &format!("/writes/leader-c{clients}/create"), "/p99_ms");
    }
    match name {
        "manager RSS, idle" => memory(measured, &["n1", "n2", "n3"], "rss_mb"),
        "manager PSS, idle" => memory(measured, &["n1", "n2", "n3"], "pss_mb"),
        "worker RSS, idle" => memory(measured, &["n4"], "rss_mb"),
        "worker PSS, idle" => memory(measured, &["n4"], "pss_mb"),
        "shim RSS, idle" => shim(measured, "rss_mb"),
        "shim PSS, idle" => shim(measured, "pss_mb"),
        "throughput, task address" => throughput(measured, "overlay"),
        "throughput, plain veth" => throughput(measured, "veth"),
        "throughput, overlay / plain veth" => {
            Some(throughput(measured, "overlay")? / throughput(measured, "veth")?)
        }
        "size of swarmd" => size(&["dockerd", "containerd", "containerd-shim-runc-v2", "runc"]),
        "size of swarmctl" => size(&["docker"]),
        _ => None,
    }
}

/// The median of a field over an array.
fn medians(measured: &Value, array: &str, field: &str) -> Option<f64> {
    let rows = measured.pointer(array)?.as_array()?;
    let values: Vec<f64> = rows.iter().filter_map(|row| row.pointer(field)?.as_f64()).collect();
    (!values.is_empty()).then(|| median(&values))
}

fn memory(measured: &Value, nodes: &[&str], kind: &str) -> Option<f64> {
    let node = |node: &&str| {
        let part = |program: &str| {
            measured.pointer(&format!("/mem/idle/{node}/procs/{program}/{kind}"))?.as_f64()
        };
        Some((part("dockerd")? + part("containerd")?) * MIB)
    };
    let values: Vec<f64> = nodes.iter().filter_map(node).collect();
    (!values.is_empty()).then(|| median(&values))
}

/// Shims of a swarm with 50 tasks, on average.
fn shim(measured: &Value, kind: &str) -> Option<f64> {
    let processes = measured.pointer("/mem/t50/n4/procs")?.as_object()?;
    // The kernel cuts names of programs at 15 characters.
    let (_, shims) = processes.iter().find(|(name, _)| name.starts_with("containerd-shim"))?;
    Some(shims.get(kind)?.as_f64()? * MIB / shims.get("n")?.as_f64()?)
}

/// One TCP stream of iperf3, in Gbit/s.
fn throughput(measured: &Value, path: &str) -> Option<f64> {
    medians(measured, &format!("/overlay/{path}/tcp1"), "")
}

/// Programs together, in MB, from where Debian has them.
fn size(programs: &[&str]) -> Option<f64> {
    let size = |name: &&str| {
        let found = ["/usr/bin", "/usr/sbin"]
            .iter()
            .find_map(|dir| fs::metadata(Path::new(dir).join(name)).ok());
        found.map(|metadata| metadata.len() as f64 / 1e6)
    };
    programs.iter().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_found_under_their_names() {
        let node = json!({"procs": {
            "dockerd": {"n": 1, "rss_mb": 100.0}, "containerd": {"n": 1, "rss_mb": 40.0},
            "containerd-shim": {"n": 4, "rss_mb": 50.0},
        }});
        let measured = json!({
            "create": {"vip50": [{"running": 8.0}, {"running": 7.0}, {"running": null}]},
            "scale": [{"1->20": {"done": 3.5}}],
            "writes": {"leader-c1": {"create": [{"ops": 489.0}]}},
            "mem": {"idle": {"n1": node, "n4": node}, "t50": {"n4": node}},
            "overlay": {"overlay": {"tcp1": [12.0]}, "veth": {"tcp1": [16.0]}},
        });
        let value = |name: &str| value_of(&measured, name);
        assert_eq!(value("service create --replicas 50"), Some(7.5));
        assert_eq!(value("service scale 1 -> 20"), Some(3.5));
        assert_eq!(value("writes, clients: 1"), Some(489.0));
        assert_eq!(value("worker RSS, idle"), Some(140.0 * MIB));
        assert_eq!(value("shim RSS, idle"), Some(12.5 * MIB));
        assert_eq!(value("throughput, overlay / plain veth"), Some(0.75));
        assert_eq!(value("writes, clients: 10"), None);
        assert_eq!(value("DNS queries, 16 at once"), None);
    }
}
