//! What this node has to say of its tasks: the newest status of each, until a manager has heard it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarm_model::{TaskId, TaskStatus};
use tokio::sync::Notify;

/// The longest error that is reported, in bytes.
const LONGEST_ERROR: usize = 2048;

/// Statuses to report; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Reporter {
    statuses: Arc<Mutex<Statuses>>,
    news: Arc<Notify>,
}

#[derive(Default)]
struct Statuses {
    latest: BTreeMap<TaskId, TaskStatus>,
    unsent: BTreeSet<TaskId>,
}

impl Reporter {
    /// Notes a task's newest status.
    pub(crate) fn report(&self, task: &TaskId, mut status: TaskStatus) {
        status.err.truncate(status.err.floor_char_boundary(LONGEST_ERROR));
        let mut statuses = self.lock();
        statuses.latest.insert(task.clone(), status);
        statuses.unsent.insert(task.clone());
        drop(statuses);
        self.news.notify_one();
    }

    /// Forgets a task that the managers have forgotten.
    pub(crate) fn forget(&self, task: &TaskId) {
        let mut statuses = self.lock();
        statuses.latest.remove(task);
        statuses.unsent.remove(task);
    }

    /// Everything is to be sent again: a new session begins, and what the last one lost is not known.
    pub(crate) fn resend(&self) {
        let mut statuses = self.lock();
        statuses.unsent = statuses.latest.keys().cloned().collect();
        drop(statuses);
        self.news.notify_one();
    }

    /// Waits for statuses to send, and takes them.
    pub(crate) async fn take(&self) -> Vec<(TaskId, TaskStatus)> {
        loop {
            {
                let mut statuses = self.lock();
                let unsent = std::mem::take(&mut statuses.unsent);
                if !unsent.is_empty() {
                    let take = |id: TaskId| statuses.latest.get(&id).cloned().map(|s| (id, s));
                    return unsent.into_iter().filter_map(take).collect();
                }
            }
            self.news.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Statuses> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
