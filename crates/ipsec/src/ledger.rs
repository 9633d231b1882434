//! The incarnation of this node's IPsec, and the keys that it spent.
//!
//! AES-GCM is broken by encrypting twice with the same key and counter, and ESP counts from 1 in each new association. So a
//! key that was ever used for sending must not be installed again, whatever happened to its association: a restarted host,
//! a flush by hand, a peer that left and came back. The ledger remembers such keys, by fingerprints, in a file. Managers
//! derive keys from the *incarnation* too, a random number; a new one therefore means new keys.
//!
//! Written, and on disk, before a key is installed: a node that was cut off the power may still have its last view, with keys
//! in it, and must not use them again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use swarm_netns::Identity;

use crate::{Error, desired::Key};

const FILE: &str = "ipsec.json";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Keys spent in one incarnation; with more, a new one begins, which costs nothing but new keys. Bounds the file.
const MOST_SPENT: usize = 4096;

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    incarnation: u64,
    host: Host,
    /// Oldest first; also those of earlier incarnations, which managers may not have heard of yet.
    spent: Vec<Spent>,
}

/// Where the kernel's associations are: another boot or namespace has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Host {
    boot_id: String,
    netns: Identity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    fingerprint: u64,
    incarnation: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    record: Record,
}

impl Ledger {
    /// Goes on where the last process ended. In another boot or namespace there is nothing to go on with, but spent keys
    /// stay spent.
    pub(crate) fn open(dir: &Path, netns: Identity) -> Result<Self, Error> {
        let boot_id = fs::read_to_string(BOOT_ID).map_err(|e| Error::file("read", BOOT_ID, e))?;
        let host = Host { boot_id: boot_id.trim().to_owned(), netns };
        fs::create_dir_all(dir).map_err(|e| Error::file("create", dir, e))?;
        let path = dir.join(FILE);
        let known = read(&path)?;
        if let Some(record) = known.as_ref().filter(|record| record.host == host) {
            return Ok(Self { path, record: record.clone() });
        }
        let spent = known.map(|record| record.spent).unwrap_or_default();
        let record = Record { incarnation: draw(), host, spent };
        write(&path, &record)?;
        Ok(Self { path, record })
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.record.incarnation
    }

    /// Whether a key was used for sending.
    pub(crate) fn is_spent(&self, key: &Key) -> bool {
        let fingerprint = key.fingerprint();
        self.record.spent.iter().any(|spent| spent.fingerprint == fingerprint)
    }

    /// Begins a new incarnation if one of the refused keys belongs to this one, or if this one has spent its share; and
    /// notes what will be spent. On disk when this returns. Returns whether there is a new incarnation.
    pub(crate) fn turn(
        &mut self,
        refused: &[u64],
        fresh: impl Iterator<Item = u64>,
    ) -> Result<bool, Error> {
        let mut record = self.record.clone();
        let current = |spent: &&Spent| spent.incarnation == self.record.incarnation;
        let lost = self.record.spent.iter().filter(current);
        let lost = lost.filter(|spent| refused.contains(&spent.fingerprint)).count() > 0;
        let full = self.record.spent.iter().filter(current).count() >= MOST_SPENT;
        if lost || full {
            record.incarnation = draw();
        }
        let incarnation = record.incarnation;
        record.spent.extend(fresh.map(|fingerprint| Spent { fingerprint, incarnation }));
        let surplus = record.spent.len().saturating_sub(2 * MOST_SPENT);
        record.spent.drain(..surplus);
        if record != self.record {
            write(&self.path, &record)?;
            self.record = record;
        }
        Ok(lost || full)
    }
}

fn draw() -> u64 {
    rand::random()
}

/// What the file says; nothing if there is none or it cannot be understood, which a new incarnation makes good.
fn read(path: &Path) -> Result<Option<Record>, Error> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Error::file("read", path, e))?,
    };
    let record = serde_json::from_slice(&bytes);
    Ok(record
        .inspect_err(|error| warn!(path = %path.display(), %error, "the ipsec ledger is damaged"))
        .ok())
}

