//! A manager's secrets on its disk: the key of its Raft files and the private key of its certificate. In a swarm with
//! autolock both need the unlock key after a restart: that seals the first, and the first the second.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use swarm_model::ManagerLock;
use swarm_pki::{NodeIdentity, PeerIdentity, Role, Stored, UnlockKey};
use swarm_raft::SealKey;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::keyfile::{Found, KeyFile};

/// What a locked manager answers, in Docker's words.
pub(crate) const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. \
                                 Please use \"swarmctl unlock\" to unlock it.";

/// What the private key of a certificate is sealed for.
const IDENTITY: &[u8] = b"private key of node.pem";

/// The secrets of this host.
pub(crate) struct Vault {
    raft: PathBuf,
    pki: PathBuf,
    file: KeyFile,
    open: Mutex<Option<Open>>,
    exposed: watch::Sender<bool>,
}

/// The key of the Raft files, once it is known.
struct Open {
    key: SealKey,
    locked: bool,
    /// The revision that had it locked, or no more.
    revision: u64,
}

impl Vault {
    /// Of the node with these directories.
    pub(crate) fn new(raft: PathBuf, pki: PathBuf) -> Vault {
        Vault {
            file: KeyFile::new(&raft),
            raft,
            pki,
            open: Mutex::default(),
            exposed: watch::Sender::default(),
        }
    }

