//! `backup`: the swarm's state in a file, from which `swarmd restore` begins it anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use swarm_proto::control::{Chunk, Empty};
use tonic::{Request, Streaming};

use crate::client::Client;
use crate::error::Error;
use crate::output::{self, size};

pub(super) async fn run(mut client: Client, path: &Path) -> Result<(), Error> {
    // An older backup may be the only one that is good.
    if path.exists() {
        return Err(Error::Failed(format!("cannot write {}: it exists already", path.display())));
    }
    let chunks = client.control.backup(Request::new(Empty {})).await?.into_inner();
    let partial = Partial::create(path)?;
    let length = partial.fill(chunks).await?;
    partial.finish(path)?;
    output::line(&format!("Backup written to {} ({}).", path.display(), size::binary(length)))?;
    output::note("It holds the keys of the swarm: keep it as secret as a manager's disk.");
    Ok(())
}

/// A file that is not all there yet: it goes again unless it comes to be.
struct Partial {
    file: File,
    path: PathBuf,
}

impl Drop for Partial {
    fn drop(&mut self) {
        // By now it has its name, or it is of no use to anybody; what failed is told already.
        let _ = fs::remove_file(&self.path);
    }
}

impl Partial {
    fn create(target: &Path) -> Result<Partial, Error> {
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let path = PathBuf::from(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(|e| cannot_write(target, e))?;
        Ok(Partial { file, path })
    }

    async fn fill(&self, mut chunks: Streaming<Chunk>) -> Result<u64, Error> {
        let mut length = 0;
        while let Some(chunk) = chunks.message().await? {
            (&self.file).write_all(&chunk.data).map_err(|e| cannot_write(&self.path, e))?;
            length += chunk.data.len() as u64;
        }
        Ok(length)
    }

    /// Gives it its name, unless that was taken meanwhile, once it is on disk.
    fn finish(self, target: &Path) -> Result<(), Error> {
        let work = || -> io::Result<()> {
            self.file.sync_all()?;
            fs::hard_link(&self.path, target)?;
            let parent = target.parent().filter(|dir| !dir.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        work().map_err(|e| cannot_write(target, e))
    }
}

fn cannot_write(path: &Path, error: io::Error) -> Error {
    Error::io(format!("write {}", path.display()), error)
}
