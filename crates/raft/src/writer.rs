//! The storage thread: the one user of the engine, and the group commit.
//!
//! It takes all operations that queued while it was syncing, writes them in order, syncs once and then
//! acknowledges them all. After a failed write or sync nothing is acknowledged any more: what is on
//! the disk is unknown then, until the manager restarts and reads it.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use crate::{
    acknowledged::{Acknowledged, AcknowledgedFile},
    disk::Worker,
    engine::{Change, Engine, MAX_VALUE},
    log_store::Shared,
    record::{decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote},
    types::{Entry, LogId, TypeConfig, Vote},
};

/// Operations that may wait for the thread; a full queue holds the caller back.
const QUEUE: usize = 1024;

/// How far the marker of what is committed may lag behind: a crash loses it, a restart applies that much less at once.
const MARK_EVERY: Duration = Duration::from_millis(250);

/// Deletions in one batch: sled frees no memory while it applies one.
const PURGE: usize = 128;

const VOTE: &[u8] = b"m/vote";
const PURGED: &[u8] = b"m/purged";
const COMMITTED: &[u8] = b"m/committed";

type Done = oneshot::Sender<io::Result<()>>;

/// What the thread is asked to do. Operations take effect in the order they were sent.
pub(crate) enum Operation {
    Append {
        entries: Vec<Entry>,
        flushed: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Vote,
        done: Done,
    },
    /// Deletes the entries after this one.
    Truncate {
        after: Option<LogId>,
        done: Done,
    },
    /// Deletes the entries up to this one.
    Purge {
        upto: LogId,
        done: Done,
    },
    /// Reads entries of `from..to` until they have `max_bytes` of commands, at least one.
    Read {
        from: u64,
        to: u64,
        max_bytes: usize,
        reply: oneshot::Sender<io::Result<Vec<Entry>>>,
    },
}

/// What the database held when it was opened.
pub(crate) struct Recovered {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    /// The last entry stored, or else `purged`.
    pub(crate) last: Option<LogId>,
}

/// The state of the storage thread.
pub(crate) struct Writer {
    engine: Box<dyn Engine>,
    file: AcknowledgedFile,
    /// What the group at hand acknowledges when it is durable.
    acknowledged: Acknowledged,
    /// What `file` says.
    saved: Acknowledged,
    /// The end of the log before the first entry, to know what remains after a truncation.
    purged: Option<LogId>,
    committed: Option<LogId>,
    /// When `committed` was written.
    marked_at: Instant,
    failed: Option<String>,
}

impl Writer {
    /// Reads and verifies everything in the database.
    pub(crate) fn recover(
        engine: Box<dyn Engine>,
        file: AcknowledgedFile,
        expected: Option<Acknowledged>,
    ) -> io::Result<(Self, Recovered)> {
        let vote = marker(&*engine, VOTE, decode_vote)?;
        let purged = marker(&*engine, PURGED, decode_log_id)?;
        let committed = marker(&*engine, COMMITTED, decode_log_id)?;
        let last = verify_log(&*engine, purged)?.or(purged);
        let found = Acknowledged { last, vote };
        if let Some(expected) = expected {
            check_nothing_lost(&*engine, &found, &expected)?;
        }
        file.write(&found)?;
        let recovered = Recovered { vote, purged, committed, last };
        Ok((
            Self {
                engine,
                file,
                acknowledged: found,
                saved: found,
                purged,
                committed,
                marked_at: Instant::now(),
                failed: None,
            },
            recovered,
        ))
    }

    /// Starts the worker. It ends, and releases the database, when all senders are gone.
    pub(crate) fn spawn(
        self,
        shared: Arc<Shared>,
        worker: Worker,
    ) -> io::Result<(mpsc::Sender<Operation>, oneshot::Receiver<()>)> {
        let (operations, queue) = mpsc::channel(QUEUE);
        let (ended, end) = oneshot::channel();
        match worker {
            Worker::Thread => {
                std::thread::Builder::new().name("raft-storage".into()).spawn(move || {
                    self.run(queue, &shared);
                    // Nobody may be waiting for the end.
                    let _ = ended.send(());
                })?;
            }
            Worker::Task(pause) => {
                tokio::spawn(async move {
                    self.run_slowly(queue, &shared, &*pause).await;
                    let _ = ended.send(());
                });
            }
        }
        Ok((operations, end))
    }

