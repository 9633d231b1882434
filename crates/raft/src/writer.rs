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

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use crate::{
    acknowledged::{Acknowledged, AcknowledgedFile},
    disk::Worker,
    engine::{Change, Engine},
    log_store::Shared,
    record::{decode_log_id, decode_vote, encode_log_id, encode_vote},
    stored::{delete, key, marker, put_entry, read, verify_log},
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
        // Entries that came after this group was taken may have been committed meanwhile. A marker beyond
        // the end of the log would, after a crash, keep the manager from starting.
        let committed =
            shared.committed.lock().expect("no holder panics").min(self.acknowledged.last);
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use swarm_seal::SealKey;

    use super::*;
    use crate::{
        disk::{Disk, Sled},
        types::{Payload, log_id},
    };

    fn open(dir: &Path) -> (Writer, Recovered) {
        let opened = Sled.open(dir, &SealKey::new([1; 32], "a test")).unwrap();
        let (file, expected) = AcknowledgedFile::open(opened.acknowledged).unwrap();
        Writer::recover(opened.engine, file, expected).unwrap()
    }

    #[test]
    fn what_is_marked_as_committed_is_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |index| Entry { log_id: log_id(1, 1, index), payload: Payload::Blank };
        let (mut writer, _) = open(dir.path());
        // The entry after those of the group is committed by others before the group is written.
        let shared = Shared::for_test(Some(log_id(1, 1, 2)));
        writer.marked_at = Instant::now() - 2 * MARK_EVERY;
        let entries = vec![entry(0), entry(1)];
        let group = vec![Operation::Append { entries, flushed: IOFlushed::noop() }];
        let written = writer.write(group, &shared).unwrap();
        writer.finish(written, &shared);
        drop(writer); // without an orderly end
        let (_, found) = open(dir.path());
        assert_eq!(found.last, Some(log_id(1, 1, 1)));
        assert_eq!(found.committed, Some(log_id(1, 1, 1)));
    }
}
