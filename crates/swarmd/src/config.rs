//! What a node knows of itself over restarts: `node.json` in its state directory, beside its
//! certificate.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use swarm_model::ManagerAddress;

use crate::vault::Vault;

const FILE: &str = "node.json";
const PKI: &str = "pki";
const RAFT: &str = "raft";

/// A node of a swarm, as it was set up by `init` or `join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeConfig {
    /// Where other nodes reach it, `host:port`.
    pub(crate) advertise_addr: String,
    /// Where its gRPC listens, `host:port`.
    pub(crate) listen_addr: String,
    /// The source of its VXLAN packets.
    pub(crate) data_path_addr: IpAddr,
    /// The interface that has it, or had it when the node was set up: where to look for the next one.
    #[serde(default)]
    pub(crate) interface: Option<String>,
    /// The UDP port of VXLAN.
    pub(crate) data_path_port: u16,
    /// Its id in Raft, if it is a manager.
    pub(crate) raft_id: Option<u64>,
    /// Where managers were when it joined.
    pub(crate) managers: Vec<ManagerAddress>,
    /// It is the only manager left by Raft, and the swarm's state is yet to say so.
    #[serde(default)]
    pub(crate) takes_over: bool,
}

/// The files of a node in its state directory.
#[derive(Clone)]
pub(crate) struct NodeFiles {
    dir: PathBuf,
    vault: Arc<Vault>,
}

impl NodeFiles {
    pub(crate) fn new(dir: &Path) -> NodeFiles {
        let vault = Arc::new(Vault::new(dir.join(RAFT), dir.join(PKI)));
        NodeFiles { dir: dir.to_owned(), vault }
    }

    /// The directory of certificates.
    pub(crate) fn pki(&self) -> PathBuf {
        self.dir.join(PKI)
    }

    /// The directory of Raft.
    pub(crate) fn raft(&self) -> PathBuf {
        self.dir.join(RAFT)
    }

    /// What of them is secret.
    pub(crate) fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// The configuration, if the node is part of a swarm.
    pub(crate) fn load(&self) -> Result<Option<NodeConfig>> {
        let path = self.dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                let config = serde_json::from_slice(&bytes);
                config.map(Some).with_context(|| format!("cannot read {}", path.display()))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the configuration: all of it or nothing, also over a loss of power.
    pub(crate) fn save(&self, config: &NodeConfig) -> Result<()> {
        let path = self.dir.join(FILE);
        let write = || swarm_durable::replace(&path, &serde_json::to_vec_pretty(config)?, 0o644);
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whether there is anything of a node, whole or not.
    pub(crate) fn is_of_a_node(&self) -> bool {
        [self.dir.join(FILE), self.pki(), self.raft()].iter().any(|path| path.exists())
    }

    /// Whether there is what a manager of this node wrote.
    pub(crate) fn has_raft(&self) -> bool {
        self.raft().join("log").exists()
    }

    /// Removes what a former manager on this node left.
    pub(crate) fn forget_raft(&self) -> Result<()> {
        self.vault.close();
        remove(&self.raft())
    }

    /// Removes all that makes this host a node. Images stay.
    pub(crate) fn forget(&self) -> Result<()> {
        self.vault.close();
        // The configuration goes first: without it the rest means nothing.
        remove(&self.dir.join(FILE))?;
        self.sync()?;
        let files = ["view.bin", "ipsec.json"].map(|file| self.dir.join(file));
        let mut paths = files.into_iter().chain([self.pki(), self.raft()]);
        paths.try_for_each(|path| remove(&path))?;
        self.sync()
    }

    /// After a loss of power, too, there is what is there now.
    fn sync(&self) -> Result<()> {
        swarm_durable::sync_folder(&self.dir)
            .with_context(|| format!("cannot sync {}", self.dir.display()))
    }
}

/// Removes a file or a directory, if it is there.
fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
