//! openraft's storage conformance suite, on our log and state machine.

use std::sync::Arc;

use bytes::Bytes;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::{
    disk::Sled,
    halt::Halt,
    log_store::LogStore,
    snapshot::SnapshotStore,
    state_machine::{Committed, Machine, StateMachine},
    types::TypeConfig,
};

/// Counts what it was told.
struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, batch: Vec<Committed>) -> Result<Vec<Bytes>, String> {
        self.0 += batch.len() as u64;
        Ok(vec![Bytes::new(); batch.len()])
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let count = self.0;
        Box::new(move || count.to_le_bytes().to_vec())
    }

    fn restore(&mut self, _revision: u64, bytes: &[u8]) -> Result<(), String> {
        self.0 = u64::from_le_bytes(bytes.try_into().map_err(|_| "eight bytes expected")?);
        Ok(())
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(TempDir, LogStore, Machine), openraft::StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let key = crate::SealKey::new([1; 32], "a test");
        let (log, _closed) = LogStore::open(&Sled, &dir.path().join("log"), &key).unwrap();
        let snapshots = Arc::new(SnapshotStore::open(dir.path(), &key).unwrap());
        Ok((dir, log, Machine::new(Box::new(Counter(0)), snapshots, Halt::default())))
    }
}

#[tokio::test]
async fn the_storage_conforms() {
    Suite::test_all(Builder).await.unwrap();
}
