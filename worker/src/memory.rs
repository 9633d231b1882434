//! What a node remembers of its managers' words over a restart of `swarmd`: with it, balancing and DNS go
//! on even if no manager answers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::{ManagerAddress, NodeId, NodeView, codec};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::time::Instant;

/// The file's name in the node's state directory.
const FILE: &str = "view.bin";
/// The pause after the file was written, in times that that took: many changes of a large view cost one,
/// and nobody waits long for a small one.
const PAUSE: u32 = 5;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Whose it is: a host that leaves and joins becomes another node.
    pub(crate) node: NodeId,
    /// What the node was last told.
    pub(crate) view: NodeView,
    /// Where managers were; empty if none was heard yet.
    pub(crate) managers: Vec<ManagerAddress>,
    /// Counts the changes since `swarmd` began.
    #[serde(skip)]
    pub(crate) changes: u64,
}

impl Memory {
    /// What `node` remembers if nobody has said anything yet.
    pub(crate) fn empty(node: NodeId) -> Memory {
        Memory { node, view: NodeView::default(), managers: Vec::new(), changes: 0 }
    }
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct MemoryFile(PathBuf);

impl MemoryFile {
    pub(crate) fn new(dir: &Path) -> MemoryFile {
        MemoryFile(dir.join(FILE))
    }

    /// Reads what `node` remembers. What cannot be read is as good as forgotten: a manager will say it
    /// again.
    pub(crate) fn load(&self, node: &NodeId) -> Memory {
        let nothing = Memory::empty(node.clone());
        let bytes = match std::fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return nothing,
            Err(e) => {
                tracing::warn!("cannot read {}: {e}", self.0.display());
                return nothing;
            }
        };
        match codec::decode::<Memory>(&bytes) {
            Ok(memory) if memory.node == *node => memory,
            Ok(memory) => {
                tracing::warn!("{} is of another node, {}", self.0.display(), memory.node);
                nothing
            }
            Err(e) => {
                tracing::warn!("cannot use {}: {e}", self.0.display());
                nothing
            }
        }
    }

    /// Writes it anew. A crash leaves the former or the new one; the loss of power may leave none.
    fn save(&self, memory: &Memory) -> io::Result<()> {
        // Not synced: it is written many times a second while much changes, on the disk that a manager's log is on, and
        // what it holds a manager will say again. It holds keys: nobody else may read it.
        swarm_durable::replace_unsynced(&self.0, &codec::encode(memory), 0o600)
    }

    /// On a thread for such work; in place where there is but one.
    async fn save_beside(&self, memory: Arc<Memory>) -> io::Result<()> {
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            return self.save(&memory);
        }
        let file = self.clone();
        let saved = tokio::task::spawn_blocking(move || file.save(&memory)).await;
        saved.map_err(io::Error::other).flatten()
    }

    /// Writes whatever becomes known, beside the agent, skips what was overtaken meanwhile, and says how many
    /// of the changes it has dealt with. Ends, with the last of it written, when the sender is gone.
    pub(crate) async fn keep(
        self,
        mut known: watch::Receiver<Arc<Memory>>,
        kept: watch::Sender<u64>,
    ) {
        while known.changed().await.is_ok() {
            let memory = Arc::clone(&known.borrow_and_update());
            let (began, changes) = (Instant::now(), memory.changes);
            if let Err(e) = self.save_beside(memory).await {
                tracing::error!("cannot remember what the managers said: {e}");
            }
            // Also if it failed: a node without room on its disk goes on.
            kept.send_replace(changes);
            tokio::time::sleep(PAUSE * began.elapsed()).await; // more may change along
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn memory(node: &str, managers: usize) -> Memory {
        let address =
            |at: usize| ManagerAddress { node_id: "m".into(), addr: format!("192.0.2.{at}:2377") };
        Memory {
            node: node.into(),
            view: NodeView::default(),
            managers: (0..managers).map(address).collect(),
            changes: managers as u64,
        }
    }

    #[test]
    fn what_was_saved_is_loaded_by_the_same_node_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = MemoryFile::new(dir.path());
        assert_eq!(file.load(&"a".into()), memory("a", 0), "nothing yet");
        file.save(&memory("a", 2)).unwrap();
        assert_eq!(file.load(&"a".into()), Memory { changes: 0, ..memory("a", 2) });
        assert_eq!(file.load(&"b".into()), memory("b", 0), "another node's");
        let mode = std::fs::metadata(&file.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds keys");
        std::fs::write(&file.0, b"torn").unwrap();
        assert_eq!(file.load(&"a".into()), memory("a", 0), "damaged");
    }

    #[tokio::test]
    async fn the_last_of_many_changes_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = MemoryFile::new(dir.path());
        let (sender, known) = watch::channel(Arc::new(memory("a", 0)));
        let (kept, changes) = watch::channel(0);
        let keeping = tokio::spawn(file.clone().keep(known, kept));
        for managers in 1..50 {
            sender.send_replace(Arc::new(memory("a", managers)));
            tokio::task::yield_now().await;
        }
        drop(sender);
        keeping.await.unwrap();
        assert_eq!(file.load(&"a".into()), Memory { changes: 0, ..memory("a", 49) });
        assert_eq!(*changes.borrow(), 49);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
