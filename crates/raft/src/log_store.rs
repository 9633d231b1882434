//! openraft's log storage: the recent log in memory, in front of the storage thread.
//!
//! An append puts its entries into memory, where replication and the state machine read them, and
//! leaves the disk to the storage thread. Entries are dropped from memory, oldest first, when they are
//! durable and more than [`KEEP_BYTES`] are there.

use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    path::Path,
    sync::{Arc, Mutex, RwLock},
};

use openraft::{
    LogState, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
};
use tokio::sync::{mpsc, oneshot};

use swarm_seal::SealKey;

use crate::{
    acknowledged::AcknowledgedFile,
    disk::Disk,
    types::{Entry, LogId, Payload, TypeConfig, Vote},
    writer::{Operation, Writer},
};

/// Durable entries kept in memory, in bytes: what followers in step still need.
const KEEP_BYTES: usize = 1024 * 1024;

/// The most one append request carries, in bytes (and at least one entry).
pub(crate) const MAX_APPEND_BYTES: usize = 1024 * 1024;

/// The recent part of the log, and the markers.
struct Recent {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Consecutive; ends with `last` unless empty.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The last index known to be durable.
    written: Option<u64>,
}

/// What the log store, its readers and the storage thread share.
pub(crate) struct Shared {
    recent: RwLock<Recent>,
    /// Saved with the next group commit: it costs no sync of its own, and may lag after a crash.
    pub(crate) committed: Mutex<Option<LogId>>,
}

impl Shared {
    /// Of an empty log.
    #[cfg(test)]
    pub(crate) fn for_test(committed: Option<LogId>) -> Self {
        let recent = Recent {
            vote: None,
            purged: None,
            last: None,
            entries: VecDeque::new(),
            bytes: 0,
            written: None,
        };
        Self { recent: RwLock::new(recent), committed: Mutex::new(committed) }
    }

    /// The entries up to `index` are durable.
    pub(crate) fn written(&self, index: u64) {
        let mut recent = self.recent.write().expect("no holder panics");
        recent.written = recent.written.max(Some(index));
        recent.evict();
    }
}

impl Recent {
    fn evict(&mut self) {
        while self.bytes > KEEP_BYTES
            && self.entries.front().is_some_and(|entry| Some(entry.log_id.index) <= self.written)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= size(&entry);
        }
    }

    fn push(&mut self, entry: Entry) {
        self.last = Some(entry.log_id);
        self.bytes += size(&entry);
        self.entries.push_back(entry);
    }

    fn truncate(&mut self, after: Option<LogId>) {
        let keep = |entry: &Entry| Some(entry.log_id.index) <= after.map(|id| id.index);
        while self.entries.back().is_some_and(|entry| !keep(entry)) {
            let entry = self.entries.pop_back().expect("there is one");
            self.bytes -= size(&entry);
        }
        self.last = self.last.min(after).max(self.purged);
        self.written = self.written.min(after.map(|id| id.index));
    }

    fn purge(&mut self, upto: LogId) {
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.pop_front();
        }
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(self.purged);
    }

    /// Entries of `from..to` until `max_bytes`, or where they begin to be in memory.
    fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, u64> {
        let Some(first) = self.entries.front().map(|entry| entry.log_id.index) else {
            return Err(to);
        };
        if from < first {
            return Err(first.min(to));
        }
        let mut bytes = 0;
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        let entries = self.entries.iter().skip(skip).take_while(|entry| {
            let fits = bytes < max_bytes && entry.log_id.index < to;
            bytes += size(entry);
            fits
        });
        Ok(entries.cloned().collect())
    }
}

fn size(entry: &Entry) -> usize {
    size_of::<Entry>()
        + match &entry.payload {
            Payload::Normal(command) => command.0.len(),
            Payload::Blank | Payload::Membership(_) => 0,
        }
}

/// The log of one node.
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    storage: mpsc::Sender<Operation>,
}

/// Reads the log; replication streams and the state machine have one each.
#[derive(Clone)]
pub(crate) struct LogReader {
    shared: Arc<Shared>,
    storage: mpsc::Sender<Operation>,
}