    fn run(mut self, mut queue: mpsc::Receiver<Operation>, shared: &Shared) {
        while let Some(operation) = queue.blocking_recv() {
            let group = group(operation, &mut queue);
            if let Some(written) = self.write(group, shared) {
                self.finish(written, shared);
            }
        }
        self.close(shared);
    }

    async fn run_slowly(
        mut self,
        mut queue: mpsc::Receiver<Operation>,
        shared: &Shared,
        pause: &(dyn Fn() -> BoxFuture<'static, ()> + Send + Sync),
    ) {
        while let Some(operation) = queue.recv().await {
            let group = group(operation, &mut queue);
            if let Some(written) = self.write(group, shared) {
                pause().await;
                self.finish(written, shared);
            }
        }
        self.close(shared);
    }

    /// Writes a group of operations; none if nobody waits for its sync.
    fn write(&mut self, group: Vec<Operation>, shared: &Shared) -> Option<Written> {
        let mut written = Written::default();
        let mut result = match &self.failed {
            None => Ok(()),
            Some(reason) => Err(io::Error::other(reason.clone())),
        };
        let mut changes = Vec::new();
        for operation in group {
            let step = match operation {
                Operation::Read { from, to, max_bytes, reply } => {
                    let entries = result
                        .as_ref()
                        .map_err(clone)
                        .and_then(|()| self.flush_changes(&mut changes))
                        .and_then(|()| read(&*self.engine, from, to, max_bytes));
                    // The reader may have gone away, with its replication stream.
                    let _ = reply.send(entries);
                    continue;
                }
                Operation::Append { entries, flushed } => {
                    written.waiting.appends.push(flushed);
                    if let Some(entry) = entries.last() {
                        written.durable = Some(entry.log_id.index);
                        self.acknowledged.last = Some(entry.log_id);
                    }
                    entries.iter().for_each(|entry| put_entry(&mut changes, entry));
                    Ok(())
                }
                Operation::Vote { vote, done } => {
                    written.waiting.others.push(done);
                    self.acknowledged.vote = Some(vote);
                    changes.push((Bytes::from_static(VOTE), Some(encode_vote(&vote))));
                    Ok(())
                }
                Operation::Truncate { after, done } => {
                    written.waiting.others.push(done);
                    written.durable = written.durable.min(after.map(|id| id.index));
                    self.flush_changes(&mut changes)
                        .and_then(|()| self.truncate(after, &mut changes))
                }
                Operation::Purge { upto, done } => {
                    written.waiting.others.push(done);
                    written.purged = true;
                    self.flush_changes(&mut changes).and_then(|()| self.purge(upto))
                }
            };
            result = result.and(step);
        }
        if written.waiting.is_empty() {
            return None;
        }
        let committed = *shared.committed.lock().expect("no holder panics");
        if committed != self.committed && self.marked_at.elapsed() >= MARK_EVERY {
            written.mark = committed;
            changes.extend(
                committed.map(|id| (Bytes::from_static(COMMITTED), Some(encode_log_id(&id)))),
            );
        }
        written.result = result.and_then(|()| self.flush_changes(&mut changes));
        Some(written)
    }

    /// Syncs what was written, once, and acknowledges all of it.
    fn finish(&mut self, written: Written, shared: &Shared) {
        let result = written
            .result
            .and_then(|()| self.engine.sync())
            .and_then(|()| self.file.write(&self.acknowledged));
        match &result {
            Ok(()) => {
                if written.mark.is_some() {
                    self.committed = written.mark;
                    self.marked_at = Instant::now();
                }
                self.saved = self.acknowledged;
                if let Some(index) = written.durable {
                    shared.written(index);
                }
            }
            Err(error) => self.fail(error),
        }
        written.waiting.acknowledge(&result);
        if written.purged
            && self.failed.is_none()
            && let Err(error) = self.engine.reclaim()
        {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        tracing::error!(%error, "raft log cannot be written");
        self.failed.get_or_insert_with(|| error.to_string());
    }

    fn flush_changes(&mut self, changes: &mut Vec<Change>) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.engine.write(std::mem::take(changes))
    }

    fn truncate(&mut self, after: Option<LogId>, changes: &mut Vec<Change>) -> io::Result<()> {
        self.acknowledged.last = self.acknowledged.last.min(after).max(self.purged);
        self.saved.last = self.saved.last.min(self.acknowledged.last);
        self.file.write(&self.saved)?;
        self.file.sync()?;
        let from = after.map_or(0, |id| id.index + 1);
        delete(&*self.engine, from, u64::MAX, changes)
    }

    /// The marker goes first, so that what an interrupted purge leaves is known to be purged.
    fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.purged = self.purged.max(Some(upto));
        self.acknowledged.last = self.acknowledged.last.max(self.purged);
        let mut changes = vec![(Bytes::from_static(PURGED), Some(encode_log_id(&upto)))];
        loop {
            self.flush_changes(&mut changes)?;
            self.engine.scan(&key(0, 0), &key(upto.index + 1, 0), &mut |key, _| {
                changes.push((Bytes::copy_from_slice(key), None));
                changes.len() < PURGE
            })?;
            if changes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Saves what may be lost in a crash but need not be lost in an orderly end.
    fn close(mut self, shared: &Shared) {
        let committed = *shared.committed.lock().expect("no holder panics");
        if self.failed.is_some() || committed == self.committed {
            return;
        }
        let mut changes: Vec<_> = committed
            .map(|id| (Bytes::from_static(COMMITTED), Some(encode_log_id(&id))))
            .into_iter()
            .collect();
        if let Err(error) = self.flush_changes(&mut changes).and_then(|()| self.engine.sync()) {
            tracing::warn!(%error, "raft log cannot be closed in order");
        }
    }
}

/// Whatever queued meanwhile goes along.
fn group(first: Operation, queue: &mut mpsc::Receiver<Operation>) -> Vec<Operation> {
    let mut group = vec![first];
    while let Ok(operation) = queue.try_recv() {
        group.push(operation);
    }
    group
}

/// A group of operations between its writing and its sync.
struct Written {
    waiting: Waiting,
    /// Whether it could be written.
    result: io::Result<()>,
    /// The last entry that is durable once it is synced.
    durable: Option<u64>,
    /// The marker of what is committed that goes along.
    mark: Option<LogId>,
    purged: bool,
}

impl Default for Written {
    fn default() -> Self {
        let waiting = Waiting::default();
        Self { waiting, result: Ok(()), durable: None, mark: None, purged: false }
    }
}

/// Who waits for the end of a group commit.
#[derive(Default)]
struct Waiting {
    appends: Vec<IOFlushed<TypeConfig>>,
    others: Vec<Done>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.others.is_empty()
    }

    fn acknowledge(self, result: &io::Result<()>) {
        let outcome = || result.as_ref().map_or_else(|error| Err(clone(error)), |()| Ok(()));
        self.appends.into_iter().for_each(|flushed| flushed.io_completed(outcome()));
        for done in self.others {
            // A caller that shut down no longer waits.
            let _ = done.send(outcome());
        }
    }
}

fn clone(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// `l`, the index, the number of the piece: both big-endian, so that keys sort by them.
fn key(index: u64, piece: u16) -> [u8; 11] {
    let mut key = [b'l'; 11];
    key[1..9].copy_from_slice(&index.to_be_bytes());
    key[9..].copy_from_slice(&piece.to_be_bytes());
    key
}

fn index_of(key: &[u8]) -> u64 {
    u64::from_be_bytes(key[1..9].try_into().expect("a log key has eleven bytes"))
}

fn put_entry(changes: &mut Vec<Change>, entry: &Entry) {
    let mut record = encode_entry(entry);
    let mut piece = 0;
    while !record.is_empty() {
        let value = record.split_to(record.len().min(MAX_VALUE));
        changes.push((Bytes::copy_from_slice(&key(entry.log_id.index, piece)), Some(value)));
        piece += 1;
    }
}

fn delete(engine: &dyn Engine, from: u64, to: u64, changes: &mut Vec<Change>) -> io::Result<()> {
    engine.scan(&key(from, 0), &key(to, 0), &mut |key, _| {
        changes.push((Bytes::copy_from_slice(key), None));
        true
    })
}

fn marker<T>(
    engine: &dyn Engine,
    key: &'static [u8],
    decode: fn(Bytes) -> Result<T, crate::record::RecordError>,
) -> io::Result<Option<T>> {
    let value = engine.get(key)?.map(decode).transpose();
    value.map_err(|error| {
        corrupt(engine, &format!("marker {}", String::from_utf8_lossy(&key[2..])), &error)
    })
}

fn corrupt(engine: &dyn Engine, what: &str, error: &dyn std::fmt::Display) -> io::Error {
    let text = format!("{what} in {} is corrupt: {error}", engine.path().display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Visits the records of `from..to` in order, put together from their pieces, while `visit` returns true.
fn records(
    engine: &dyn Engine,
    from: u64,
    to: u64,
    mut visit: impl FnMut(u64, Bytes) -> io::Result<bool>,
) -> io::Result<()> {
    let mut current: Option<(u64, BytesMut)> = None;
    let mut result = Ok(true);
    engine.scan(&key(from, 0), &key(to, 0), &mut |key, value| {
        let index = index_of(key);
        match &mut current {
            Some((same, record)) if *same == index => record.extend_from_slice(value),
            _ => {
                if let Some((index, record)) = current.replace((index, BytesMut::from(value))) {
                    result = visit(index, record.freeze());
                }
            }
        }
        matches!(result, Ok(true))
    })?;
    if let (true, Some((index, record))) = (result?, current) {
        visit(index, record.freeze())?;
    }
    Ok(())
}

fn decode(engine: &dyn Engine, index: u64, record: Bytes) -> io::Result<Entry> {
    let entry = decode_entry(record)
        .map_err(|error| corrupt(engine, &format!("log entry {index}"), &error))?;
    if entry.log_id.index != index {
        return Err(corrupt(
            engine,
            &format!("log entry {index}"),
            &format!("it says it is {}", entry.log_id.index),
        ));
    }
    Ok(entry)
}

pub(crate) fn read(
    engine: &dyn Engine,
    from: u64,
    to: u64,
    max_bytes: usize,
) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    records(engine, from, to, |index, record| {
        bytes += record.len();
        entries.push(decode(engine, index, record)?);
        Ok(bytes < max_bytes)
    })?;
    Ok(entries)
}

/// Reads the whole log: every record must be sound, and none missing. Returns the last.
fn verify_log(engine: &dyn Engine, purged: Option<LogId>) -> io::Result<Option<LogId>> {
    let mut last = None;
    let mut expected = purged.map_or(0, |id| id.index + 1);
    records(engine, 0, u64::MAX, |index, record| {
        if index < expected && last.is_none() {
            // Left of a purge that was interrupted; the next one deletes it.
            return Ok(true);
        }
        if index != expected {
            return Err(corrupt(
                engine,
                "log",
                &format!("entry {expected} is missing, {index} follows"),
            ));
        }
        last = Some(decode(engine, index, record)?.log_id);
        expected = index + 1;
        Ok(true)
    })?;
    Ok(last)
}

fn check_nothing_lost(
    engine: &dyn Engine,
    found: &Acknowledged,
    expected: &Acknowledged,
) -> io::Result<()> {
    let index = |last: Option<LogId>| last.map(|id| id.index);
    if index(found.last) < index(expected.last) {
        let text = format!(
            "log in {} ends at entry {}, but entry {} was acknowledged: its tail is lost",
            engine.path().display(),
            index(found.last).map_or("none".to_owned(), |index| index.to_string()),
            index(expected.last).unwrap_or_default(),
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    if found.vote < expected.vote {
        let text = format!(
            "vote in {} is older than the one acknowledged: it is lost",
            engine.path().display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(())
}
