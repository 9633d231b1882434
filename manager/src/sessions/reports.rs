//! What nodes report of their tasks and of themselves, gathered from all sessions into few proposals.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use swarm_model::{NodeId, TaskId, TaskStatus, TlsInfo};
use swarm_state::Change;
use tokio::sync::{Notify, watch};

use crate::error::ApiError;
use crate::replica::pieces::pieces;
use crate::replica::proposer::Proposer;
use crate::replica::store::Store;

/// The most reports that are proposed at a time.
const BATCH: usize = 256;
/// The longest text of a report, in bytes; the rest is cut off. A node could say anything.
const LONGEST_TEXT: usize = 2048;
/// The pause before a batch that found no leader is proposed again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Takes reports; cheap to clone. It never makes a session wait, which would make its node seem silent,
/// nor grows beyond the tasks and nodes there are: only the newest report on each is kept.
#[derive(Clone)]
pub(crate) struct Reports {
    waiting: Arc<Mutex<Waiting>>,
    news: Arc<Notify>,
    /// How many of the reports on tasks that were ever taken are in the state.
    stored: watch::Sender<u64>,
    store: Store,
}

#[derive(Default)]
struct Waiting {
    statuses: BTreeMap<TaskId, TaskStatus>,
    /// In the order they came, so that none waits for ever; each with its number.
    order: VecDeque<(u64, TaskId)>,
    /// How many reports were ever taken.
    taken: u64,
    troubles: BTreeMap<NodeId, String>,
    certificates: BTreeMap<NodeId, TlsInfo>,
}

impl Reports {
    pub(crate) fn new(store: Store) -> Reports {
        Reports {
            waiting: Arc::default(),
            news: Arc::default(),
            stored: watch::Sender::new(0),
            store,
        }
    }

