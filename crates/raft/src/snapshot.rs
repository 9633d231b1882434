//! The snapshot file: one, checksummed, encrypted, replaced atomically.
//!
//! `magic (8) | metadata length (4, LE) | metadata (MessagePack) | state | crc32 (4, LE)`; the CRC-32
//! (IEEE) covers all before it. These bytes travel to followers; on disk they are in a sealed file, with each
//! manager's own key. A new snapshot is written to a temporary file, synced and renamed over the old one, then the
//! folder is synced.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use swarm_seal::SealKey;

use crate::{
    sealed_file::{SealedFile, SealedWriter},
    types::{Snapshot, SnapshotMeta},
};

const MAGIC: &[u8; 8] = b"SWRMRFT1";
const NAME: &str = "snapshot";
const TEMPORARY: &str = "snapshot.tmp-";
const CRC: u64 = 4;
const MAX_META: u32 = 1 << 20;
/// Bytes read or copied at once.
const PIECE: usize = 256 * 1024;

/// A complete snapshot file, open for reading; it stays readable when a newer one takes its name.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    file: SealedFile,
    /// Where the state begins.
    state: u64,
    /// Set until the file is the current snapshot.
    temporary: Option<Arc<Temporary>>,
}

/// Deletes an abandoned file.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            // It was renamed to be the current snapshot.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %self.0.display(), %error, "cannot remove abandoned snapshot")
            }
            Ok(()) => {}
        }
    }
}

impl SnapshotFile {
    /// Its length, in bytes, as it travels.
    pub(crate) fn len(&self) -> u64 {
        self.file.len()
    }

    /// Reads up to `max` bytes at `offset`; fewer only at the end.
    pub(crate) fn read_at(&self, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        self.file.read_at(offset, max)
    }

    /// The state machine's part.
    pub(crate) fn state(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len() - CRC - self.state).map_err(io::Error::other)?;
        self.read_at(self.state, len)
    }
}

/// A snapshot being received.
pub(crate) struct Incoming {
    file: SealedWriter,
    key: SealKey,
    temporary: Temporary,
    size: u64,
    received: u64,
}

impl Incoming {
    /// Appends a chunk; more than was announced is an error. Blocks.
    pub(crate) fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.received += chunk.len() as u64;
        if self.received > self.size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "snapshot is longer than announced",
            ));
        }
        self.file.write_all(chunk)
    }

    /// Verifies that the file is complete and sound. Blocks.
    pub(crate) fn finish(self) -> io::Result<Snapshot> {
        if self.received != self.size {
            let text = format!("snapshot ends after {} of {} bytes", self.received, self.size);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.file.finish()?;
        let path = self.temporary.0.clone();
        let (meta, mut snapshot) = verify(&path, &self.key)?;
        snapshot.temporary = Some(Arc::new(self.temporary));
        Ok(Snapshot { meta, snapshot })
    }
}

/// The folder with the current snapshot.
pub(crate) struct SnapshotStore {
    dir: PathBuf,
    key: SealKey,
    current: Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
    /// Held while the current file is replaced, which may take a while.
    publishing: Mutex<()>,
    sequence: AtomicU64,
}

