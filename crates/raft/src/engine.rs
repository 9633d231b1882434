//! The storage engine behind the log: the few calls Raft needs, and sled doing them.
//!
//! Everything here blocks; only the storage thread (`writer.rs`) calls it. Another engine takes
//! sled's place by implementing [`Engine`].

use std::{
    fs::{File, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;

use swarm_seal::SealKey;

/// A change to one key: `Some` puts the value, `None` deletes the key.
pub type Change = (Bytes, Option<Bytes>);

/// An ordered map of short keys to values of at most [`MAX_VALUE`] bytes. Errors are those of the system,
/// or [`io::ErrorKind::InvalidData`] for damage.
#[allow(clippy::missing_errors_doc)]
pub trait Engine: Send {
    /// The file that errors are about.
    fn path(&self) -> &Path;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>>;

    /// Calls `visit` with the pairs whose keys are in `from..to`, in order, while it returns true.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()>;

    /// Makes the changes, all or none, visible to later reads. They are durable after [`Engine::sync`].
    fn write(&mut self, changes: Vec<Change>) -> io::Result<()>;

    /// Returns when everything written is on stable storage.
    fn sync(&mut self) -> io::Result<()>;

    /// Gives space back if that is worth while. Called when the front of the log was deleted.
    fn reclaim(&mut self) -> io::Result<()>;
}

/// The unit of sled's file and of its write buffers, in bytes. It holds several buffers at a time.
const SEGMENT: usize = 128 * 1024;

/// sled writes a page above a quarter of a segment to a file of its own, which it never syncs.
/// A leaf has up to 17 values, so values of this size keep pages below that, also when they are sealed.
pub const MAX_VALUE: usize = 1024;

/// sled's page cache, in bytes. The recent log is in memory anyway (`log_store.rs`).
const CACHE: u64 = 1024 * 1024;

/// A database file larger than this, in bytes, is worth compacting when much was deleted from it.
const COMPACT_ABOVE: u64 = 16 * 1024 * 1024;

/// Bytes copied in one batch.
const COPY: usize = 256 * 1024;

/// [`Engine`] on sled 0.34.
///
/// sled reuses the space of a log that is deleted from the front so poorly that its file grows
/// without end. So what is left of it is copied to a new database now and then: generation `n` is in
/// the folder `n`, and the file `current` has the number of the one in force. Values are sealed, each for its
/// key; `current` says so, since older versions did not.
pub(crate) struct SledEngine {
    dir: PathBuf,
    generation: u64,
    key: SealKey,
    database: Database,
}

/// One generation. The order of the fields is that of their drops.
struct Database {
    db: sled::Db,
    file: DatabaseFile,
    path: PathBuf,
    /// None if its values are as an older version wrote them, in clear.
    key: Option<SealKey>,
}

/// The same file as sled's, for the `fdatasync` that sled does not do.
///
/// sled's threads write buffers and let go of the file, and of its lock, a moment after all has been
/// synced and the database dropped; whoever opened it again at once would be refused. So the drop waits.
struct DatabaseFile(File);

/// How long sled's threads may hold a database that was dropped, and how often they are looked for.
const LET_GO: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Drop for DatabaseFile {
    fn drop(&mut self) {
        let deadline = Instant::now() + LET_GO;
        while matches!(self.0.try_lock(), Err(TryLockError::WouldBlock)) {
            if Instant::now() > deadline {
                tracing::warn!("sled does not let go of a raft log that was closed");
                return;
            }
            std::thread::sleep(LOOK_EVERY); // before the lock is tried again
        }
    }
}

impl Database {
    fn open(dir: &Path, key: Option<SealKey>) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join("db");
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE)
            .segment_size(SEGMENT)
            .flush_every_ms(None);
        // sled answers some kinds of damage with a panic; for the caller it is damage all the same.
        let db = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} is corrupt", path.display()))
            })?
            .map_err(|error| named(&path, "open", &error))?;
        // What a killed process wrote may be in the page cache alone.
        let file = File::options().read(true).write(true).open(&path)?;
        file.sync_all()?;
        File::open(dir.join("conf"))?.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Self { db, file: DatabaseFile(file), path, key })
    }

    fn seal(&self, key: &[u8], value: &[u8]) -> sled::IVec {
        debug_assert!(value.len() <= MAX_VALUE);
        match &self.key {
            Some(seal) => seal.seal(key, value).into(),
            None => value.into(),
        }
    }

    fn unseal(&self, key: &[u8], value: &[u8]) -> io::Result<Bytes> {
        match &self.key {
            Some(seal) => seal.open_in(&self.path, key, value).map(Bytes::from),
            None => Ok(Bytes::copy_from_slice(value)),
        }
    }

    fn write(&mut self, mut changes: Vec<Change>) -> io::Result<()> {
        // A batch is a write buffer more, which costs a quarter of the time until a lone entry is durable.
        if changes.len() == 1
            && let Some((key, Some(value))) = changes.pop_if(|(_, value)| value.is_some())
        {
            let inserted = self.db.insert(&key[..], self.seal(&key, &value));
            return inserted.map(drop).map_err(|error| named(&self.path, "write", &error));
        }
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&key[..], self.seal(&key, &value)),
                None => batch.remove(&key[..]),
            }
        }
        self.db.apply_batch(batch).map_err(|error| named(&self.path, "write", &error))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.db.flush().map_err(|error| named(&self.path, "flush", &error))?;
        // sled's flush ends in sync_file_range, which survives a crash but no loss of power.
        self.file.0.sync_data().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot sync {}: {error}", self.path.display()))
        })
    }

    fn copy_to(&self, other: &mut Self) -> io::Result<()> {
        let mut changes: Vec<Change> = Vec::new();
        let mut bytes = 0;
        for pair in self.db.iter() {
            let (key, value) = pair.map_err(|error| named(&self.path, "read", &error))?;
            bytes += key.len() + value.len();
            changes.push((Bytes::copy_from_slice(&key), Some(self.unseal(&key, &value)?)));
            if bytes >= COPY {
                other.write(std::mem::take(&mut changes))?;
                bytes = 0;
            }
        }
        other.write(changes)?;
        other.sync()
    }
}

