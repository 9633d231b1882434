//! Where the programs are that a playground runs.

use crate::error::IoContext;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The programs of a playground.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The daemon.
    pub swarmd: PathBuf,
    /// The command line tool.
    pub swarmctl: PathBuf,
    /// The program that makes playgrounds, and is the init of their hosts.
    pub playground: PathBuf,
    /// The sample server, linked statically or dynamically.
    pub whoami: PathBuf,
}

impl Binaries {
    /// Finds them beside the running executable, or one directory up (test executables live in `deps/`).
    ///
    /// # Errors
    /// [`Error::BadFile`] naming the first that is missing and how to build it.
    pub fn locate() -> Result<Self> {
        let exe = std::env::current_exe().io("find", "the running executable")?;
        let dir = exe.parent().unwrap_or(Path::new("/"));
        let dir = match dir.file_name() {
            Some(name) if name == "deps" => dir.parent().unwrap_or(dir),
            _ => dir,
        };
        Self::in_dir(dir)
    }

    /// Finds them in `dir`.
    ///
    /// # Errors
    /// As [`Binaries::locate`].
    pub fn in_dir(dir: &Path) -> Result<Self> {
        let find = |name: &str| {
            let path = dir.join(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(Error::BadFile { path, reason: "no such file; `cargo build` makes it".to_owned() })
        };
        Ok(Self {
            swarmd: find("swarmd")?,
            swarmctl: find("swarmctl")?,
            playground: find("swarm-playground")?,
            whoami: find("swarm-whoami")?,
        })
    }
}
