//! What is written down about a playground, and where: the only thing that later commands know about it.

use crate::cgroup::Group;
use crate::error::IoContext;
use crate::options::validate_name;
use crate::{Error, Result};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Volatile state: gone with a reboot of the machine, as the hosts are.
pub(crate) const RUN_ROOT: &str = "/run/swarm-playground";
/// The hosts' disks.
const DISK_ROOT: &str = "/var/lib/swarm-playground";
const CGROUP_ROOT: &str = "swarm-playground";

/// Everything about a playground that derives from its name alone, so that it can be removed when nothing else is known.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
}

impl Place {
    pub(crate) fn new(name: &str) -> Result<Self> {
        validate_name(name)?;
        Ok(Self { name: name.to_owned() })
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        Path::new(RUN_ROOT).join(&self.name)
    }

    pub(crate) fn disk_dir(&self) -> PathBuf {
        Path::new(DISK_ROOT).join(&self.name)
    }

    pub(crate) fn record_file(&self) -> PathBuf {
        self.run_dir().join("playground.json")
    }

    pub(crate) fn cgroup(&self) -> Result<Group> {
        Group::new(Path::new(CGROUP_ROOT).join(&self.name))
    }

    /// Takes away the directories that all playgrounds share, once the last has gone; to be called under the lock.
    pub(crate) fn remove_shared() -> Result<()> {
        if !names()?.is_empty() {
            return Ok(());
        }
        // A disk may be there of a playground that ended with the machine; then the directory stays.
        let _ = std::fs::remove_dir(DISK_ROOT);
        Group::new(CGROUP_ROOT)?.remove_if_empty();
        Ok(())
    }

    pub(crate) fn node_cgroup(&self, hostname: &str) -> Result<Group> {
        Group::new(Path::new(CGROUP_ROOT).join(&self.name).join(hostname))
    }
}

/// The record of a playground, constant while it is up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) subnet: Ipv4Net,
    /// The machine's address in the playground.
    pub(crate) gateway: Ipv4Addr,
    pub(crate) nodes: Vec<NodeRecord>,
    pub(crate) managers: usize,
    pub(crate) swarmd: PathBuf,
    pub(crate) swarmctl: PathBuf,
    /// The program that is the hosts' init.
    pub(crate) playground: PathBuf,
    pub(crate) insecure_registries: Vec<String>,
}

/// One host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) hostname: String,
    pub(crate) address: Ipv4Addr,
}

impl Record {
    pub(crate) fn place(&self) -> Place {
        Place { name: self.name.clone() }
    }

    pub(crate) fn save(&self) -> Result<()> {
        let file = self.place().record_file();
        let json = serde_json::to_vec_pretty(self).map_err(std::io::Error::from);
        // Others list the playgrounds meanwhile.
        swarm_durable::replace_unsynced(&file, &json.io("encode", file.display())?, 0o644)
            .io("write", file.display())
    }

    pub(crate) fn load(name: &str) -> Result<Self> {
        let file = Place::new(name)?.record_file();
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(Error::NotUp(name.to_owned())),
            Err(e) => return Err(e).io("read", file.display()),
        };
        serde_json::from_slice(&text).map_err(std::io::Error::from).io("decode", file.display())
    }
}

/// Names of the playgrounds that are there, in order.
pub(crate) fn names() -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(RUN_ROOT) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).io("read", RUN_ROOT),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|e| e.path().join("playground.json").is_file())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}