impl SledEngine {
    /// Opens the database in the folder `dir`, or creates it. Removes what an interrupted compaction left; seals what
    /// is in clear.
    pub(crate) fn open(dir: &Path, key: &SealKey) -> io::Result<Self> {
        let current = match read_current(dir)? {
            Some(current) => current,
            None => write_current(dir, 0)?,
        };
        let generation = current.generation;
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            if number.is_some_and(|number| number != generation) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        let in_force = current.sealed.then(|| key.clone());
        let database = Database::open(&dir.join(generation.to_string()), in_force)?;
        File::open(dir)?.sync_all()?;
        let mut engine = Self { dir: dir.to_owned(), generation, key: key.clone(), database };
        if !current.sealed {
            engine.compact()?;
        }
        Ok(engine)
    }

    fn compact(&mut self) -> io::Result<()> {
        let generation = self.generation + 1;
        let mut new =
            Database::open(&self.dir.join(generation.to_string()), Some(self.key.clone()))?;
        self.database.copy_to(&mut new)?;
        write_current(&self.dir, generation)?;
        let old = self.dir.join(self.generation.to_string());
        self.generation = generation;
        drop(std::mem::replace(&mut self.database, new));
        // If it stays, the next start removes it.
        if let Err(error) = std::fs::remove_dir_all(&old) {
            tracing::warn!(path = %old.display(), %error, "cannot remove old raft log");
        }
        Ok(())
    }
}

/// What the file `current` says.
struct Current {
    generation: u64,
    sealed: bool,
}

const SEALED: &str = " sealed";

fn read_current(dir: &Path) -> io::Result<Option<Current>> {
    let path = dir.join("current");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let text = text.trim_end();
            let number = text.strip_suffix(SEALED);
            match number.unwrap_or(text).parse() {
                Ok(generation) => Ok(Some(Current { generation, sealed: number.is_some() })),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is corrupt", path.display()),
                )),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_current(dir: &Path, generation: u64) -> io::Result<Current> {
    let content = format!("{generation}{SEALED}\n");
    swarm_durable::replace(&dir.join("current"), content.as_bytes(), 0o600)?;
    Ok(Current { generation, sealed: true })
}

