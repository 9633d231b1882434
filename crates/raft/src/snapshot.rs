//! The snapshot file: one, checksummed, replaced atomically.
//!
//! `magic (8) | metadata length (4, LE) | metadata (MessagePack) | state | crc32 (4, LE)`; the CRC-32
//! (IEEE) covers all before it. The same bytes travel to followers. A new snapshot is written to a
//! temporary file, synced and renamed over the old one, then the folder is synced.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::types::{Snapshot, SnapshotMeta};

const MAGIC: &[u8; 8] = b"SWRMRFT1";
const NAME: &str = "snapshot";
const TEMPORARY: &str = "snapshot.tmp-";
const CRC: u64 = 4;
const MAX_META: u32 = 1 << 20;

/// A complete snapshot file, open for reading; it stays readable when a newer one takes its name.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    file: Arc<File>,
    len: u64,
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
    /// Length of the file, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Reads up to `max` bytes at `offset`; fewer only at the end.
    pub(crate) fn read_at(&self, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let rest = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; max.min(rest)];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// The state machine's part.
    pub(crate) fn state(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len - CRC - self.state).map_err(io::Error::other)?;
        self.read_at(self.state, len)
    }
}

/// A snapshot being received.
pub(crate) struct Incoming {
    file: File,
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
        self.file.sync_all()?;
        let path = self.temporary.0.clone();
        let (meta, mut snapshot) = verify(&path)?;
        snapshot.temporary = Some(Arc::new(self.temporary));
        Ok(Snapshot { meta, snapshot })
    }
}

/// The folder with the current snapshot.
pub(crate) struct SnapshotStore {
    dir: PathBuf,
    current: Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
    sequence: AtomicU64,
}

impl SnapshotStore {
    /// Opens the folder, verifies the snapshot in it, deletes unfinished ones. Blocks.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                std::fs::remove_file(entry.path())?;
            }
        }
        let current = match verify(&dir.join(NAME)) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { dir: dir.to_owned(), current: Mutex::new(current), sequence: AtomicU64::new(0) })
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
        let mut out = Summed { file: &file, crc: crc32fast::Hasher::new() };
        out.write_all(MAGIC)?;
        out.write_all(&u32::try_from(encoded.len()).map_err(io::Error::other)?.to_le_bytes())?;
        out.write_all(&encoded)?;
        out.write_all(state)?;
        let crc = out.crc.finalize();
        (&file).write_all(&crc.to_le_bytes())?;
        file.sync_all()?;
        let before = (MAGIC.len() + 4 + encoded.len()) as u64;
        let snapshot = SnapshotFile {
            file: Arc::new(File::open(&temporary.0)?),
            len: before + state.len() as u64 + CRC,
            state: before,
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
        let mut current = self.current.lock().expect("no holder panics");
        if let Some(temporary) = new.snapshot.temporary.take() {
            if current.as_ref().is_some_and(|(meta, _)| meta.last_log_id > new.meta.last_log_id) {
                return Ok(new);
            }
            std::fs::rename(&temporary.0, self.dir.join(NAME))?;
            File::open(&self.dir)?.sync_all()?;
            *current = Some((new.meta.clone(), new.snapshot.clone()));
        }
        Ok(new)
    }

    fn holds(&self, snapshot: &SnapshotFile) -> bool {
        let current = self.current.lock().expect("no holder panics");
        current.as_ref().is_some_and(|(_, current)| Arc::ptr_eq(&current.file, &snapshot.file))
    }

    /// Copies a snapshot of another store.
    fn copy(&self, other: &Snapshot) -> io::Result<Snapshot> {
        let mut incoming = self.receive(other.snapshot.len)?;
        let mut offset = 0;
        while offset < other.snapshot.len {
            let chunk = other.snapshot.read_at(offset, 256 * 1024)?;
            incoming.write(&chunk)?;
            offset += chunk.len() as u64;
        }
        incoming.finish()
    }

    /// Prepares to receive a snapshot file of `size` bytes. Blocks.
    pub(crate) fn receive(&self, size: u64) -> io::Result<Incoming> {
        let (file, temporary) = self.temporary()?;
        Ok(Incoming { file, temporary, size, received: 0 })
    }

    fn temporary(&self) -> io::Result<(File, Temporary)> {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{TEMPORARY}{number}"));
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok((file, Temporary(path)))
    }
}

/// A writer that keeps the checksum.
struct Summed<'a> {
    file: &'a File,
    crc: crc32fast::Hasher,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a snapshot file through, and its metadata.
fn verify(path: &Path) -> io::Result<(SnapshotMeta, SnapshotFile)> {
    let file = File::open(path)?;
    let corrupt = |reason: &dyn std::fmt::Display| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("snapshot {} is corrupt: {reason}", path.display()),
        )
    };
    let len = file.metadata()?.len();
    let head = (MAGIC.len() + 4) as u64;
    if len < head + CRC {
        return Err(corrupt(&format!("{len} bytes are too few")));
    }
    let mut start = [0; 12];
    file.read_exact_at(&mut start, 0)?;
    let meta_len = u32::from_le_bytes(start[8..].try_into().expect("four bytes"));
    if &start[..8] != MAGIC || meta_len > MAX_META || head + u64::from(meta_len) + CRC > len {
        return Err(corrupt(&"no snapshot header"));
    }
    let mut expected = [0; CRC as usize];
    file.read_exact_at(&mut expected, len - CRC)?;
    let (expected, found) = (u32::from_le_bytes(expected), checksum(&file, len - CRC)?);
    if expected != found {
        return Err(corrupt(&format!("checksum is {found:08x}, expected {expected:08x}")));
    }
    let mut meta = vec![0; meta_len as usize];
    file.read_exact_at(&mut meta, head)?;
    let meta = rmp_serde::from_slice(&meta).map_err(|error| corrupt(&error))?;
    let state = head + u64::from(meta_len);
    Ok((meta, SnapshotFile { file: Arc::new(file), len, state, temporary: None }))
}

fn checksum(file: &File, len: u64) -> io::Result<u32> {
    let mut crc = crc32fast::Hasher::new();
    let mut reader = io::BufReader::with_capacity(64 * 1024, file).take(len);
    let mut buf = [0; 16 * 1024];
    loop {
        match reader.read(&mut buf)? {
            0 => return Ok(crc.finalize()),
            n => crc.update(&buf[..n]),
        }
    }
}
