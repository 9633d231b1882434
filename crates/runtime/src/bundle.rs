//! The files of one container. `<run_dir>/<id>` (the bundle, best on tmpfs) holds what daemon and shim tell each other;
//! `<state_dir>/<id>` holds what may grow: the writable layer and the logs.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::{FileContext, RuntimeError};
use crate::process::ProcessId;
use crate::spec::{ContainerSpec, Exit};

/// All the shim needs, written by the daemon before it starts the shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) spec: ContainerSpec,
    pub(crate) cgroup: Cgroup,
    /// `<state_dir>/<id>`.
    pub(crate) data: PathBuf,
    pub(crate) log_limits: LogLimits,
}

/// How much of a container's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogLimits {
    /// Bytes per file.
    pub(crate) file_size: u64,
    /// Files kept.
    pub(crate) files: u64,
}

/// Written by the shim when the command runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunState {
    pub(crate) init: ProcessId,
    pub(crate) started_at: SystemTime,
}

/// Paths of one container's files.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// `<run_dir>/<id>`.
    pub(crate) dir: PathBuf,
    /// `<state_dir>/<id>`.
    pub(crate) data: PathBuf,
}

impl Bundle {
    pub(crate) fn new(run_dir: &Path, state_dir: &Path, id: &str) -> Self {
        Self { dir: run_dir.join(id), data: state_dir.join(id) }
    }

    /// Makes sure that the container is known to have been here even after a loss of power.
    pub(crate) fn sync(&self) -> Result<(), RuntimeError> {
        let Some(parent) = self.data.parent() else { return Ok(()) };
        swarm_durable::sync_folder(parent).at("sync", parent)
    }

    /// Makes the directories and writes what the shim and the container read.
    pub(crate) fn create(&self, manifest: &Manifest) -> Result<(), RuntimeError> {
        for dir in [&self.dir, &self.data] {
            make_dir(dir, 0o700)?;
        }
        for dir in [self.rootfs(), self.upper(), self.work(), self.logs()] {
            make_dir(&dir, 0o755)?;
        }
        let spec = &manifest.spec;
        for (name, content) in [
            ("hosts", spec.hosts.as_str()),
            ("resolv.conf", spec.resolv_conf.as_str()),
            ("hostname", &format!("{}\n", spec.effective_hostname())),
        ] {
            let path = self.dir.join(name);
            fs::write(&path, content).at("write", &path)?;
            // Whatever umask the daemon has: every user of the container reads these.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
                .at("set the mode of", &path)?;
        }
        write_json(&self.manifest(), manifest)
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.dir.join("manifest.json")
    }

    /// Locked by the shim as long as it lives; holds its [`ProcessId`].
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// A [`RunState`], once the command runs.
    pub(crate) fn run_state(&self) -> PathBuf {
        self.dir.join("running.json")
    }

    /// An [`Exit`], once it has ended.
    pub(crate) fn exit(&self) -> PathBuf {
        self.dir.join("exit.json")
    }

    /// Of the daemon's user: see [`crate::Runtime::note`].
    fn note(&self) -> PathBuf {
        self.dir.join("note")
    }

    pub(crate) fn write_note(&self, note: &[u8]) -> Result<(), RuntimeError> {
        let path = self.note();
        swarm_durable::replace_unsynced(&path, note, 0o600).at("write", &path)
    }

    pub(crate) fn read_note(&self) -> Result<Option<Vec<u8>>, RuntimeError> {
        let path = self.note();
        match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some).at("read", &path),
        }
    }

    /// What the shim says when it should not say anything.
    pub(crate) fn shim_log(&self) -> PathBuf {
        self.dir.join("shim.log")
    }

    /// Mount point of the container's root; mounted in no namespace but the container's.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.data.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.data.join("work")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// Removes every file.
    pub(crate) fn remove(&self) -> Result<(), RuntimeError> {
        for dir in [&self.data, &self.dir] {
            match fs::remove_dir_all(dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).at("remove", dir),
                _ => {}
            }
        }
        Ok(())
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), RuntimeError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).at("make directory", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)
}

/// Writes `value` so that readers see either the old file or the whole new one. Not synced: where bundles are is empty
/// after a loss of power.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), RuntimeError> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::from).at("encode", path)?;
    swarm_durable::replace_unsynced(path, &bytes, 0o600).at("write", path)
}

/// Reads a file written by [`write_json`]; none if there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RuntimeError> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from).at("decode", path)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("read", path),
    }
}

/// Writes how the container ended.
pub(crate) fn write_exit(bundle: &Bundle, exit: &Exit) -> Result<(), RuntimeError> {
    write_json(&bundle.exit(), exit)
}
