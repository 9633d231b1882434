//! Work that waits for a disk, away from the threads that serve.

use std::io;

use tokio::task::{JoinError, spawn_blocking};

use crate::error::{Error, Result};

/// Runs blocking work; if it panicked, that is an error here.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::io("work on the image store")(joined(error))),
    }
}

/// What a thread's end says, as the error of what it did.
pub(crate) fn joined(error: JoinError) -> io::Error {
    io::Error::other(error)
}
