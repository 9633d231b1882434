//! What a manager's log is kept on: [`Sled`] for the daemon; a simulation brings a disk of its own,
//! which is slow when it likes and loses what was not synced.

use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::future::BoxFuture;

use swarm_seal::SealKey;

use crate::{
    engine::{Engine, SledEngine},
    types::Payload,
};

/// Opens what a manager's log is kept on.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens the log in the folder `dir`, or makes it. What is to be secret is sealed with `key`. Blocks. What it then holds
    /// is on stable storage: a program that was killed may have left it written and not synced.
    ///
    /// # Errors
    /// Those of the system; [`io::ErrorKind::InvalidData`] for damage.
    fn open(&self, dir: &Path, key: &SealKey) -> io::Result<Opened>;
}

/// An open log.
pub struct Opened {
    /// Log, vote and markers.
    pub engine: Box<dyn Engine>,
    /// How far they were acknowledged.
    pub acknowledged: Box<dyn Sector>,
    /// Who does the work.
    pub worker: Worker,
}

/// Who does the work of a disk, all of which blocks.
pub enum Worker {
    /// A thread of its own.
    Thread,
    /// A task beside the others, for disks that never block. It waits so long between each group's
    /// writing and its sync.
    Task(Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>),
}

/// Some bytes that are written as a whole.
pub trait Sector: Send {
    /// What errors name.
    fn path(&self) -> &Path;

    /// What was written last; empty if nothing ever was.
    ///
    /// # Errors
    /// Those of the system.
    fn read(&self) -> io::Result<Vec<u8>>;

    /// Replaces the bytes. They are durable after [`Sector::sync`], and may be before.
    ///
    /// # Errors
    /// Those of the system.
    fn write(&self, bytes: &[u8]) -> io::Result<()>;

    /// Returns when what was written, and that it exists, is on stable storage.
    ///
    /// # Errors
    /// Those of the system.
    fn sync(&self) -> io::Result<()>;
}

/// sled, and a file beside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sled;

impl Disk for Sled {
    fn open(&self, dir: &Path, key: &SealKey) -> io::Result<Opened> {
        Ok(Opened {
            engine: Box::new(SledEngine::open(dir, key)?),
            acknowledged: Box::new(SmallFile::open(dir.join("acknowledged"))?),
            worker: Worker::Thread,
        })
    }
}

/// A file smaller than a disk's sector, so that a write is not torn.
struct SmallFile {
    file: File,
    path: PathBuf,
}

impl SmallFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        if file.metadata()?.len() == 0
            && let Some(dir) = path.parent()
        {
            File::open(dir)?.sync_all()?;
        }
        Ok(Self { file, path })
    }
}

impl Sector for SmallFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.file.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, 0)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// A log entry as an engine holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The term it was proposed in.
    pub term: u64,
    /// The leader that proposed it.
    pub leader: u64,
    /// Its place.
    pub index: u64,
    /// The command; none for Raft's own entries.
    pub command: Option<Bytes>,
}

/// The entries in `engine` from `from` on.
///
/// # Errors
/// Damage, or what the engine says.
pub fn entries(engine: &dyn Engine, from: u64) -> io::Result<Vec<Stored>> {
    let entries = crate::stored::read(engine, from, u64::MAX, usize::MAX)?;
    let stored = entries.into_iter().map(|entry| Stored {
        term: entry.log_id.leader_id.term,
        leader: entry.log_id.leader_id.node_id,
        index: entry.log_id.index,
        command: match entry.payload {
            Payload::Normal(command) => Some(command.0),
            Payload::Blank | Payload::Membership(_) => None,
        },
    });
    Ok(stored.collect())
}