impl SnapshotStore {
    /// Opens the folder, verifies the snapshot in it, deletes unfinished ones. Blocks.
    pub(crate) fn open(dir: &Path, key: &SealKey) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                std::fs::remove_file(entry.path())?;
            }
        }
        let this = Self {
            dir: dir.to_owned(),
            key: key.clone(),
            current: Mutex::new(None),
            publishing: Mutex::new(()),
            sequence: AtomicU64::new(0),
        };
        let path = dir.join(NAME);
        if path.exists() {
            this.seal(&path)?;
            *this.current.lock().expect("no holder panics") = Some(verify(&path, key)?);
        }
        Ok(this)
    }

    /// Encrypts a snapshot that an older version wrote in clear.
    fn seal(&self, path: &Path) -> io::Result<()> {
        let mut clear = File::open(path)?;
        let mut magic = [0; MAGIC.len()];
        if clear.read(&mut magic)? < magic.len() || magic != *MAGIC {
            return Ok(());
        }
        let mut incoming = self.receive(clear.metadata()?.len())?;
        incoming.write(&magic)?;
        let mut piece = vec![0; PIECE];
        loop {
            match clear.read(&mut piece)? {
                0 => break,
                length => incoming.write(&piece[..length])?,
            }
        }
        // What is damaged stays as it is, for whoever may repair it.
        let sealed = incoming.finish().map_err(|error| corrupt(path, &error))?;
        self.publish(sealed).map(drop)
    }

    /// The current snapshot.
    pub(crate) fn current(&self) -> Option<Snapshot> {
        let current = self.current.lock().expect("no holder panics");
        current.clone().map(|(meta, snapshot)| Snapshot { meta, snapshot })
    }

    /// Writes a snapshot of the state and makes it the current one. Blocks.
    pub(crate) fn save(&self, meta: SnapshotMeta, state: &[u8]) -> io::Result<Snapshot> {
        let (file, temporary) = self.temporary()?;
        let encoded = rmp_serde::to_vec(&meta).map_err(io::Error::other)?;
        let file = SealedWriter::new(file, self.key.clone())?;
        let mut out = Summed { file, crc: crc32fast::Hasher::new() };
        out.write_all(MAGIC)?;
        out.write_all(&u32::try_from(encoded.len()).map_err(io::Error::other)?.to_le_bytes())?;
        out.write_all(&encoded)?;
        out.write_all(state)?;
        let Summed { mut file, crc } = out;
        file.write_all(&crc.finalize().to_le_bytes())?;
        file.finish()?;
        let snapshot = SnapshotFile {
            file: reopen(&temporary.0, &self.key)?,
            state: (MAGIC.len() + 4 + encoded.len()) as u64,
            temporary: Some(Arc::new(temporary)),
        };
        self.publish(Snapshot { meta, snapshot })
    }

    /// Makes a verified, synced file the current snapshot, unless there is a newer one. Blocks.
    pub(crate) fn publish(&self, new: Snapshot) -> io::Result<Snapshot> {
        let mut new = if new.snapshot.temporary.is_some() || self.holds(&new.snapshot) {
            new
        } else {
            self.copy(&new)?
        };
        let _turn = self.publishing.lock().expect("no holder panics");
        if let Some(temporary) = new.snapshot.temporary.take() {
            let newer = |now: &Snapshot| now.meta.last_log_id > new.meta.last_log_id;
            if self.current().as_ref().is_some_and(newer) {
                return Ok(new);
            }
            std::fs::rename(&temporary.0, self.dir.join(NAME))?;
            File::open(&self.dir)?.sync_all()?;
            let now = (new.meta.clone(), new.snapshot.clone());
            *self.current.lock().expect("no holder panics") = Some(now);
        }
        Ok(new)
    }

    fn holds(&self, snapshot: &SnapshotFile) -> bool {
        let current = self.current.lock().expect("no holder panics");
        current.as_ref().is_some_and(|(_, current)| current.file.is(&snapshot.file))
    }

    /// Copies a snapshot of another store.
    fn copy(&self, other: &Snapshot) -> io::Result<Snapshot> {
        let mut incoming = self.receive(other.snapshot.len())?;
        let mut offset = 0;
        while offset < other.snapshot.len() {
            let chunk = other.snapshot.read_at(offset, PIECE)?;
            incoming.write(&chunk)?;
            offset += chunk.len() as u64;
        }
        incoming.finish()
    }

    /// Prepares to receive a snapshot file of `size` bytes. Blocks.
    pub(crate) fn receive(&self, size: u64) -> io::Result<Incoming> {
        let (file, temporary) = self.temporary()?;
        let file = SealedWriter::new(file, self.key.clone())?;
        Ok(Incoming { file, key: self.key.clone(), temporary, size, received: 0 })
    }

    fn temporary(&self) -> io::Result<(File, Temporary)> {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{TEMPORARY}{number}"));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((file, Temporary(path)))
    }
}

