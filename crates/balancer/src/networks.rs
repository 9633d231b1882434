//! What an engine remembers of each network, and the order of its work: one call at a time for a network, in all no more
//! than the machine bears.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use swarm_netns::{Identity, Namespace};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use crate::{Error, Result};

/// A memory of type `M` per network.
#[derive(Debug)]
pub(crate) struct Networks<M> {
    memories: Mutex<HashMap<String, Arc<AsyncMutex<M>>>>,
    /// Bounds the threads and `nft` processes: after a restart a node programs all its networks at once.
    permits: Arc<Semaphore>,
}

impl<M> Default for Networks<M> {
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self { memories: Mutex::default(), permits: Arc::new(Semaphore::new(2 * processors)) }
    }
}

impl<M: Default + Send + 'static> Networks<M> {
    /// Runs `work` in the network's namespace, alone for this network.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        id: &str,
        netns: &Path,
        work: impl FnOnce(Identity, &mut M) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let memory = Arc::clone(
            self.memories
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(id.into())
                .or_default(),
        );
        let mut memory = memory.lock_owned().await;
        let permit =
            Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        // The thread owns lock and permit: a caller that goes away does not let a second transaction overtake this one.
        let namespace = Namespace::open(netns)?;
        let identity = namespace.identity();
        let alone = move || {
            let _permit = permit;
            work(identity, &mut memory)
        };
        namespace.run(alone).await?
    }

    /// Forgets a network that was removed, unless someone is at it. That its namespace was gone is no error: with it
    /// went all that was in it.
    pub(crate) fn removed(&self, id: &str, outcome: Result<()>) -> Result<()> {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        if memories.get(id).is_some_and(|memory| Arc::strong_count(memory) == 1) {
            memories.remove(id);
        }
        match outcome {
            Err(Error::Namespace(error)) if error.is_missing() => Ok(()),
            other => other,
        }
    }
}
