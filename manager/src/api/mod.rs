//! The manager API: what can be asked of a swarm, as functions on domain types. Any manager answers; what changes the
//! state is proposed through Raft, what reads it waits until the replica here is up to date. Objects are meant by id, by
//! name, or by the beginning of an id.

mod autolock;
mod backup;
mod ca;
mod encryption;
mod io;
mod networks;
mod nodes;
mod resolve;
mod roles;
mod services;
mod tasks;
pub mod types;
mod watch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use swarm_model::{Cluster, NodeId};
use swarm_raft::{Raft, Role};

pub(crate) use autolock::fresh as fresh_unlock_key;

use crate::error::ApiError;
use crate::leader::fleet::Fleet;
use crate::members::peers::Peers;
use crate::replica::proposer::Proposer;
use crate::replica::store::Store;
use crate::transport::leader::LeaderClient;

/// Checks that an image can be had before a service is made of it.
pub trait Images: Send + Sync + 'static {
    /// The reference to store: with a digest if a registry gave one. The error is for the user.
    fn pin(
        &self,
        image: String,
    ) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>>;
}

/// A manager's API; cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(crate) node_id: NodeId,
    pub(crate) addr: String,
    pub(crate) store: Store,
    pub(crate) raft: Raft,
    pub(crate) peers: Peers,
    pub(crate) proposer: Proposer,
    pub(crate) fleet: Fleet,
    pub(crate) images: Arc<dyn Images>,
}

impl Api {
    async fn barrier(&self) -> Result<(), ApiError> {
        self.proposer.barrier().await
    }

    /// As [`Self::barrier`], for lists: without a quorum they still answer, and say why they may be
    /// out of date.
    async fn freshen(&self) -> String {
        let Err(error) = self.barrier().await else { return String::new() };
        match self.raft.status().borrow().quorum_lost_since {
            Some(since) => {
                format!("the swarm has had no quorum for {} s", since.elapsed().as_secs())
            }
            None => error.to_string(),
        }
    }

    fn cluster(&self) -> Result<Arc<Cluster>, ApiError> {
        let cluster = self.store.read().cluster().cloned();
        cluster.ok_or_else(|| ApiError::Unavailable("the swarm has no settings yet".into()))
    }

    /// `self` means the node that is asked, as in Docker.
    fn own_name(&self, name: &str) -> String {
        if name == "self" { self.node_id.to_string() } else { name.to_owned() }
    }

    /// The leader, if another manager leads: only it knows what is in force, and only it changes the quorum.
    fn other_leader(&self) -> Result<Option<LeaderClient>, ApiError> {
        let status = self.raft.status().borrow().clone();
        match status.leader {
            Some(leader) if leader.id == status.id => Ok(None),
            Some(leader) => Ok(Some(LeaderClient::new(self.peers.channel(&leader.addr)?))),
            None if status.role == Role::Removed => Err(self.proposer.no_leader()),
            None => {
                let text = "the swarm has no leader now: try again";
                Err(ApiError::Unavailable(text.into()))
            }
        }
    }
}
