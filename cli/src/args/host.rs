//! `--host`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where swarmd listens.
#[derive(Debug, Clone)]
pub(crate) struct Host(PathBuf);

impl Host {
    /// The socket.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Host, String> {
        match text.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(Host(path.into())),
            _ => Err("use unix://PATH, such as unix:///run/swarmd/swarmd.sock".to_owned()),
        }
    }
}
