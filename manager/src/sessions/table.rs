//! The nodes that have a session with this manager, and how far each is.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarm_model::NodeId;
use swarm_proto::membership::{SessionReport, SessionState};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// All sessions of this manager; cheap to clone.
#[derive(Clone)]
pub(crate) struct Sessions {
    table: Arc<Mutex<Table>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<NodeId, Arc<Session>>,
    /// Every session has been told what changed up to this revision, or is marked as lagging.
    distributed: u64,
}

/// One node's session.
pub(crate) struct Session {
    pub(crate) node: NodeId,
    progress: Mutex<Progress>,
    work: Notify,
    end: watch::Sender<Option<End>>,
    changed: watch::Sender<()>,
}

/// Why this manager ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The node opened another one.
    Replaced,
    /// The node was removed from the swarm.
    Removed,
    /// This node is a manager no more.
    Closed,
}

struct Progress {
    heard_at: Instant,
    /// Something changed that the node has not been sent.
    dirty: bool,
    /// Its view is being compared: whether it lags is not known until that is done.
    comparing: bool,
    /// It was sent this revision and has not acknowledged it.
    outstanding: Option<u64>,
    acknowledged: u64,
}

impl Sessions {
    pub(crate) fn new() -> Sessions {
        Sessions { table: Arc::default(), changed: watch::Sender::new(()) }
    }

    /// Opens a session; one that the node had before ends.
    pub(crate) fn open(&self, node: NodeId) -> Arc<Session> {
        let session = Arc::new(Session {
            node: node.clone(),
            progress: Mutex::new(Progress {
                heard_at: Instant::now(),
                dirty: true,
                comparing: false,
                outstanding: None,
                acknowledged: 0,
            }),
            work: Notify::new(),
            end: watch::Sender::new(None),
            changed: self.changed.clone(),
        });
        session.work.notify_one();
        if let Some(former) = self.lock().sessions.insert(node, Arc::clone(&session)) {
            former.end.send_replace(Some(End::Replaced));
        }
        self.changed.send_replace(());
        session
    }

    /// Closes a session, unless the node has opened another since.
    pub(crate) fn close(&self, session: &Arc<Session>) {
        let mut table = self.lock();
        if table.sessions.get(&session.node).is_some_and(|current| Arc::ptr_eq(current, session)) {
            table.sessions.remove(&session.node);
        }
    }

    /// Ends the session of a node that was removed, if it has one.
    pub(crate) fn expel(&self, node: &NodeId) {
        if let Some(session) = self.lock().sessions.get(node) {
            session.end.send_replace(Some(End::Removed));
        }
    }

    /// Ends all sessions: their nodes find another manager.
    pub(crate) fn end_all(&self) {
        for session in self.lock().sessions.values() {
            session.end.send_replace(Some(End::Closed));
        }
    }

    /// The nodes that have a session.
    pub(crate) fn nodes(&self) -> BTreeSet<NodeId> {
        self.lock().sessions.keys().cloned().collect()
    }

    /// How many nodes have a session.
    pub(crate) fn count(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Marks what changed up to `revision` as to be sent to these nodes.
    pub(crate) fn distribute(&self, revision: u64, affected: &BTreeSet<NodeId>) {
        let mut table = self.lock();
        for node in affected {
            if let Some(session) = table.sessions.get(node) {
                session.mark_dirty();
            }
        }
        table.distributed = table.distributed.max(revision);
        drop(table);
        self.changed.send_replace(());
    }

    /// What the leader is told.
    pub(crate) fn report(&self) -> SessionReport {
        let now = Instant::now();
        let table = self.lock();
        let sessions = table.sessions.values().map(|session| session.state(now)).collect();
        SessionReport { revision: table.distributed, sessions }
    }

    /// Hears when a report would differ by more than silences.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, now: Instant) -> SessionState {
        let progress = self.progress();
        let silence = now.saturating_duration_since(progress.heard_at);
        let lags = progress.dirty || progress.comparing || progress.outstanding.is_some();
        SessionState {
            node_id: self.node.to_string(),
            silence_ms: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
            lagging_at: lags.then_some(progress.acknowledged),
        }
    }

    fn mark_dirty(&self) {
        self.progress().dirty = true;
        self.work.notify_one();
    }

    /// The node was heard of.
    pub(crate) fn heard(&self) {
        self.progress().heard_at = Instant::now();
    }

