//! What can be asked of a running manager by those who do not own it. It outlives the manager without harm: then it tells of
//! the last that was.

use std::time::Duration;

use swarm_pki::Connector;
use swarm_raft::Raft;

use crate::api::Api;
use crate::leader::plan::waiting_for;
use crate::members::{health, probe};
use crate::replica::store::Store;
use crate::transport::Control;

/// How long another manager may take to show that it is there.
const PROBE: Duration = Duration::from_secs(1);

/// A manager, to be asked; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) api: Api,
    pub(crate) connector: Connector,
}

impl Handle {
    /// The API over gRPC, for the local socket.
    pub fn control(&self) -> Control {
        Control::new(self.api.clone())
    }

    /// Raft, for what `info` tells of it.
    pub fn raft(&self) -> &Raft {
        &self.api.raft
    }

    /// The replica.
    pub fn store(&self) -> &Store {
        &self.api.store
    }

    /// What a user should know of the managers, in words.
    pub fn warnings(&self) -> Vec<String> {
        let status = self.raft().status().borrow().clone();
        health::warnings(&status, &self.store().read())
    }

    /// The nodes that a rotation of the root waits for, in words; none if it is not being rotated.
    pub fn root_rotation(&self) -> Option<Vec<String>> {
        let state = self.store().read();
        state.cluster()?.root_rotation.as_ref()?;
        Some(waiting_for(&state))
    }

    /// That this manager has failed, or that there is no quorum, and what to do; empty if all is well. Asks the other
    /// managers whether they are there.
    pub async fn trouble(&self) -> String {
        if let Some(why) = self.store().unreadable() {
            return format!(
                "{why}; until then it votes no more, the others go on without it, and the containers here go on"
            );
        }
        let status = self.raft().status().borrow().clone();
        if let swarm_raft::Role::Failed(reason) = &status.role {
            return format!(
                "this manager has stopped, and votes no more: {reason}; the others go on without it; put its disk in order, then restart swarmd"
            );
        }
        if status.quorum_lost_since.is_none() {
            return String::new();
        }
        let missing = probe::missing(&self.connector, &status, PROBE).await;
        health::quorum_lost(&status, &self.store().read(), &missing)
    }
}
