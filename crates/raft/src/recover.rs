//! A cluster goes on with one manager: from what a survivor has, or from a saved state.
//!
//! Both work on the files of a manager that does not run, and leave a cluster whose only voter has an id that
//! was never used before: what managers of the former cluster still send is meant for another, and refused.

use std::{io, path::Path};

use bytes::Bytes;
use openraft::{
    BasicNode, RaftLogReader,
    storage::{RaftLogStorage, RaftLogStorageExt},
};
use tokio::sync::oneshot;

use swarm_seal::SealKey;

use crate::{
    disk::Sled,
    error::StartError,
    log_store::LogStore,
    snapshot::SnapshotStore,
    types::{Entry, Membership, Payload, SnapshotMeta, StoredMembership, Vote, log_id},
};

/// The manager that is left.
#[derive(Clone, Debug)]
pub struct Alone {
    /// The smallest id that no manager had up to `applied`.
    pub next_id: u64,
    /// The revision up to which its state machine has come.
    pub applied: u64,
    /// Where later managers reach it.
    pub addr: String,
}

/// Makes the manager whose files are in `dir` the only one of its cluster, and returns its new id. It keeps its
/// whole log, also what it does not know to be committed: some of that may have been acknowledged.
///
/// # Errors
/// See [`StartError`]; the files are in use, damaged, or of a manager that never was in a cluster.
pub async fn go_on_alone(dir: &Path, key: &SealKey, alone: Alone) -> Result<u64, StartError> {
    let (mut log, closed) = open(dir, key).await?;
    let last = log.get_log_state().await?.last_log_id;
    let last = last.ok_or_else(|| {
        let text = format!("{} is of a manager that was in no cluster", dir.display());
        io::Error::new(io::ErrorKind::NotFound, text)
    })?;
    let vote = log.get_log_reader().await.read_vote().await?;
    let term = last.leader_id.term.max(vote.map_or(0, |vote| vote.leader_id.term)) + 1;
    // Each entry that is yet to be applied may hand out one more id.
    let id = alone.next_id + last.index.saturating_sub(alone.applied);
    log.save_vote(&Vote::new(term, id)).await?;
    let entry = Entry {
        log_id: log_id(term, id, last.index + 1),
        payload: Payload::Membership(only(id, alone.addr)),
    };
    log.blocking_append([entry]).await.map_err(|error| StartError::Raft(error.to_string()))?;
    close(log, closed).await?;
    Ok(id)
}

/// Makes the files of the only manager of a cluster, with the id `id`, that begins with a saved state.
///
/// # Errors
/// See [`StartError`].
pub async fn begin_with(
    dir: &Path,
    key: &SealKey,
    id: u64,
    addr: String,
    revision: u64,
    state: Bytes,
) -> Result<(), StartError> {
    let begin = log_id(1, id, revision);
    let meta = SnapshotMeta {
        last_log_id: Some(begin),
        last_membership: StoredMembership::new(Some(begin), only(id, addr)),
    };
    let (folder, seal) = (dir.to_owned(), key.clone());
    let saved = tokio::task::spawn_blocking(move || {
        SnapshotStore::open(&folder, &seal)?.save(meta, &state).map(drop)
    });
    saved.await.map_err(io::Error::other)??;
    let (mut log, closed) = open(dir, key).await?;
    log.save_vote(&Vote::new(1, id)).await?;
    close(log, closed).await
}

fn only(id: u64, addr: String) -> Membership {
    let nodes = std::collections::BTreeMap::from([(id, BasicNode { addr })]);
    Membership::new(vec![std::collections::BTreeSet::from([id])], nodes)
        .expect("a voter with an address is a membership")
}

async fn open(dir: &Path, key: &SealKey) -> Result<(LogStore, oneshot::Receiver<()>), StartError> {
    let (dir, key) = (dir.join("log"), key.clone());
    let opened = tokio::task::spawn_blocking(move || LogStore::open(&Sled, &dir, &key));
    Ok(opened.await.map_err(io::Error::other)??)
}

/// Returns when the files are closed.
async fn close(log: LogStore, closed: oneshot::Receiver<()>) -> Result<(), StartError> {
    drop(log);
    // An error means the same: the storage thread has ended.
    let _ = closed.await;
    Ok(())
}
