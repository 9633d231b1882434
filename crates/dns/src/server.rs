//! The server of a node: what it knows, and whom it serves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::names::{Names, NetworkNames};
use crate::relay::Relay;
use crate::sandbox::Sandbox;
use crate::scope::Scope;
use crate::shared::{Options, Shared};
use crate::{Error, netns};

/// The DNS server of a node. To be used within a tokio runtime. Dropping it ends all service.
pub struct DnsServer {
    shared: Arc<Shared>,
    sandboxes: Mutex<HashMap<String, Served>>,
}

struct Served {
    sandbox: Arc<Sandbox>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl DnsServer {
    /// A server without names and sandboxes.
    pub fn new(options: Options) -> Self {
        let limits = &options.limits;
        let relay = Relay::new(&options.upstreams, limits.upstream_attempt, limits.upstream_total);
        Self {
            shared: Arc::new(Shared {
                names: ArcSwap::default(),
                relay,
                relayed: Arc::new(Semaphore::new(limits.relayed_queries)),
                options,
            }),
            sandboxes: Mutex::default(),
        }
    }

    /// Replaces all names. Every query that arrives after this returns is answered from `names`.
    pub fn publish(&self, names: Arc<Names>) {
        self.shared.names.store(names);
    }

    /// Replaces the names of one network. Every query that arrives after this returns is answered from them.
    pub fn publish_network(&self, network: &str, names: Arc<NetworkNames>) {
        self.shared.names.rcu(|current| {
            let mut next = Names::clone(current);
            next.networks.insert(network.into(), names.clone());
            next
        });
    }

    /// Removes a network with all its names.
    pub fn remove_network(&self, network: &str) {
        self.shared.names.rcu(|current| {
            let mut next = Names::clone(current);
            next.networks.remove(network);
            next
        });
    }

    /// What is published now.
    pub fn names(&self) -> Arc<Names> {
        self.shared.names.load_full()
    }

    /// Replaces the node's resolvers, as when its resolv.conf changed.
    pub fn set_upstreams(&self, upstreams: &[SocketAddr]) {
        self.shared.relay.set_upstreams(upstreams);
    }

    /// Serves the sandbox `id` at [`LISTEN_ADDRESS`](crate::LISTEN_ADDRESS) inside the network namespace behind `netns`
    /// (`/proc/PID/ns/net` or a bind mount of it). Needs CAP_SYS_ADMIN. Tasks reach it once `lo` is up.
    ///
    /// # Errors
    /// If `id` is attached already, the namespace cannot be entered, or the port is taken there.
    pub async fn attach(&self, id: &str, netns: &Path, scope: Scope) -> Result<(), Error> {
        if self.is_attached(id) {
            return Err(Error::AlreadyAttached { id: id.to_owned() });
        }
        let sockets = netns::open(netns).await?;
        let mut sandboxes = self.sandboxes();
        // Asked again, as somebody else may have attached it meanwhile.
        if sandboxes.get(id).is_some_and(Served::is_alive) {
            return Err(Error::AlreadyAttached { id: id.to_owned() });
        }
        let sandbox = Arc::new(Sandbox::new(id.to_owned(), scope, self.shared.clone()));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(sandbox.clone().serve(sockets, stopped));
        let served = Served { sandbox, stop, task };
        sandboxes.insert(id.to_owned(), served);
        Ok(())
    }

    /// Changes what an attached sandbox sees, from the next query on, without a gap in the service.
    ///
    /// # Errors
    /// If `id` is not attached.
    pub fn set_scope(&self, id: &str, scope: Scope) -> Result<(), Error> {
        match self.sandboxes().get(id) {
            Some(served) => served.sandbox.set_scope(scope),
            None => return Err(Error::NotAttached { id: id.to_owned() }),
        }
        Ok(())
    }

    /// Ends the service of a sandbox. The port is free, and the namespace no longer held, when this returns.
    ///
    /// # Errors
    /// If `id` is not attached.
    pub async fn detach(&self, id: &str) -> Result<(), Error> {
        let served = self.sandboxes().remove(id);
        let served = served.ok_or_else(|| Error::NotAttached { id: id.to_owned() })?;
        drop(served.stop);
        if let Err(error) = served.task.await {
            tracing::error!(sandbox = %id, %error, "the DNS service of a sandbox had ended already");
        }
        Ok(())
    }

    /// The ids of the sandboxes being served, in no particular order. One whose service broke down is not among them and can
    /// be attached again.
    pub fn attached(&self) -> Vec<String> {
        let sandboxes = self.sandboxes();
        let alive = sandboxes.iter().filter(|(_, served)| served.is_alive());
        alive.map(|(id, _)| id.clone()).collect()
    }

    fn is_attached(&self, id: &str) -> bool {
        self.sandboxes().get(id).is_some_and(Served::is_alive)
    }

    fn sandboxes(&self) -> MutexGuard<'_, HashMap<String, Served>> {
        // Single insertions and removals: nobody can leave the map half changed.
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Served {
    fn is_alive(&self) -> bool {
        !self.task.is_finished()
    }
}
