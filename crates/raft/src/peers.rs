//! Channels to the other managers: who they are, where they are, one connection per purpose.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, RwLock},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use swarm_proto::raft::raft_client::RaftClient;
use tonic::{Status, transport::Channel};

/// Why there is no channel to a manager.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot connect to {addr}: {reason}")]
pub struct ConnectError {
    /// As it was given to [`Connector::connect`].
    pub addr: String,
    /// Why, in words.
    pub reason: String,
}

/// Opens channels to other managers; the caller of this crate supplies authentication and encryption.
pub trait Connector: Clone + Send + Sync + 'static {
    /// Connects to the manager at `addr` (as given to `bootstrap` or `add_voter`). The result is kept
    /// and used by many calls at once.
    fn connect(&self, addr: &str) -> impl Future<Output = Result<Channel, ConnectError>> + Send;
}

/// What a connection is for. Heartbeats must not wait behind a stalled replication stream, which
/// may have used up its connection's flow control window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Short calls: votes, heartbeats, read index.
    Control,
    /// Log entries and snapshots.
    Replication,
}

type Connecting = Shared<BoxFuture<'static, Result<Channel, ConnectError>>>;
type Connect = dyn Fn(String) -> BoxFuture<'static, Result<Channel, ConnectError>> + Send + Sync;

/// The channels of one node, opened when they are first needed.
#[derive(Clone)]
pub(crate) struct Peers {
    connect: Arc<Connect>,
    channels: Arc<Mutex<HashMap<(String, Purpose), Connecting>>>,
    /// The newest known address of each member; openraft keeps using the one a stream began with.
    addresses: Arc<RwLock<HashMap<u64, String>>>,
}

impl Peers {
    pub(crate) fn new(connector: impl Connector) -> Self {
        let connect = move |addr: String| -> BoxFuture<'static, Result<Channel, ConnectError>> {
            let connector = connector.clone();
            Box::pin(async move {
                // A task of its own: the call that needs the channel may give up sooner than the
                // handshake ends, and the next one should find it done.
                let task = tokio::spawn({
                    let addr = addr.clone();
                    async move { connector.connect(&addr).await }
                });
                task.await
                    .unwrap_or_else(|error| Err(ConnectError { addr, reason: error.to_string() }))
            })
        };
        Self { connect: Arc::new(connect), channels: Arc::default(), addresses: Arc::default() }
    }

    /// Replaces what is known of the members, and forgets channels to addresses no longer in use.
    pub(crate) fn set_addresses(&self, members: HashMap<u64, String>) {
        let mut channels = self.channels.lock().expect("no holder panics");
        channels.retain(|(addr, _), _| members.values().any(|known| known == addr));
        *self.addresses.write().expect("no holder panics") = members;
    }

    /// Where member `id` is now.
    pub(crate) fn address(&self, id: u64) -> Option<String> {
        self.addresses.read().expect("no holder panics").get(&id).cloned()
    }

    /// A client for the manager at `addr`, connecting if there is no channel yet.
    pub(crate) async fn client(
        &self,
        addr: &str,
        purpose: Purpose,
    ) -> Result<RaftClient<Channel>, ConnectError> {
        let key = (addr.to_owned(), purpose);
        let connecting = {
            let mut channels = self.channels.lock().expect("no holder panics");
            let connect = || (self.connect)(addr.to_owned()).shared();
            channels.entry(key.clone()).or_insert_with(connect).clone()
        };
        match connecting.clone().await {
            Ok(channel) => Ok(RaftClient::new(channel)),
            Err(error) => {
                let mut channels = self.channels.lock().expect("no holder panics");
                if channels.get(&key).is_some_and(|current| current.ptr_eq(&connecting)) {
                    channels.remove(&key);
                }
                Err(error)
            }
        }
    }

    /// Forgets the channel if `status` tells that its connection is no good, so that the next call connects anew.
    pub(crate) fn report(&self, addr: &str, purpose: Purpose, status: &Status) {
        if matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown) {
            self.channels.lock().expect("no holder panics").remove(&(addr.to_owned(), purpose));
        }
    }
}
