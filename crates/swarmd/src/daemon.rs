//! What the rest of the daemon sees of this host's life, and asks of it. The life itself is [`crate::life`]'s.

use std::net::IpAddr;
use std::sync::Arc;

use swarm_manager::Handle;
use swarm_pki::{Connector, UnlockKey};
use swarm_proto::control::{InitRequest, InitResponse, JoinRequest, JoinResponse};
use swarm_worker::Managers;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::NodeConfig;
use crate::node::{Host, Node};

/// This host, and a way to ask of its life; cheap to clone.
#[derive(Clone)]
pub(crate) struct Daemon {
    pub(crate) host: Arc<Host>,
    pub(crate) shown: watch::Receiver<Shown>,
    pub(crate) orders: mpsc::Sender<Order>,
}

/// What this host is. Whoever only looks never waits for a change to end.
#[derive(Clone)]
pub(crate) enum Shown {
    /// Part of no swarm.
    Nothing,
    /// About to be part of one.
    Joining,
    /// Its node starts, or starts again.
    Starting,
    /// Its node is a manager without its unlock key.
    Locked { id: String, addr: IpAddr },
    /// Its node is a worker.
    Worker(View),
    /// Its node is a manager, and a worker too.
    Manager(View, Arc<Handle>),
    /// Its node ends for good.
    Leaving,
    /// It has a node, which does not start: why. It is tried again.
    Failed(String),
}

/// What can be asked of a running node by those who do not own it.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) managers: Managers,
    connector: Connector,
    trouble: watch::Receiver<String>,
}

impl View {
    pub(crate) fn of(node: &Node) -> View {
        View {
            config: Arc::new(node.config.clone()),
            managers: node.worker.managers().clone(),
            connector: node.connector.clone(),
            trouble: node.worker.trouble(),
        }
    }

    /// The node's id.
    pub(crate) fn id(&self) -> String {
        let identity = self.connector.credentials().identity();
        identity.map(|identity| identity.node_id().to_owned()).unwrap_or_default()
    }

    /// Why the node is not in touch with its swarm, in words; empty if it is.
    pub(crate) fn trouble(&self) -> String {
        self.trouble.borrow().clone()
    }
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// What this host is does not allow it, in words.
    #[error("{0}")]
    Refused(String),
    /// The unlock key is not this manager's.
    #[error("invalid key")]
    InvalidKey,
    /// It was tried.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// Where the answer to an order goes; who gave it may be gone.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, OrderError>>;

/// What can be asked of this host's life. Orders are carried out even if whoever gave them goes away.
pub(crate) enum Order {
    /// To begin a swarm, or to go on alone.
    Init(Box<InitRequest>, Reply<InitResponse>),
    Join(Box<JoinRequest>, Reply<JoinResponse>),
    Leave {
        force: bool,
        reply: Reply<()>,
    },
    /// With the key that was given, if that can be one.
    Unlock(Option<UnlockKey>, Reply<()>),
    /// To start again if this host's address is not the node's any more.
    Move,
}

impl Daemon {
    pub(crate) fn shown(&self) -> Shown {
        self.shown.borrow().clone()
    }

    pub(crate) async fn init(&self, request: InitRequest) -> Result<InitResponse, OrderError> {
        self.ask(|reply| Order::Init(Box::new(request), reply)).await
    }

    pub(crate) async fn join(&self, request: JoinRequest) -> Result<JoinResponse, OrderError> {
        self.ask(|reply| Order::Join(Box::new(request), reply)).await
    }

    pub(crate) async fn leave(&self, force: bool) -> Result<(), OrderError> {
        self.ask(|reply| Order::Leave { force, reply }).await
    }

    pub(crate) async fn unlock(&self, key: Option<UnlockKey>) -> Result<(), OrderError> {
        self.ask(|reply| Order::Unlock(key, reply)).await
    }

    /// Has the node look whether it is to move.
    pub(crate) async fn move_if_needed(&self) {
        // Fails only while the daemon ends.
        let _ = self.orders.send(Order::Move).await;
    }

    async fn ask<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, OrderError> {
        let ending = || OrderError::Refused("swarmd is ending".to_owned());
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| ending())?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }
}