    /// Waits until there is something to send and the node has acknowledged what it was sent before:
    /// so a slow node costs one message, and gets the newest state next.
    pub(crate) async fn work(&self) {
        loop {
            {
                let progress = self.progress();
                if progress.dirty && progress.outstanding.is_none() {
                    return;
                }
            }
            self.work.notified().await;
        }
    }

    /// Waits until this manager ends the session, and says why.
    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        let ended = end.wait_for(Option::is_some).await.map(|end| *end);
        // The sender is in `self`.
        ended.ok().flatten().unwrap_or(End::Replaced)
    }

    /// The view is about to be compared: what changes from now on makes the session dirty again.
    pub(crate) fn comparing(&self) {
        let mut progress = self.progress();
        progress.dirty = false;
        progress.comparing = true;
    }

    /// Nothing differs at `revision`.
    pub(crate) fn nothing_differs(&self, revision: u64) {
        let mut progress = self.progress();
        progress.comparing = false;
        progress.acknowledged = progress.acknowledged.max(revision);
        drop(progress);
        self.changed.send_replace(());
    }

    /// The view of `revision` is being sent.
    pub(crate) fn sending(&self, revision: u64) {
        let mut progress = self.progress();
        progress.comparing = false;
        progress.outstanding = Some(revision);
    }

    /// The node has programmed `revision`.
    pub(crate) fn acknowledged(&self, revision: u64) {
        let mut progress = self.progress();
        if progress.outstanding == Some(revision) {
            progress.outstanding = None;
        }
        progress.acknowledged = progress.acknowledged.max(revision);
        drop(progress);
        self.work.notify_one();
        self.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What the leader is told of the one node.
    fn lagging_at(sessions: &Sessions) -> Option<u64> {
        sessions.report().sessions[0].lagging_at
    }

    #[tokio::test]
    async fn a_node_lags_from_the_change_until_it_acknowledges() {
        let sessions = Sessions::new();
        let session = sessions.open("a".into());
        session.comparing();
        session.sending(5);
        session.acknowledged(5);
        sessions.distribute(5, &BTreeSet::new());
        assert_eq!((sessions.report().revision, lagging_at(&sessions)), (5, None));

        sessions.distribute(7, &BTreeSet::from(["a".into()]));
        assert_eq!(lagging_at(&sessions), Some(5), "changed");
        session.work().await;
        session.comparing();
        assert_eq!(lagging_at(&sessions), Some(5), "being compared");
        session.sending(7);
        assert_eq!(lagging_at(&sessions), Some(5), "sent");
        session.acknowledged(7);
        assert_eq!(lagging_at(&sessions), None, "acknowledged");
    }

    #[tokio::test]
    async fn a_change_that_does_not_concern_a_node_needs_no_acknowledgement() {
        let sessions = Sessions::new();
        let session = sessions.open("a".into());
        session.comparing();
        session.nothing_differs(3);
        sessions.distribute(9, &BTreeSet::from(["b".into()]));
        assert_eq!((sessions.report().revision, lagging_at(&sessions)), (9, None));
    }

    #[tokio::test]
    async fn a_second_session_ends_the_first() {
        let sessions = Sessions::new();
        let first = sessions.open("a".into());
        let second = sessions.open("a".into());
        assert_eq!(first.ended().await, End::Replaced);
        sessions.close(&first);
        assert_eq!(sessions.report().sessions.len(), 1, "the second stays");
        sessions.close(&second);
        assert!(sessions.report().sessions.is_empty());
    }

    #[tokio::test]
    async fn the_session_of_a_removed_node_ends_even_if_the_node_never_acknowledges() {
        let sessions = Sessions::new();
        let session = sessions.open("a".into());
        session.comparing();
        session.sending(3);
        sessions.expel(&"b".into());
        sessions.expel(&"a".into());
        assert_eq!(session.ended().await, End::Removed);
    }

    #[tokio::test]
    async fn a_slow_node_is_sent_nothing_until_it_acknowledges_and_then_the_newest() {
        let sessions = Sessions::new();
        let session = sessions.open("a".into());
        session.work().await;
        session.comparing();
        session.sending(3);
        for revision in 4..9 {
            sessions.distribute(revision, &BTreeSet::from(["a".into()]));
        }
        let waited = tokio::time::timeout(Duration::from_millis(20), session.work()).await;
        assert!(waited.is_err(), "the first is not acknowledged yet");
        session.acknowledged(2);
        let waited = tokio::time::timeout(Duration::from_millis(20), session.work()).await;
        assert!(waited.is_err(), "that was another revision");
        let (_, ()) = tokio::join!(session.work(), async { session.acknowledged(3) });
    }
}