/// Whether the log in the folder `dir` is sealed; not if there is none.
pub(crate) fn is_sealed(dir: &Path) -> io::Result<bool> {
    Ok(read_current(dir)?.is_some_and(|current| current.sealed))
}

impl Engine for SledEngine {
    fn path(&self) -> &Path {
        &self.database.path
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        let value =
            self.database.db.get(key).map_err(|error| named(self.path(), "read", &error))?;
        value.map(|value| self.database.unseal(key, &value)).transpose()
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        for pair in self.database.db.range(from..to) {
            let (key, value) = pair.map_err(|error| named(self.path(), "read", &error))?;
            if !visit(&key, &self.database.unseal(&key, &value)?) {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, changes: Vec<Change>) -> io::Result<()> {
        self.database.write(changes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.database.sync()
    }

    fn reclaim(&mut self) -> io::Result<()> {
        if self.database.file.0.metadata()?.len() > COMPACT_ABOVE { self.compact() } else { Ok(()) }
    }
}

fn named(path: &Path, action: &str, error: &sled::Error) -> io::Error {
    let kind = match error {
        sled::Error::Io(error) => error.kind(),
        sled::Error::Corruption { .. } => {
            return io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is corrupt", path.display()),
            );
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("cannot {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SealKey {
        SealKey::new([1; 32], "a test")
    }

    fn put(engine: &mut SledEngine, key: &'static str, value: &'static str) {
        engine.write(vec![(key.into(), Some(value.into()))]).unwrap();
        engine.sync().unwrap();
    }

    fn found(dir: &Path, text: &str) -> bool {
        std::fs::read_dir(dir).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return found(&path, text);
            }
            let bytes = std::fs::read(&path).unwrap();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    }

    #[test]
    fn a_value_is_sealed_for_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let mut engine = SledEngine::open(dir.path(), &key()).unwrap();
        put(&mut engine, "l1", "a secret");
        put(&mut engine, "l2", "another");
        // As somebody who can write the disk, and does not have the key.
        let value = engine.database.db.get("l1").unwrap().unwrap();
        engine.database.db.insert("l2", value).unwrap();
        engine.sync().unwrap();
        assert_eq!(engine.get(b"l1").unwrap().unwrap(), "a secret");
        let moved = engine.get(b"l2").unwrap_err().to_string();
        assert!(moved.contains("0/db cannot be decrypted with the key in a test"), "{moved}");
        assert!(engine.scan(b"l", b"m", &mut |_, _| true).is_err());
        drop(engine);
        assert!(!found(dir.path(), "a secret"));
        let other = SledEngine::open(dir.path(), &SealKey::new([2; 32], "elsewhere")).unwrap();
        let wrong = other.get(b"l1").unwrap_err().to_string();
        assert!(wrong.contains("the key in elsewhere"), "{wrong}");
    }

    #[test]
    fn what_an_older_version_wrote_in_clear_is_read_and_sealed() {
        let dir = tempfile::tempdir().unwrap();
        write_current(dir.path(), 3).unwrap();
        std::fs::write(dir.path().join("current"), "3\n").unwrap();
        assert!(!is_sealed(dir.path()).unwrap());
        let mut old = Database::open(&dir.path().join("3"), None).unwrap();
        old.write(vec![("l1".into(), Some("a secret".into()))]).unwrap();
        old.sync().unwrap();
        drop(old);
        assert!(found(dir.path(), "a secret"));
        for _ in 0..2 {
            let engine = SledEngine::open(dir.path(), &key()).unwrap();
            assert_eq!(engine.get(b"l1").unwrap().unwrap(), "a secret");
            drop(engine);
            assert!(!found(dir.path(), "a secret"));
            assert!(is_sealed(dir.path()).unwrap());
        }
    }

    #[test]
    fn a_database_can_be_opened_again_as_soon_as_it_was_dropped() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..100u32 {
            let mut engine = SledEngine::open(dir.path(), &key()).unwrap();
            let key = Bytes::copy_from_slice(&round.to_be_bytes());
            engine.write(vec![(key.clone(), Some(key))]).unwrap();
            engine.sync().unwrap();
        }
    }
}
