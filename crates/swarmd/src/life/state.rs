//! What a host is at a time, with all that lives with it, and what comes of a change.

use tokio::task::JoinHandle;

use super::ruling::Phase;
use crate::daemon::{OrderError, Reply, Shown, View};
use crate::locked::LockedNode;
use crate::node::Node;

/// What this host is.
pub(super) enum Life {
    /// Part of no swarm.
    Nothing,
    /// Its node does not start, and why.
    Failed(String),
    /// A manager without its unlock key.
    Locked(Box<LockedNode>),
    /// A worker, and perhaps a manager.
    Node(Box<Node>),
    /// On its way: what comes of it.
    Changing(Phase, JoinHandle<Outcome>),
}

impl Life {
    pub(super) fn phase(&self) -> Phase {
        match self {
            Life::Nothing => Phase::Nothing,
            Life::Failed(why) => Phase::Failed(why.clone()),
            Life::Locked(_) => Phase::Locked,
            Life::Node(_) => Phase::Node,
            Life::Changing(phase, _) => phase.clone(),
        }
    }

    /// What is shown of a life that stays; of one on its way, whoever began that has shown it.
    pub(super) fn shown(&self) -> Option<Shown> {
        match self {
            Life::Nothing => Some(Shown::Nothing),
            Life::Failed(why) => Some(Shown::Failed(why.clone())),
            Life::Locked(node) => {
                Some(Shown::Locked { id: node.id.clone(), addr: node.config.data_path_addr })
            }
            Life::Node(node) => Some(match &node.manager {
                Some(manager) => Shown::Manager(View::of(node), manager.handle().into()),
                None => Shown::Worker(View::of(node)),
            }),
            Life::Changing(..) => None,
        }
    }
}

/// Says to whoever asked what came of it.
pub(super) type Answer = Box<dyn FnOnce() + Send>;

/// What comes of a change.
pub(super) struct Outcome {
    pub(super) life: Life,
    /// Given once the life is shown.
    pub(super) answer: Answer,
}

impl Outcome {
    /// Nobody asked for it.
    pub(super) fn of(life: Life) -> Outcome {
        Outcome { life, answer: Box::new(|| {}) }
    }

    pub(super) fn answering<T: Send + 'static>(
        life: Life,
        reply: Reply<T>,
        said: Result<T, OrderError>,
    ) -> Outcome {
        Outcome { life, answer: Box::new(|| answer(reply, said)) }
    }
}

pub(super) fn answer<T>(reply: Reply<T>, said: Result<T, OrderError>) {
    // Nobody is left to hear it if the call was given up.
    let _ = reply.send(said);
}
