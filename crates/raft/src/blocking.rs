//! Work that blocks: files.

use std::io;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does it on a thread for such work. A runtime of one thread has it done in place: there it holds nobody
/// up that another thread would serve, and what happens does not depend on the order of threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
