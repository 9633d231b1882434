//! A node's line to its managers: an open session, or the attempt to open one.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::adapters::Overlay;
use crate::identity::Identity;
use crate::managers::Managers;
use crate::session::{self, Heard, Removed, Session};

/// How far the line is.
pub(crate) enum Line {
    /// Managers are being called.
    Opening(BoxFuture<'static, Result<Session, Removed>>),
    /// One answered.
    Open(Box<Session>),
}

/// What happens on it.
pub(crate) enum Event {
    /// A manager answered.
    Opened(Box<Session>),
    /// The swarm has removed this node.
    Removed,
    /// The manager said something.
    Heard(Heard),
    /// The session is over.
    Over,
}

/// Opens lines.
pub(crate) struct Caller {
    pub(crate) identity: Arc<Identity>,
    pub(crate) overlay: Arc<dyn Overlay>,
    pub(crate) managers: Managers,
    /// Why this node is not in touch with its swarm, for the user; empty if it is.
    pub(crate) trouble: watch::Sender<String>,
}

impl Caller {
    /// Begins to call managers after a pause.
    pub(crate) fn call(&self, pause: Duration) -> Line {
        let (identity, overlay) = (Arc::clone(&self.identity), Arc::clone(&self.overlay));
        let (managers, trouble) = (self.managers.clone(), self.trouble.clone());
        let opening = async move {
            sleep(pause).await; // as the caller wishes
            let description = identity.describe(&*overlay).await;
            session::open(&identity, &managers, &description, &trouble).await
        };
        Line::Opening(opening.boxed())
    }
}

impl Line {
    /// What happens next. Nothing is lost if it is not waited for to the end.
    pub(crate) async fn next(&mut self) -> Event {
        match self {
            Line::Opening(opening) => match opening.await {
                Ok(session) => Event::Opened(Box::new(session)),
                Err(Removed) => Event::Removed,
            },
            Line::Open(session) => session.hear().await.map_or(Event::Over, Event::Heard),
        }
    }

    /// The session, if it is open.
    pub(crate) fn session(&mut self) -> Option<&Session> {
        match self {
            Line::Opening(_) => None,
            Line::Open(session) => Some(session),
        }
    }
}