    /// Whether the key of the certificate was on the disk in clear before this manager was locked: then it is to have
    /// another one.
    pub(crate) fn exposed(&self) -> watch::Receiver<bool> {
        self.exposed.subscribe()
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        // It is replaced as a whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of the Raft files; made for a manager that has none yet.
    pub(crate) fn key(&self) -> Result<SealKey> {
        let mut open = self.open();
        if let Some(open) = &*open {
            return Ok(open.key.clone());
        }
        let (key, revision) = match self.file.read()? {
            Some((Found::Open(key), revision)) => (key, revision),
            Some((Found::Locked(_), _)) => bail!(LOCKED),
            None if swarm_raft::is_sealed(&self.raft)? => bail!(
                "{} is missing: the manager's log cannot be read without the key in it; restore the file, \
                 or remove this node from the swarm and let it join again",
                self.raft.join("key").display()
            ),
            None => (self.file.make()?, 0),
        };
        *open = Some(Open { key: key.clone(), locked: false, revision });
        Ok(key)
    }

    /// Whether the unlock key is needed.
    pub(crate) fn is_locked(&self) -> Result<bool> {
        if self.open().is_some() {
            return Ok(false);
        }
        Ok(matches!(self.file.read()?, Some((Found::Locked(_), _))))
    }

    /// Opens what is locked; says whether that was the key.
    pub(crate) fn unlock(&self, with: &UnlockKey) -> Result<bool> {
        let mut open = self.open();
        let Some((Found::Locked(sealed), revision)) = self.file.read()? else { return Ok(true) };
        let Some(key) = self.file.unlock(&sealed, revision, with)? else { return Ok(false) };
        *open = Some(Open { key, locked: true, revision });
        Ok(true)
    }

    /// Forgets the key, not the file.
    pub(crate) fn close(&self) {
        *self.open() = None;
    }

    /// Writes this node's certificate and private key.
    pub(crate) fn save_identity(&self, identity: &NodeIdentity) -> Result<()> {
        self.write_identity(identity, self.open().as_ref())?;
        self.exposed.send_replace(false);
        Ok(())
    }

    /// A worker's key is never sealed: there would be nothing to open it with.
    fn write_identity(&self, identity: &NodeIdentity, open: Option<&Open>) -> Result<()> {
        match open.filter(|open| open.locked && identity.role() == Role::Manager) {
            Some(open) => identity.save_sealed(&self.pki, |key| open.key.seal(IDENTITY, key))?,
            None => identity.save(&self.pki)?,
        }
        Ok(())
    }

    /// This node's certificate and private key, if there are any.
    pub(crate) fn load_identity(&self, now: OffsetDateTime) -> Result<Option<NodeIdentity>> {
        self.read_identity(now, self.open().as_ref())
    }

    fn read_identity(
        &self,
        now: OffsetDateTime,
        open: Option<&Open>,
    ) -> Result<Option<NodeIdentity>> {
        let identity = match NodeIdentity::load_stored(&self.pki, now)? {
            None => return Ok(None),
            Some(Stored::Open(identity)) => {
                if open.is_some_and(|open| open.locked) {
                    // The change was cut short between the two files.
                    self.write_identity(&identity, open)?;
                }
                identity
            }
            Some(Stored::Sealed(sealed)) => {
                let identity =
                    sealed.open(|key| open.and_then(|open| open.key.open(IDENTITY, key).ok()))?;
                identity.check_validity(now)?;
                identity
            }
        };
        Ok(Some(identity))
    }

    /// Who this node is, whether it is locked or not.
    pub(crate) fn subject(&self, now: OffsetDateTime) -> Result<Option<PeerIdentity>> {
        Ok(NodeIdentity::load_stored(&self.pki, now)?.map(|stored| match stored {
            Stored::Open(identity) => identity.subject().clone(),
            Stored::Sealed(sealed) => sealed.subject().clone(),
        }))
    }

    /// Locks the files as the swarm's state says, unless they follow a later revision of it already.
    pub(crate) fn lock(&self, wanted: &ManagerLock) -> Result<()> {
        let mut open = self.open();
        let Some(now) = open.as_ref().filter(|open| wanted.revision > open.revision) else {
            return Ok(()); // it may be a manager no more
        };
        let unlock_key: Option<UnlockKey> = match &wanted.unlock_key {
            Some(text) => Some(text.0.parse().context("the swarm's unlock key is damaged")?),
            None => None,
        };
        let new =
            Open { key: now.key.clone(), locked: unlock_key.is_some(), revision: wanted.revision };
        let identity = self.read_identity(OffsetDateTime::now_utc(), Some(now))?;
        let write_key = || self.file.write(&new.key, unlock_key.as_ref(), new.revision);
        let write_identity = || match &identity {
            Some(identity) => self.write_identity(identity, Some(&new)),
            None => Ok(()),
        };
        // Whatever is sealed on the way, what opens it must be there.
        if new.locked {
            write_key()?;
            write_identity()?;
        } else {
            write_identity()?;
            write_key()?;
        }
        if new.locked && !now.locked {
            self.exposed.send_replace(identity.is_some());
        }
        tracing::info!(locked = new.locked, revision = new.revision, "autolock follows the swarm");
        *open = Some(new);
        Ok(())
    }
}

impl swarm_manager::Files for Vault {
    fn lock(&self, lock: &ManagerLock) -> Result<(), String> {
        Vault::lock(self, lock).map_err(|e| format!("{e:#}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use swarm_model::UnlockKeyText;
    use swarm_pki::{NODE_CERT_VALIDITY, RootCa, new_key_and_csr};

    use super::*;

    fn vault(dir: &Path) -> Vault {
        std::fs::create_dir_all(dir.join("raft")).unwrap();
        Vault::new(dir.join("raft"), dir.join("pki"))
    }

    fn unlock_key(byte: u8) -> UnlockKey {
        UnlockKey::from_random([byte; 32])
    }

    fn lock(byte: Option<u8>, revision: u64) -> ManagerLock {
        let text = |byte| UnlockKeyText(unlock_key(byte).to_string());
        ManagerLock { unlock_key: byte.map(text), revision }
    }

    fn identity(role: Role) -> NodeIdentity {
        let now = OffsetDateTime::now_utc();
        let ca = RootCa::generate("cluster", now).unwrap();
        let (key, csr) = new_key_and_csr().unwrap();
        let chain = ca.issue(&csr, "node", role, now, NODE_CERT_VALIDITY).unwrap();
        NodeIdentity::from_pem(&chain, &key).unwrap()
    }

    fn has_clear_key(dir: &Path) -> bool {
        let text = std::fs::read_to_string(dir.join("pki/node.pem")).unwrap();
        text.contains("BEGIN PRIVATE KEY")
    }

    #[test]
    fn a_locked_manager_opens_with_the_newest_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let first = vault(dir.path());
        let key = *first.key().unwrap().bytes();
        let mode = std::fs::metadata(dir.path().join("raft/key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let manager = identity(Role::Manager);
        first.save_identity(&manager).unwrap();
        first.lock(&lock(Some(1), 5)).unwrap();
        assert!(!first.is_locked().unwrap() && !has_clear_key(dir.path()));
        assert!(*first.exposed().borrow(), "its key was in clear");
        first.save_identity(&identity(Role::Manager)).unwrap();
        assert!(!*first.exposed().borrow());
        first.save_identity(&manager).unwrap();
        first.lock(&lock(None, 4)).unwrap(); // replayed
        first.lock(&lock(Some(2), 9)).unwrap();

        let again = vault(dir.path());
        assert!(again.is_locked().unwrap());
        assert_eq!(again.key().unwrap_err().to_string(), LOCKED);
        assert!(again.load_identity(now).is_err());
        assert_eq!(again.subject(now).unwrap().unwrap().node_id, "node");
        assert!(!again.unlock(&unlock_key(1)).unwrap(), "the former one");
        assert!(again.is_locked().unwrap());
        assert!(again.unlock(&unlock_key(2)).unwrap());
        assert_eq!(*again.key().unwrap().bytes(), key);
        let found = again.load_identity(now).unwrap().unwrap();
        // Line ends may differ.
        assert!(found.key_pem().lines().eq(manager.key_pem().lines()));
        again.lock(&lock(Some(1), 5)).unwrap(); // replayed: it is sealed with the newest still
        let renewed = identity(Role::Manager);
        again.save_identity(&renewed).unwrap();
        assert!(!has_clear_key(dir.path()));
        again.close();
        assert!(!again.unlock(&unlock_key(1)).unwrap());
        assert!(again.unlock(&unlock_key(2)).unwrap());

        again.lock(&lock(None, 12)).unwrap();
        let last = vault(dir.path());
        assert!(!last.is_locked().unwrap() && has_clear_key(dir.path()));
        assert_eq!(*last.key().unwrap().bytes(), key);
    }

    #[test]
    fn a_worker_is_never_locked_out_of_its_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path());
        vault.key().unwrap();
        vault.save_identity(&identity(Role::Manager)).unwrap();
        vault.lock(&lock(Some(1), 5)).unwrap();
        vault.save_identity(&identity(Role::Worker)).unwrap();
        assert!(has_clear_key(dir.path()));
        vault.close();
        assert!(vault.load_identity(OffsetDateTime::now_utc()).unwrap().is_some());
        vault.lock(&lock(Some(2), 6)).unwrap();
        assert!(has_clear_key(dir.path()), "it has no key any more to seal with");
    }

    #[test]
    fn what_was_cut_short_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let first = vault(dir.path());
        first.key().unwrap();
        first.lock(&lock(Some(1), 5)).unwrap();
        identity(Role::Manager).save(&dir.path().join("pki")).unwrap();
        let again = vault(dir.path());
        assert!(again.unlock(&unlock_key(1)).unwrap());
        assert!(again.load_identity(OffsetDateTime::now_utc()).unwrap().is_some());
        assert!(!has_clear_key(dir.path()));
    }
}
