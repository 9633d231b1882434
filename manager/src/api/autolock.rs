//! `update --autolock`, `unlock-key`.

use std::time::Duration;

use swarm_model::UnlockKeyText;
use swarm_pki::UnlockKey;
use swarm_proto::control::UnlockKeyResponse;
use swarm_state::Change;
use tonic::Status;

use super::Control;
use crate::members::{health, probe};

/// How long another manager may take to show that it is there. A false alarm would be a nuisance for years.
const PATIENCE: Duration = Duration::from_secs(5);

impl Control {
    pub(super) async fn set_autolock_now(&self, on: bool) -> Result<UnlockKeyResponse, Status> {
        let unlock_key = on.then(fresh);
        let had_key = !self.unlock_key_text().await?.is_empty();
        self.proposer.propose_one(Change::SetAutoLock { unlock_key }).await?;
        let warnings = if had_key && !on { self.former_key_needed().await } else { vec![] };
        Ok(UnlockKeyResponse { unlock_key: self.unlock_key_text().await?, warnings })
    }

    pub(super) async fn unlock_key_now(&self, rotate: bool) -> Result<UnlockKeyResponse, Status> {
        if !rotate {
            let unlock_key = self.unlock_key_text().await?;
            return Ok(UnlockKeyResponse { unlock_key, warnings: vec![] });
        }
        self.proposer.propose_one(Change::RotateUnlockKey { unlock_key: fresh() }).await?;
        let warnings = self.former_key_needed().await;
        Ok(UnlockKeyResponse { unlock_key: self.unlock_key_text().await?, warnings })
    }

    /// Which managers are yet to hear of the change that was just made, in words.
    async fn former_key_needed(&self) -> Vec<String> {
        let status = self.raft.status().borrow().clone();
        let missing = probe::missing(self.peers.connector(), &status, PATIENCE).await;
        health::former_key_needed(&self.store.read(), &missing)
    }

    /// Empty if there is none.
    async fn unlock_key_text(&self) -> Result<String, Status> {
        self.barrier().await?;
        let state = self.store.read();
        let key = state.cluster().and_then(|cluster| cluster.manager_lock.unlock_key.clone());
        Ok(key.map(|key| key.0).unwrap_or_default())
    }
}

/// A new unlock key, as text.
pub(crate) fn fresh() -> UnlockKeyText {
    UnlockKeyText(UnlockKey::from_random(rand::random()).to_string())
}
