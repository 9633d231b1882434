//! What a node says in a session: nothing above the swarm's feature level, which a manager of an older version would take
//! for the end of the session.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use swarm_model::FeatureLevel;
use swarm_proto::dispatch::{FromNode, from_node};
use tokio::sync::mpsc;

/// The way to the manager; clones share it.
#[derive(Clone)]
pub(crate) struct Outgoing {
    messages: mpsc::Sender<FromNode>,
    /// What the manager has said that all nodes speak.
    level: Arc<AtomicU32>,
}

/// The session is over.
#[derive(Debug)]
pub(crate) struct Over;

impl Outgoing {
    /// A way on which so many messages may wait, and its other end.
    pub(crate) fn new(waiting: usize) -> (Outgoing, mpsc::Receiver<FromNode>) {
        let (messages, receiver) = mpsc::channel(waiting);
        let level = Arc::new(AtomicU32::new(FeatureLevel::FIRST.number()));
        (Outgoing { messages, level }, receiver)
    }

    /// The manager says that all nodes speak this level.
    pub(crate) fn all_speak(&self, level: u32) {
        self.level.fetch_max(level, Ordering::Relaxed);
    }

    /// Sends a message, once there is room.
    pub(crate) async fn send(&self, message: from_node::Message) -> Result<(), Over> {
        self.send_at(message.level(), message).await
    }

    async fn send_at(&self, level: u32, message: from_node::Message) -> Result<(), Over> {
        let spoken = self.level.load(Ordering::Relaxed);
        if level > spoken {
            tracing::error!(
                "a message of feature level {level} is not sent: the swarm is at {spoken}"
            );
            return Ok(());
        }
        self.messages.send(FromNode { message: Some(message) }).await.map_err(|_| Over)
    }
}

#[cfg(test)]
mod tests {
    use swarm_proto::dispatch::Trouble;

    use super::*;

    #[tokio::test]
    async fn nothing_is_said_above_what_all_speak() {
        let (outgoing, mut said) = Outgoing::new(4);
        let message = |reason: &str| from_node::Message::Trouble(Trouble { reason: reason.into() });
        outgoing.send(message("first")).await.unwrap();
        outgoing.send_at(2, message("too early")).await.unwrap();
        outgoing.clone().all_speak(2);
        outgoing.all_speak(1); // a manager that lags behind: the level never goes back
        outgoing.send_at(2, message("second")).await.unwrap();
        drop(outgoing);
        let mut heard = Vec::new();
        while let Some(FromNode { message: Some(message) }) = said.recv().await {
            heard.push(message);
        }
        assert_eq!(heard, [message("first"), message("second")]);
    }
}
