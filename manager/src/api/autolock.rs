//! Whether managers lock themselves, and the key that unlocks them.

use std::time::Duration;

use swarm_model::UnlockKeyText;
use swarm_pki::UnlockKey;
use swarm_state::Change;

use super::Api;
use super::types::UnlockKeyInForce;
use crate::error::ApiError;
use crate::members::{health, probe};

/// How long another manager may take to show that it is there. A false alarm would be a nuisance for years.
const PATIENCE: Duration = Duration::from_secs(5);

impl Api {
    /// Switches autolock on or off.
    pub async fn set_autolock(&self, on: bool) -> Result<UnlockKeyInForce, ApiError> {
        let unlock_key = on.then(fresh);
        let had_key = self.unlock_key().await?.key.is_some();
        self.proposer.propose_one(Change::SetAutoLock { unlock_key }).await?;
        let warnings = if had_key && !on { self.former_key_needed().await } else { vec![] };
        Ok(UnlockKeyInForce { warnings, ..self.unlock_key().await? })
    }

    /// The present key.
    pub async fn unlock_key(&self) -> Result<UnlockKeyInForce, ApiError> {
        self.barrier().await?;
        let state = self.store.read();
        let key = state.cluster().and_then(|cluster| cluster.manager_lock.unlock_key.clone());
        Ok(UnlockKeyInForce { key, warnings: vec![] })
    }

    /// Replaces the key by a new one.
    pub async fn rotate_unlock_key(&self) -> Result<UnlockKeyInForce, ApiError> {
        self.proposer.propose_one(Change::RotateUnlockKey { unlock_key: fresh() }).await?;
        let warnings = self.former_key_needed().await;
        Ok(UnlockKeyInForce { warnings, ..self.unlock_key().await? })
    }

    /// Which managers are yet to hear of the change that was just made, in words.
    async fn former_key_needed(&self) -> Vec<String> {
        let status = self.raft.status().borrow().clone();
        let missing = probe::missing(self.peers.connector(), &status, PATIENCE).await;
        health::former_key_needed(&self.store.read(), &missing)
    }
}

/// A new unlock key, as text.
pub(crate) fn fresh() -> UnlockKeyText {
    UnlockKeyText(UnlockKey::from_random(rand::random()).to_string())
}