/// A writer that keeps the checksum.
struct Summed {
    file: SealedWriter,
    crc: crc32fast::Hasher,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn corrupt(path: &Path, reason: &dyn std::fmt::Display) -> io::Error {
    let text = format!("snapshot {} is corrupt: {reason}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn reopen(path: &Path, key: &SealKey) -> io::Result<SealedFile> {
    SealedFile::open(path, key.clone())?.ok_or_else(|| corrupt(path, &"no snapshot header"))
}

/// Reads a snapshot file through, and its metadata.
fn verify(path: &Path, key: &SealKey) -> io::Result<(SnapshotMeta, SnapshotFile)> {
    let file = reopen(path, key)?;
    let len = file.len();
    let head = (MAGIC.len() + 4) as u64;
    if len < head + CRC {
        return Err(corrupt(path, &format!("{len} bytes are too few")));
    }
    let start = file.read_at(0, MAGIC.len() + 4)?;
    let meta_len = u32::from_le_bytes(start[8..].try_into().expect("four bytes"));
    if &start[..8] != MAGIC || meta_len > MAX_META || head + u64::from(meta_len) + CRC > len {
        return Err(corrupt(path, &"no snapshot header"));
    }
    let expected = file.read_at(len - CRC, CRC as usize)?;
    let expected = u32::from_le_bytes(expected[..].try_into().expect("four bytes"));
    let found = checksum(&file, len - CRC)?;
    if expected != found {
        let text = format!("checksum is {found:08x}, expected {expected:08x}");
        return Err(corrupt(path, &text));
    }
    let meta = file.read_at(head, meta_len as usize)?;
    let meta = rmp_serde::from_slice(&meta).map_err(|error| corrupt(path, &error))?;
    let state = head + u64::from(meta_len);
    Ok((meta, SnapshotFile { file, state, temporary: None }))
}

fn checksum(file: &SealedFile, len: u64) -> io::Result<u32> {
    let mut crc = crc32fast::Hasher::new();
    let mut offset = 0;
    while offset < len {
        let left = usize::try_from(len - offset).unwrap_or(usize::MAX);
        let piece = file.read_at(offset, left.min(PIECE))?;
        crc.update(&piece);
        offset += piece.len() as u64;
    }
    Ok(crc.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{StoredMembership, log_id};

    fn key() -> SealKey {
        SealKey::new([1; 32], "a test")
    }

    fn meta() -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: Some(log_id(1, 1, 7)),
            last_membership: StoredMembership::default(),
        }
    }

    #[test]
    fn what_an_older_version_wrote_in_clear_is_read_and_encrypted() {
        let dir = tempfile::tempdir().unwrap();
        let state: Vec<u8> = b"a secret ".repeat(50_000);
        let saved = SnapshotStore::open(dir.path(), &key()).unwrap().save(meta(), &state).unwrap();
        // What travels is what an older version has on disk.
        let clear = saved.snapshot.read_at(0, usize::MAX).unwrap();
        let path = dir.path().join(NAME);
        std::fs::write(&path, &clear).unwrap();
        for _ in 0..2 {
            let store = SnapshotStore::open(dir.path(), &key()).unwrap();
            let current = store.current().unwrap();
            assert_eq!(current.meta, meta());
            assert!(current.snapshot.state().unwrap() == state);
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(8).any(|window| window == b"a secret"));
        }
        let wrong = SnapshotStore::open(dir.path(), &SealKey::new([2; 32], "elsewhere"));
        let wrong = wrong.err().unwrap().to_string();
        assert!(
            wrong.contains("snapshot cannot be decrypted with the key in elsewhere"),
            "{wrong}"
        );
        let mut damaged = clear;
        damaged[1000] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let error = SnapshotStore::open(dir.path(), &key()).err().unwrap().to_string();
        assert!(error.contains("snapshot is corrupt"), "{error}");
        assert!(std::fs::read(&path).unwrap() == damaged);
    }
}
