//! Has this manager's files follow the unlock key in the replicated state.

use std::sync::Arc;
use std::time::Duration;

use swarm_model::ManagerLock;

use crate::replica::store::Store;

/// The pause before files that could not be written are tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Keeps a manager's files.
pub trait Files: Send + Sync + 'static {
    /// Locks them with the unlock key of `lock`, or no more, unless a later revision was heard. Blocks. The error is for
    /// the log.
    fn lock(&self, lock: &ManagerLock) -> Result<(), String>;
}

/// For ever.
pub(crate) async fn follow(store: Store, files: Arc<dyn Files>) {
    let mut revision = store.revisions();
    let mut done = 0;
    loop {
        let lock = store.read().cluster().map(|cluster| cluster.manager_lock.clone());
        if let Some(lock) = lock.filter(|lock| lock.revision > done) {
            let (files, wanted) = (Arc::clone(&files), lock.clone());
            let locked = tokio::task::spawn_blocking(move || files.lock(&wanted)).await;
            match locked.map_err(|e| e.to_string()).flatten() {
                Ok(()) => done = lock.revision,
                Err(e) => {
                    tracing::error!("cannot change how this manager is locked: {e}");
                    tokio::time::sleep(RETRY_PAUSE).await; // a full disk may have room again
                    continue;
                }
            }
        }
        // The sender lives as long as the store.
        if revision.changed().await.is_err() {
            return;
        }
    }
}
