//! The unix socket that swarmctl talks to: root only.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tokio::net::{UnixListener, UnixStream};

/// Listens at `path`. A socket that a dead `swarmd` left is replaced; a living one is an error.
pub(crate) async fn listen(path: &Path) -> Result<UnixListener> {
    match UnixStream::connect(path).await {
        Ok(_) => bail!("another swarmd is running at {}", path.display()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(_) => std::fs::remove_file(path)
            .with_context(|| format!("cannot replace the dead socket {}", path.display()))?,
    }
    let context = || format!("cannot listen on {}", path.display());
    let listener = UnixListener::bind(path).with_context(context)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(context)?;
    Ok(listener)
}
