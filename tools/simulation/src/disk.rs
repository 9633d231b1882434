//! A manager's disk: what was written is seen at once, and survives the end of the program; what was synced
//! survives a loss of power. It may be slow.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use swarm_raft::SealKey;
use swarm_raft::disk::{self, Opened, Sector, Stored, Worker};
use swarm_raft::engine::{Change, Engine};

use crate::random::Random;

/// Operations after which a disk that lies has written what it said was synced.
const LIES: usize = 40;

/// A disk; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    random: Random,
    durable: BTreeMap<Vec<u8>, Bytes>,
    seen: BTreeMap<Vec<u8>, Bytes>,
    /// Written and not synced.
    cached: Vec<Vec<Change>>,
    sector: Vec<u8>,
    durable_sector: Vec<u8>,
    /// Milliseconds that a sync takes.
    sync_time: (u64, u64),
    /// It says that it has synced, and has not.
    lies: bool,
}

fn put(into: &mut BTreeMap<Vec<u8>, Bytes>, changes: &[Change]) {
    for (key, value) in changes {
        match value {
            Some(value) => into.insert(key.to_vec(), value.clone()),
            None => into.remove(&key[..]),
        };
    }
}

impl Inner {
    /// Makes what was written durable, as far as this disk does so when it is told to.
    fn sync(&mut self) {
        self.write_back(if self.lies { LIES } else { 0 });
    }

    /// Moves the oldest changes to the medium; the newest `keep` stay in the cache.
    fn write_back(&mut self, keep: usize) {
        let count = self.cached.len().saturating_sub(keep);
        for changes in self.cached.drain(..count) {
            put(&mut self.durable, &changes);
        }
    }
}

pub(crate) const FAST: (u64, u64) = (0, 3);

impl Disk {
    pub(crate) fn new(random: Random, lies: bool) -> Disk {
        Disk(Arc::new(Mutex::new(Inner {
            random,
            durable: BTreeMap::new(),
            seen: BTreeMap::new(),
            cached: Vec::new(),
            sector: Vec::new(),
            durable_sector: Vec::new(),
            sync_time: FAST,
            lies,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_sync_time(&self, millis: (u64, u64)) {
        self.lock().sync_time = millis;
    }

    /// Of what was not synced, any first part may have got to the medium.
    pub(crate) fn lose_power(&self) {
        let mut inner = self.lock();
        let lost = inner.cached.len() as u64;
        let lost = inner.random.within(0..lost + 1) as usize;
        inner.write_back(lost);
        inner.cached.clear();
        inner.seen = inner.durable.clone();
        if inner.random.chance(50) {
            inner.durable_sector = inner.sector.clone();
        }
        inner.sector = inner.durable_sector.clone();
    }

    /// The log entries from `from` on, as the program sees them.
    pub(crate) fn entries(&self, from: u64) -> io::Result<Vec<Stored>> {
        disk::entries(self, from)
    }
}

impl disk::Disk for Disk {
    fn open(&self, _: &Path, _: &SealKey) -> io::Result<Opened> {
        self.lock().sync();
        let this = self.clone();
        let pause = move || {
            let mut inner = this.lock();
            let (least, most) = inner.sync_time;
            tokio::time::sleep(inner.random.millis(least..most + 1)).boxed()
        };
        Ok(Opened {
            engine: Box::new(self.clone()),
            acknowledged: Box::new(self.clone()),
            worker: Worker::Task(Box::new(pause)),
        })
    }
}

impl Engine for Disk {
    fn path(&self) -> &Path {
        Path::new("disk")
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.lock().seen.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        let inner = self.lock();
        for (key, value) in inner.seen.range(from.to_vec()..to.to_vec()) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, changes: Vec<Change>) -> io::Result<()> {
        let mut inner = self.lock();
        put(&mut inner.seen, &changes);
        inner.cached.push(changes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.lock().sync();
        Ok(())
    }

    fn reclaim(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sector for Disk {
    fn path(&self) -> &Path {
        Path::new("disk/acknowledged")
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        Ok(self.lock().sector.clone())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.lock().sector = bytes.to_vec();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.durable_sector = inner.sector.clone();
        Ok(())
    }
}