fn write(path: &Path, record: &Record) -> Result<(), Error> {
    let bytes = serde_json::to_vec(record).expect("numbers and text");
    swarm_durable::replace(path, &bytes, 0o600).map_err(|e| Error::file("write", path, e))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const NETNS: Identity = Identity::of(4, 4026531840);

    fn key(number: u8) -> Key {
        Key::new([number; Key::LENGTH])
    }

    fn open(dir: &TempDir) -> Ledger {
        Ledger::open(dir.path(), NETNS).unwrap()
    }

    fn spend(ledger: &mut Ledger, key: &Key) -> bool {
        ledger.turn(&[], [key.fingerprint()].into_iter()).unwrap()
    }

    fn refuse(ledger: &mut Ledger, key: &Key) -> bool {
        ledger.turn(&[key.fingerprint()], [].into_iter()).unwrap()
    }

    #[test]
    fn a_restart_goes_on_and_another_host_begins() {
        let dir = TempDir::new().unwrap();
        let mut ledger = open(&dir);
        assert!(!spend(&mut ledger, &key(1)));
        let again = open(&dir);
        assert_eq!(again.incarnation(), ledger.incarnation());
        assert!(again.is_spent(&key(1)) && !again.is_spent(&key(2)));

        let elsewhere = Ledger::open(dir.path(), Identity::of(4, 4026531841)).unwrap();
        assert_ne!(elsewhere.incarnation(), ledger.incarnation());
    }

    #[test]
    fn another_boot_begins_and_refuses_the_last_ones_keys() {
        let dir = TempDir::new().unwrap();
        let mut before = open(&dir);
        spend(&mut before, &key(1));
        let mut record = before.record.clone();
        record.host.boot_id = "another".into();
        write(&before.path, &record).unwrap();
        let mut after = open(&dir);
        assert_ne!(after.incarnation(), before.incarnation());
        assert!(after.is_spent(&key(1)), "the node may still have a view with this key");
        assert!(!refuse(&mut after, &key(1)), "managers have yet to hear of this incarnation");
    }

    #[test]
    fn a_damaged_file_begins() {
        let dir = TempDir::new().unwrap();
        let before = open(&dir);
        let bytes = fs::read(&before.path).unwrap();
        fs::write(&before.path, &bytes[..bytes.len() / 2]).unwrap();
        let after = open(&dir);
        assert_ne!(after.incarnation(), before.incarnation());
        assert_eq!(open(&dir).incarnation(), after.incarnation(), "and is mended");
    }

    #[test]
    fn a_lost_key_begins_a_new_incarnation_once() {
        let dir = TempDir::new().unwrap();
        let mut ledger = open(&dir);
        spend(&mut ledger, &key(1));
        spend(&mut ledger, &key(2));
        assert!(refuse(&mut ledger, &key(1)));
        let second = ledger.incarnation();
        assert!(!refuse(&mut ledger, &key(1)), "managers have not heard of it yet");
        assert!(!refuse(&mut open(&dir), &key(2)), "nor after a restart");
        assert_eq!(open(&dir).incarnation(), second);
        assert!(open(&dir).is_spent(&key(1)), "for ever");

        spend(&mut ledger, &key(3));
        assert!(refuse(&mut ledger, &key(3)), "a key of the new one was lost, too");
        assert_ne!(ledger.incarnation(), second);
    }

    #[test]
    fn the_file_is_bounded_and_holds_no_key() {
        let dir = TempDir::new().unwrap();
        let mut ledger = open(&dir);
        let all = MOST_SPENT as u64;
        let secret = Key::new(*b"a key, and its salt.");
        spend(&mut ledger, &secret);
        ledger.turn(&[], 1..all).unwrap();
        let first = ledger.incarnation();
        assert!(ledger.turn(&[], all..2 * all).unwrap(), "this one has had its share");
        assert_ne!(ledger.incarnation(), first);
        assert!(ledger.is_spent(&secret), "the last incarnation's keys are remembered");
        assert!(ledger.turn(&[], 2 * all..3 * all).unwrap());
        assert_eq!(ledger.record.spent.len(), 2 * MOST_SPENT);

        let text = fs::read_to_string(&ledger.path).unwrap();
        assert!(!text.contains("salt") && !text.contains("97,32,107"), "{text}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_cannot_be_written_is_not_believed() {
        let dir = TempDir::new().unwrap();
        let mut ledger = open(&dir);
        let incarnation = ledger.incarnation();
        spend(&mut ledger, &key(1));
        fs::create_dir(dir.path().join("ipsec.json.new")).unwrap();
        let error = ledger.turn(&[key(1).fingerprint()], [7].into_iter()).unwrap_err().to_string();
        assert!(error.starts_with("write ") && error.contains("ipsec.json"), "{error}");
        assert_eq!(ledger.incarnation(), incarnation);
        assert_eq!(ledger.record.spent.len(), 1);
    }
}
