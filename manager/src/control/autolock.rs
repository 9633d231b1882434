//! `update --autolock`, `unlock-key`.

use swarm_model::UnlockKeyText;
use swarm_pki::UnlockKey;
use swarm_proto::control::UnlockKeyResponse;
use swarm_state::Change;
use tonic::Status;

use super::Control;

impl Control {
    pub(super) async fn set_autolock_now(&self, on: bool) -> Result<UnlockKeyResponse, Status> {
        let unlock_key = on.then(fresh);
        self.proposer.propose_one(Change::SetAutoLock { unlock_key }).await?;
        Ok(self.current_unlock_key())
    }

    pub(super) async fn unlock_key_now(&self, rotate: bool) -> Result<UnlockKeyResponse, Status> {
        if rotate {
            self.proposer.propose_one(Change::RotateUnlockKey { unlock_key: fresh() }).await?;
        } else {
            self.barrier().await?;
        }
        Ok(self.current_unlock_key())
    }

    fn current_unlock_key(&self) -> UnlockKeyResponse {
        let state = self.store.read();
        let key = state.cluster().and_then(|cluster| cluster.manager_lock.unlock_key.clone());
        UnlockKeyResponse { unlock_key: key.map(|key| key.0).unwrap_or_default() }
    }
}

/// A new unlock key, as text.
pub(crate) fn fresh() -> UnlockKeyText {
    UnlockKeyText(UnlockKey::from_random(rand::random()).to_string())
}
