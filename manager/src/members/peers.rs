//! Channels to the other managers, opened once and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use swarm_pki::{Connector, ExpectedPeer};
use tonic::transport::Channel;

use crate::error::ApiError;

/// Channels by address; cheap to clone.
#[derive(Clone)]
pub struct Peers {
    connector: Connector,
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Peers {
    pub(crate) fn new(connector: Connector) -> Peers {
        Peers { connector, channels: Arc::default() }
    }

    /// The channel to the manager at `addr`; connects at its first use.
    pub(crate) fn channel(&self, addr: &str) -> Result<Channel, ApiError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(addr) {
            return Ok(channel.clone());
        }
        let channel = self
            .connector
            .connect_lazy(addr, ExpectedPeer::Manager)
            .map_err(|e| ApiError::Unavailable(e.to_string()))?;
        channels.insert(addr.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Drops the channel to a manager that does not answer: the next use connects anew.
    pub(crate) fn forget(&self, addr: &str) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(addr);
    }

    /// The connector, for nodes that are no managers.
    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }
}
