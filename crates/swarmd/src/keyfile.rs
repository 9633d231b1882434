//! The key that a manager's Raft files are encrypted with: a file beside them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use swarm_raft::SealKey;

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    /// Base64.
    key: String,
}

/// The file.
pub(crate) struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// Of the manager whose Raft files are in `dir`.
    pub(crate) fn new(dir: &Path) -> KeyFile {
        KeyFile { path: dir.join("key") }
    }

    /// The key; made for a manager that has none yet.
    pub(crate) fn open_or_make(&self) -> Result<SealKey> {
        let shown = self.path.display();
        match fs::read(&self.path) {
            Ok(bytes) => self.parse(&bytes).with_context(|| format!("cannot use {shown}")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let dir = self.path.parent().context("the key has no folder")?;
                if swarm_raft::is_sealed(dir)? {
                    bail!(
                        "{shown} is missing: the manager's log cannot be read without the key in it; \
                         restore the file, or remove this node from the swarm and let it join again"
                    );
                }
                let bytes: [u8; 32] = rand::random();
                let content = Content { key: STANDARD.encode(bytes) };
                self.write(&content).with_context(|| format!("cannot write {shown}"))?;
                Ok(self.seal_key(bytes))
            }
            Err(e) => Err(e).with_context(|| format!("cannot read {shown}")),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<SealKey> {
        let content: Content = serde_json::from_slice(bytes).context("it is damaged")?;
        let key = STANDARD.decode(content.key).context("its key is damaged")?;
        let key = key.try_into().map_err(|_| anyhow!("its key does not have 32 bytes"))?;
        Ok(self.seal_key(key))
    }

    fn seal_key(&self, bytes: [u8; 32]) -> SealKey {
        SealKey::new(bytes, self.path.display().to_string())
    }

    /// All of it or nothing, also over a loss of power.
    fn write(&self, content: &Content) -> io::Result<()> {
        let new = self.path.with_extension("new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(content)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}