    /// Queues a node's reports on its own tasks; others are none of its business.
    pub(crate) fn add(&self, node: &NodeId, reports: impl Iterator<Item = (TaskId, TaskStatus)>) {
        let own: Vec<(TaskId, TaskStatus)> = {
            let state = self.store.read();
            let is_own = |id: &TaskId| state.task(id).is_some_and(|t| t.is_on(node));
            reports.filter(|(id, _)| is_own(id)).collect()
        };
        let mut waiting = self.lock();
        for (id, status) in own {
            waiting.add(id, bounded(status));
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Waits until all reports on tasks that were added before this call are in the state.
    pub(crate) fn stored(&self) -> impl Future<Output = ()> + Send + use<> {
        let taken = self.lock().taken;
        let mut stored = self.stored.subscribe();
        async move {
            // An error means that the manager ends.
            drop(stored.wait_for(|stored| *stored >= taken).await);
        }
    }

    /// Queues why a node's data plane lags behind; nodes are listed with it.
    pub(crate) fn add_trouble(&self, node: &NodeId, mut reason: String) {
        cut(&mut reason);
        self.lock().troubles.insert(node.clone(), reason);
        self.news.notify_one();
    }

    /// Queues which certificate a node has now, if that is news.
    pub(crate) fn add_certificate(&self, node: &NodeId, tls_info: TlsInfo) {
        let known = self.store.read().node(node).cloned();
        let differs = known.is_some_and(|node| node.description.tls_info != tls_info);
        let mut waiting = self.lock();
        if differs || waiting.certificates.contains_key(node) {
            waiting.certificates.insert(node.clone(), tls_info);
            drop(waiting);
            self.news.notify_one();
        }
    }

    /// Proposes what was reported; ends with the manager.
    pub(crate) async fn gather(self, proposer: Proposer) {
        loop {
            let (batch, number) = {
                let mut waiting = self.lock();
                (waiting.take(), waiting.done())
            };
            if batch.is_empty() {
                self.news.notified().await;
                continue;
            }
            for piece in pieces(batch) {
                // A report may be proposed twice: the second is out of date and changes nothing. One that
                // is rejected concerns a task that is gone or further on.
                while let Err(error) = proposer.propose(piece.clone()).await {
                    tracing::warn!("cannot store {} task reports: {error}", piece.len());
                    if matches!(error, ApiError::Invalid(_)) {
                        break; // it will not be accepted later either
                    }
                    tokio::time::sleep(RETRY_PAUSE).await; // between tries at a cluster in election
                }
            }
            self.stored.send_replace(number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn add(&mut self, id: TaskId, status: TaskStatus) {
        self.taken += 1;
        match self.statuses.get_mut(&id) {
            Some(former) if status.state < former.state => {}
            Some(former) => *former = status,
            None => {
                self.order.push_back((self.taken, id.clone()));
                self.statuses.insert(id, status);
            }
        }
    }

    /// The number of the last report before which none is waiting. (One that took the place of another waits as that
    /// did.)
    fn done(&self) -> u64 {
        self.order.front().map_or(self.taken, |(number, _)| number - 1)
    }

    fn take(&mut self) -> Vec<Change> {
        let troubles = std::iter::from_fn(|| self.troubles.pop_first())
            .map(|(id, reason)| Change::NoteNodeTrouble { id, reason });
        let certificates = std::iter::from_fn(|| self.certificates.pop_first())
            .map(|(id, tls_info)| Change::SetNodeTls { id, tls_info });
        let mut batch: Vec<Change> = troubles.chain(certificates).take(BATCH).collect();
        while batch.len() < BATCH
            && let Some((_, id)) = self.order.pop_front()
        {
            batch.extend(self.statuses.remove(&id).map(|status| Change::ReportTask { id, status }));
        }
        batch
    }
}

fn bounded(mut status: TaskStatus) -> TaskStatus {
    cut(&mut status.message);
    cut(&mut status.err);
    if let Some(container) = &mut status.container_status {
        cut(&mut container.container_id);
    }
    status
}

fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(LONGEST_TEXT));
}

#[cfg(test)]
mod tests {
    use swarm_model::TaskState;

    use super::*;

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus { state, ..TaskStatus::default() }
    }

    fn taken(waiting: &mut Waiting) -> Vec<(String, TaskState)> {
        let reports = waiting.take().into_iter().map(|change| match change {
            Change::ReportTask { id, status } => (id.to_string(), status.state),
            other => panic!("{other:?}"),
        });
        reports.collect()
    }

    #[test]
    fn only_the_newest_report_of_a_task_is_kept() {
        let mut waiting = Waiting::default();
        waiting.add("b".into(), status(TaskState::Preparing));
        waiting.add("a".into(), status(TaskState::Failed));
        waiting.add("b".into(), status(TaskState::Running));
        waiting.add("a".into(), status(TaskState::Running));
        let expected = [("b".to_owned(), TaskState::Running), ("a".to_owned(), TaskState::Failed)];
        assert_eq!(taken(&mut waiting), expected);
        assert!(waiting.take().is_empty() && waiting.statuses.is_empty());
    }

    #[test]
    fn batches_are_bounded_and_lose_nothing() {
        let mut waiting = Waiting::default();
        for at in 0..BATCH * 2 + 1 {
            waiting.add(format!("{at:05}").as_str().into(), status(TaskState::Running));
        }
        let sizes: Vec<usize> = std::iter::from_fn(|| Some(taken(&mut waiting).len()))
            .take_while(|size| *size > 0)
            .collect();
        assert_eq!(sizes, [BATCH, BATCH, 1]);
    }

    #[test]
    fn a_report_is_done_once_it_and_all_before_it_were_taken() {
        let mut waiting = Waiting::default();
        waiting.add("a".into(), status(TaskState::Running));
        assert_eq!(waiting.done(), 0);
        waiting.take();
        assert_eq!(waiting.done(), 1);
        for at in 0..BATCH + 1 {
            waiting.add(format!("{at:05}").as_str().into(), status(TaskState::Running));
        }
        // In the place of the first.
        waiting.add("00000".into(), status(TaskState::Failed));
        waiting.take();
        assert_eq!(waiting.done(), 1 + BATCH as u64);
        waiting.take();
        assert_eq!(waiting.done(), 1 + BATCH as u64 + 2);
    }

    #[test]
    fn troubles_go_along_and_the_last_word_counts() {
        let mut waiting = Waiting::default();
        waiting.add("a".into(), status(TaskState::Running));
        waiting.troubles.insert("n".into(), "nft is stuck".into());
        waiting.troubles.insert("n".into(), String::new());
        let batch = waiting.take();
        assert!(
            matches!(&batch[0], Change::NoteNodeTrouble { reason, .. } if reason.is_empty()),
            "{batch:?}"
        );
        assert_eq!(batch.len(), 2);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = TaskStatus { err: "é".repeat(LONGEST_TEXT), ..TaskStatus::default() };
        let cut = bounded(TaskStatus { message: "x".repeat(LONGEST_TEXT + 1), ..long });
        assert_eq!((cut.err.len(), cut.message.len()), (LONGEST_TEXT, LONGEST_TEXT));
    }
}
