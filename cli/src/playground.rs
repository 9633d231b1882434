//! `swarmctl playground`: a program of its own, so that the command line of a swarm in production is without it.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::error::Error;

/// The program.
const PROGRAM: &str = "swarm-playground";
/// What it says that it is, in its usage.
const NAME: &str = "swarmctl playground";

/// Becomes the program with these words, exit status and signals included.
pub(crate) fn run(words: &[OsString]) -> Result<Infallible, Error> {
    let program = find().ok_or_else(|| {
        Error::Failed(format!(
            "cannot find {PROGRAM}, which `swarmctl playground` runs, beside swarmctl or in PATH"
        ))
    })?;
    let failed = Command::new(&program).arg0(NAME).args(words).exec();
    Err(Error::io(format!("run {}", program.display()), failed))
}

/// Beside this executable, else in `PATH`.
fn find() -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(|own| own.parent()).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter(|dir| dir.as_os_str() != OsStr::new(""));
    beside.into_iter().chain(in_path).map(|dir| dir.join(PROGRAM)).find(|file| file.is_file())
}
