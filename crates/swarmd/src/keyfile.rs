//! The file with the key that a manager's Raft files are encrypted with, beside them. The key is in clear, or sealed
//! with the swarm's unlock key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use swarm_pki::UnlockKey;
use swarm_raft::SealKey;

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    /// Base64; sealed if `locked`.
    key: String,
    locked: bool,
    /// The revision of the swarm's state that had it locked, or no more; 0 if none had.
    revision: u64,
}

/// A key as it was found.
pub(crate) enum Found {
    /// In clear.
    Open(SealKey),
    /// Sealed.
    Locked(Vec<u8>),
}

/// The file.
pub(crate) struct KeyFile {
    path: PathBuf,
}

/// What a key is sealed for: the revision is authenticated along.
fn place(revision: u64) -> Vec<u8> {
    format!("key of raft as of {revision}").into_bytes()
}

fn lock_of(key: &UnlockKey) -> SealKey {
    SealKey::new(*key.as_bytes(), "the unlock key")
}

impl KeyFile {
    /// Of the manager whose Raft files are in `dir`.
    pub(crate) fn new(dir: &Path) -> KeyFile {
        KeyFile { path: dir.join("key") }
    }

    /// The key and the revision, if there is one.
    pub(crate) fn read(&self) -> Result<Option<(Found, u64)>> {
        let shown = self.path.display();
        match fs::read(&self.path) {
            Ok(bytes) => {
                self.parse(&bytes).map(Some).with_context(|| format!("cannot use {shown}"))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {shown}")),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<(Found, u64)> {
        let content: Content = serde_json::from_slice(bytes).context("it is damaged")?;
        let key = STANDARD.decode(content.key).context("its key is damaged")?;
        let found = if content.locked { Found::Locked(key) } else { Found::Open(self.key(&key)?) };
        Ok((found, content.revision))
    }

    fn key(&self, bytes: &[u8]) -> Result<SealKey> {
        let bytes: [u8; 32] =
            bytes.try_into().map_err(|_| anyhow!("its key does not have 32 bytes"))?;
        Ok(SealKey::new(bytes, self.path.display().to_string()))
    }

    /// Opens a locked key; none if it was locked with another one.
    pub(crate) fn unlock(
        &self,
        sealed: &[u8],
        revision: u64,
        key: &UnlockKey,
    ) -> Result<Option<SealKey>> {
        let opened = lock_of(key).open(&place(revision), sealed);
        opened.ok().map(|bytes| self.key(&bytes)).transpose()
    }

    /// Makes a key, in clear.
    pub(crate) fn make(&self) -> Result<SealKey> {
        let key = self.key(&rand::random::<[u8; 32]>())?;
        self.write(&key, None, 0)?;
        Ok(key)
    }

    /// Writes a key, locked with `lock` if there is one.
    pub(crate) fn write(
        &self,
        key: &SealKey,
        lock: Option<&UnlockKey>,
        revision: u64,
    ) -> Result<()> {
        let kept = match lock {
            Some(lock) => STANDARD.encode(lock_of(lock).seal(&place(revision), key.bytes())),
            None => STANDARD.encode(key.bytes()),
        };
        let content = Content { key: kept, locked: lock.is_some(), revision };
        let write = || swarm_durable::replace(&self.path, &serde_json::to_vec(&content)?, 0o600);
        write().with_context(|| format!("cannot write {}", self.path.display()))
    }
}
