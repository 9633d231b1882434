//! Names of a layer under which nothing was made, although an entry says there is something: device nodes, and links to
//! them.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::fs;

use super::{Refusal, Result};

/// Most names; bounds memory.
const MOST: usize = 65_536;

/// The inode of a directory, and a name in it: a directory may be reached by several paths.
#[derive(Default)]
pub(super) struct Absent(HashSet<(u64, Vec<u8>)>);

impl Absent {
    pub(super) fn insert(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<()> {
        if self.0.len() >= MOST {
            return Err(Refusal::TooManyDevices(MOST));
        }
        self.0.insert((fs::fstat(parent)?.st_ino, name.to_vec()));
        Ok(())
    }

    pub(super) fn contains(&self, parent: &OwnedFd, name: &[u8]) -> Result<bool> {
        // Most layers have none: they pay for no lookup.
        Ok(!self.0.is_empty() && self.0.contains(&(fs::fstat(parent)?.st_ino, name.to_vec())))
    }
}
