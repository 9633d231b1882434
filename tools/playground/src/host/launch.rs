//! A host seen from the machine: boot it, find its init, cut its power.

use super::{HOST_COMMAND, HostSpec, control};
use crate::cgroup::Group;
use crate::error::IoContext;
use crate::lan::{Cut, Lan};
use crate::process::ProcessId;
use crate::record::Record;
use crate::wait::wait_until;
use crate::{Error, Result};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const BOOT_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of a log goes into an error.
const LOG_TAIL_LINES: usize = 20;

/// Boots host `index`: namespaces, init, interface, `swarmd`. It must be off.
pub(crate) fn boot(record: &Record, index: usize) -> Result<()> {
    let spec = spec_of(record, index)?;
    let group = record.place().node_cgroup(&spec.hostname)?;
    group.create()?;
    spawn_init(record, &spec)?;
    let init = read_init(&spec.init_file)?
        .ok_or_else(|| boot_error(&spec, "its init is not to be found"))?;
    Lan::of(&record.place()).plug(record, index, init.pid)?;
    start_daemon(&spec, init)
}

/// Runs `host boot`, which ends as soon as the host's init runs.
fn spawn_init(record: &Record, spec: &HostSpec) -> Result<()> {
    let run_dir = node_run_dir(record, &spec.hostname);
    for dir in [&run_dir, &spec.state_dir()] {
        fs::create_dir_all(dir).io("create", dir.display())?;
    }
    for stale in [&spec.control_socket, &spec.init_file] {
        remove_file(stale)?;
    }
    let spec_file = run_dir.join("host.json");
    let json = serde_json::to_vec_pretty(spec).map_err(std::io::Error::from);
    fs::write(&spec_file, json.io("encode", spec_file.display())?)
        .io("write", spec_file.display())?;
    let log_file = init_log(spec);
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_file)
        .io("open", log_file.display())?;
    let err = log.try_clone().io("open", log_file.display())?;
    let status = Command::new(&record.playground)
        .args([HOST_COMMAND, "boot"])
        .arg(&spec_file)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(err)
        .status()
        .io("run", record.playground.display())?;
    if status.success() {
        return Ok(());
    }
    Err(boot_error(spec, &format!("{HOST_COMMAND} boot failed ({status})")))
}

/// Asks init to start `swarmd` as soon as it listens.
fn start_daemon(spec: &HostSpec, init: ProcessId) -> Result<()> {
    let mut refused = None;
    let booted = wait_until("boot of a host", BOOT_TIMEOUT, || {
        if !init.is_alive() {
            refused = Some("its init ended".to_owned());
            return Ok(());
        }
        match control::request(&spec.hostname, &spec.control_socket, control::START_DAEMON) {
            Ok(_) => Ok(()),
            Err(error @ Error::Init { .. }) => {
                refused = Some(error.to_string());
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    });
    match (booted, refused) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(reason)) => Err(boot_error(spec, &reason)),
        (Err(error), _) => Err(boot_error(spec, &error.to_string())),
    }
}

/// The living init of a host; `None`: the host is off.
pub(crate) fn init_process(record: &Record, hostname: &str) -> Result<Option<ProcessId>> {
    let init = read_init(&init_file(record, hostname))?;
    Ok(init.filter(|process| process.is_alive()))
}

fn read_init(file: &Path) -> Result<Option<ProcessId>> {
    match fs::read(file) {
        Ok(json) => {
            serde_json::from_slice(&json).map_err(std::io::Error::from).io("decode", file.display())
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).io("read", file.display()),
    }
}

/// Cuts the power: no frame leaves any more, then every process ends without a chance to say so.
/// Also clears what a host leaves that lost its power by other hands.
pub(crate) fn power_off(record: &Record, index: usize) -> Result<()> {
    let hostname = &record.nodes[index].hostname;
    let lan = Lan::of(&record.place());
    lan.cut(index, Cut::Both)?;
    if let Some(init) = init_process(record, hostname)? {
        init.kill()?;
    }
    let group: Group = record.place().node_cgroup(hostname)?;
    group.kill_all()?;
    lan.unplug(index)?;
    group.remove_children()?;
    lan.heal(index)
}

fn spec_of(record: &Record, index: usize) -> Result<HostSpec> {
    let place = record.place();
    let hostname = record.nodes[index].hostname.clone();
    let group = place.node_cgroup(&hostname)?;
    Ok(HostSpec {
        hosts: record.nodes.iter().map(|node| (node.hostname.clone(), node.address)).collect(),
        swarmd: record.swarmd.clone(),
        insecure_registries: record.insecure_registries.clone(),
        cgroup_root_files: group.root_files(),
        cgroup_member_files: group.member_files(),
        control_socket: control_socket(record, &hostname),
        init_file: init_file(record, &hostname),
        disk: place.disk_dir().join(&hostname),
        hostname,
    })
}

fn node_run_dir(record: &Record, hostname: &str) -> PathBuf {
    record.place().run_dir().join(hostname)
}

fn init_file(record: &Record, hostname: &str) -> PathBuf {
    node_run_dir(record, hostname).join("init.json")
}

pub(crate) fn control_socket(record: &Record, hostname: &str) -> PathBuf {
    node_run_dir(record, hostname).join("control.sock")
}

fn init_log(spec: &HostSpec) -> PathBuf {
    spec.disk.join("init.log")
}

fn boot_error(spec: &HostSpec, reason: &str) -> Error {
    Error::Boot {
        node: spec.hostname.clone(),
        reason: reason.to_owned(),
        log: log_tail(&init_log(spec)),
    }
}

/// The last lines of a log, for an error; a log that cannot be read says so itself.
pub(crate) fn log_tail(file: &Path) -> String {
    match fs::read(file) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
        }
        Err(error) => format!("(cannot read {}: {error})", file.display()),
    }
}

fn remove_file(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).io("remove", file.display()),
        _ => Ok(()),
    }
}
