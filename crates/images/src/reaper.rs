//! Deletes directories behind the callers' backs: tens of thousands of files may take the disk many seconds.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};

/// A thread of its own, not one of the runtime's: a process that ends does not wait for it. It ends with the last
/// clone of this value, once all it was given is gone.
#[derive(Clone, Debug)]
pub(crate) struct Reaper(Sender<PathBuf>);

impl Reaper {
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, paths) = channel();
        let work = move || paths.iter().for_each(remove);
        std::thread::Builder::new().name("image-reaper".into()).spawn(work)?;
        Ok(Self(sender))
    }

    /// Deletes a directory, or file, some time soon; if the process ends before, the next start of the store does.
    pub(crate) fn take(&self, path: PathBuf) {
        if let Err(error) = self.0.send(path) {
            tracing::warn!(path = %error.0.display(), "cannot remove temporary image files: the reaper is gone");
        }
    }
}

fn remove(path: PathBuf) {
    let removed = match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => std::fs::remove_file(&path),
        other => other,
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove temporary image files");
        }
        _ => {}
    }
}
