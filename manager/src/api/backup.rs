//! The state as a file.

use bytes::Bytes;

use super::Api;
use crate::clock;
use crate::error::ApiError;
use crate::replica::backup;

impl Api {
    /// All that `swarmd restore` needs, as a file: nothing confirmed before the call is missing.
    pub async fn backup(&self) -> Result<Bytes, ApiError> {
        self.barrier().await?;
        let state = self.store.read();
        let version = self.store.dialect().engine.engine_version.clone();
        let encoded =
            tokio::task::spawn_blocking(move || backup::encode(&state, clock::now(), &version));
        encoded.await.map(Bytes::from).map_err(|e| ApiError::Internal(e.to_string()))
    }
}