impl LogStore {
    /// Opens or creates the log in the folder `dir`, verifying every record. Blocks.
    ///
    /// The receiver resolves when the log is closed: when this store and all its readers are dropped.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        key: &SealKey,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        std::fs::create_dir_all(dir)?;
        let opened = disk.open(dir, key)?;
        let (file, expected) = AcknowledgedFile::open(opened.acknowledged)?;
        let (writer, found) = Writer::recover(opened.engine, file, expected)?;
        let recent = Recent {
            vote: found.vote,
            purged: found.purged,
            last: found.last,
            entries: VecDeque::new(),
            bytes: 0,
            written: found.last.map(|id| id.index),
        };
        let shared = Arc::new(Shared {
            recent: RwLock::new(recent),
            committed: Mutex::new(found.committed),
        });
        let (storage, end) = writer.spawn(shared.clone(), opened.worker)?;
        Ok((Self { shared, storage }, end))
    }

    /// Sends an operation to the storage thread and waits until it is durable.
    async fn durable(
        &self,
        operation: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Operation,
    ) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.storage.send(operation(done)).await.map_err(|_| ended())?;
        wait.await.map_err(|_| ended())?
    }
}

fn ended() -> io::Error {
    io::Error::other("raft storage thread has ended")
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let recent = self.shared.recent.read().expect("no holder panics");
        Ok(LogState { last_purged_log_id: recent.purged, last_log_id: recent.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { shared: self.shared.clone(), storage: self.storage.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.durable(|done| Operation::Vote { vote, done }).await?;
        self.shared.recent.write().expect("no holder panics").vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        *self.shared.committed.lock().expect("no holder panics") = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(*self.shared.committed.lock().expect("no holder panics"))
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut recent = self.shared.recent.write().expect("no holder panics");
            entries.iter().for_each(|entry| recent.push(entry.clone()));
        }
        self.storage.send(Operation::Append { entries, flushed }).await.map_err(|_| ended())
    }

    async fn truncate_after(&mut self, after: Option<LogId>) -> io::Result<()> {
        self.durable(|done| Operation::Truncate { after, done }).await?;
        // Not before: until then the storage thread may report what is cut off as written.
        self.shared.recent.write().expect("no holder panics").truncate(after);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.durable(|done| Operation::Purge { upto, done }).await?;
        self.shared.recent.write().expect("no holder panics").purge(upto);
        Ok(())
    }
}

impl LogReader {
    /// Reads some of the entries of `from..to`, at least one if there is one.
    async fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let recent = match self.recent(from, to, max_bytes) {
            Ok(entries) => return Ok(entries),
            Err(recent) => recent,
        };
        let (reply, answer) = oneshot::channel();
        let operation = Operation::Read { from, to: recent, max_bytes, reply };
        self.storage.send(operation).await.map_err(|_| ended())?;
        let entries = answer.await.map_err(|_| ended())??;
        if entries.is_empty() && recent < to {
            // The log begins in memory; another read may begin later still, as entries are purged.
            return Ok(self.recent(recent, to, max_bytes).unwrap_or_default());
        }
        Ok(entries)
    }

    fn recent(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, u64> {
        self.shared.recent.read().expect("no holder panics").read(from, to, max_bytes)
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let mut next = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let last = self.shared.recent.read().expect("no holder panics").last;
        let end = last.map_or(0, |id| id.index + 1);
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => end,
        };
        let mut all = Vec::new();
        // In pieces, since the first entries may be on disk only and the others in memory only.
        while next < to {
            let entries = self.read(next, to, usize::MAX).await?;
            let Some(last) = entries.last() else { break };
            next = last.index() + 1;
            all.extend(entries);
        }
        Ok(all)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read(start, end, MAX_APPEND_BYTES).await?;
        // A replication stream that was overtaken may still ask for what has been purged. The entries after
        // that must not be sent in its place: the follower would have a hole. Nothing is sent as a heartbeat.
        let purged = entries.first().is_some_and(|first| first.index() != start);
        Ok(if purged { Vec::new() } else { entries })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.recent.read().expect("no holder panics").vote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::Sled, types::log_id};

    fn entries(indexes: std::ops::Range<u64>) -> Vec<Entry> {
        let entry = |index| Entry { log_id: log_id(1, 1, index), payload: Payload::Blank };
        indexes.map(entry).collect()
    }

    async fn read(log: &mut LogStore, from: u64, to: u64) -> Vec<u64> {
        let mut reader = log.get_log_reader().await;
        let entries = reader.limited_get_log_entries(from, to).await.unwrap();
        entries.iter().map(RaftEntry::index).collect()
    }

    #[tokio::test]
    async fn a_reader_gets_no_others_in_place_of_purged_entries() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _closed) =
            LogStore::open(&Sled, dir.path(), &SealKey::new([1; 32], "a test")).unwrap();
        log.append(entries(0..10), IOFlushed::noop()).await.unwrap();
        log.purge(log_id(1, 1, 5)).await.unwrap();
        assert_eq!(read(&mut log, 3, 8).await, []);
        assert_eq!(read(&mut log, 6, 8).await, [6, 7]);
    }
}
