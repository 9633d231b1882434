//! Downloads blobs to disk: resumed after a broken connection or a restart, verified by size and digest.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore, mpsc};

use crate::blocking::joined;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::manifest::Descriptor;
use crate::reference::Reference;
use crate::registry::{Failure, Registry, interrupted};

/// Failures in a row, without a byte in between, after which a download is given up.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Pieces between network and disk; each is at most what one read of the connection gives.
const QUEUE: usize = 16;
/// Partial downloads older than this are not worth keeping.
const PARTIAL_AGE: Duration = Duration::from_secs(24 * 3600);

/// The directory `downloads`: a file per blob that is on its way, named by its digest.
pub(crate) struct Downloads {
    dir: PathBuf,
    permits: Semaphore,
    /// One per blob in work: its file has one user at a time.
    locks: Mutex<HashMap<Digest, Weak<AsyncMutex<()>>>>,
}

/// A verified blob on disk. The file goes away with this value.
pub(crate) struct Fetched {
    path: PathBuf,
    _lock: OwnedMutexGuard<()>,
}

impl Fetched {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            // It is found again as a complete download, or removed for its age.
            tracing::warn!(%error, "cannot remove a downloaded blob");
        }
    }
}

/// What of a blob is on disk. The file's position is at its end.
struct Partial {
    file: File,
    hasher: Hasher,
}

impl Downloads {
    pub(crate) fn open(dir: PathBuf, concurrent: usize) -> Result<Self> {
        fs::create_dir_all(&dir).map_err(Error::io(format!("create {}", dir.display())))?;
        forget_old(&dir).map_err(Error::io(format!("clean {}", dir.display())))?;
        Ok(Self { dir, permits: Semaphore::new(concurrent.max(1)), locks: Mutex::default() })
    }

    async fn lock(&self, blob: &Descriptor) -> OwnedMutexGuard<()> {
        let lock = {
            // Each change under this lock is whole, so a panic elsewhere leaves the map sound.
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(&blob.digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(AsyncMutex::new(()));
                locks.insert(blob.digest, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }

    /// Where a blob's file is, whole or in part.
    fn path(&self, blob: &Descriptor) -> PathBuf {
        self.dir.join(blob.digest.hex())
    }

    /// Downloads a blob.
    pub(crate) async fn fetch(
        &self,
        registry: &Registry,
        image: &Reference,
        blob: &Descriptor,
    ) -> Result<Fetched> {
        let path = self.path(blob);
        let lock = self.lock(blob).await;
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await.ok();
        let mut partial = open_partial(&path, blob.size).await?;
        let resumed = partial.hasher.length() > 0;
        partial = self.complete(registry, image, blob, partial).await?;
        let mut actual = partial.hasher.finish();
        if actual != blob.digest && resumed {
            // What an earlier run left may have been damaged since.
            remove(&path)?;
            let fresh = open_partial(&path, blob.size).await?;
            actual = self.complete(registry, image, blob, fresh).await?.hasher.finish();
        }
        if actual != blob.digest {
            remove(&path)?;
            return Err(Error::BlobDigest {
                image: image.familiar(),
                expected: blob.digest,
                actual,
            });
        }
        Ok(Fetched { path, _lock: lock })
    }

    /// Tries until the blob has its full size.
    async fn complete(
        &self,
        registry: &Registry,
        image: &Reference,
        blob: &Descriptor,
        mut partial: Partial,
    ) -> Result<Partial> {
        let mut failures = 0;
        while partial.hasher.length() < blob.size {
            let before = partial.hasher.length();
            let (now, result) = self.attempt(registry, image, blob, partial).await?;
            partial = now;
            let Err(failure) = result else { continue };
            failures = if partial.hasher.length() > before { 1 } else { failures + 1 };
            if !failure.retry || failures >= TRIES {
                return Err(failure.error);
            }
            tracing::debug!(image = %image, blob = %blob.digest, error = %failure.error, "download interrupted, resuming");
            tokio::time::sleep(FIRST_PAUSE * 2u32.pow(failures - 1)).await; // a registry in trouble is asked less and less often
        }
        Ok(partial)
    }

    /// One request. Fails hard only if the disk does.
    async fn attempt(
        &self,
        registry: &Registry,
        image: &Reference,
        blob: &Descriptor,
        partial: Partial,
    ) -> Result<(Partial, Result<(), Failure>)> {
        let have = partial.hasher.length();
        let mut body = match registry.blob(image, blob, have).await {
            Ok(body) => body,
            Err(failure) => return Ok((partial, Err(failure))),
        };
        let partial = if body.offset == have { partial } else { create_partial(&self.path(blob))? };
        let mut left = blob.size - partial.hasher.length();
        let (pieces, writer) = start_writer(partial);
        let mut result = Ok(());
        while let Some(piece) = body.pieces.next().await {
            match piece {
                Ok(piece) if piece.len() as u64 > left => result = Err(too_long(image, blob)),
                Ok(piece) => {
                    left -= piece.len() as u64;
                    if pieces.send(piece).await.is_ok() {
                        continue;
                    }
                    // The writer stopped; it says why below.
                }
                Err(error) => {
                    result = Err(Failure { error: interrupted(image, &error), retry: true })
                }
            }
            break;
        }
        drop(pieces);
        let action = || Error::io(format!("write {}", self.path(blob).display()));
        let partial = writer.await.map_err(joined).and_then(|written| written).map_err(action())?;
        if result.is_ok() && left > 0 {
            let ended = io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed early");
            result = Err(Failure { error: interrupted(image, &ended), retry: true });
        }
        if matches!(&result, Err(failure) if !failure.retry) {
            remove(&self.path(blob))?;
        }
        Ok((partial, result))
    }
}

type Writer = tokio::task::JoinHandle<io::Result<Partial>>;

/// Hashes and writes on a blocking thread what comes through the channel.
fn start_writer(mut partial: Partial) -> (mpsc::Sender<Vec<u8>>, Writer) {
    let (pieces, mut incoming) = mpsc::channel::<Vec<u8>>(QUEUE);
    let writer = tokio::task::spawn_blocking(move || {
        while let Some(piece) = incoming.blocking_recv() {
            partial.file.write_all(&piece)?;
            partial.hasher.update(&piece);
        }
        Ok(partial)
    });
    (pieces, writer)
}

fn too_long(image: &Reference, blob: &Descriptor) -> Failure {
    let error = Error::BlobSize { image: image.familiar(), digest: blob.digest, size: blob.size };
    Failure { error, retry: false }
}

/// Opens what is there of a blob and hashes it.
async fn open_partial(path: &Path, size: u64) -> Result<Partial> {
    let path = path.to_owned();
    let action = Error::io(format!("open {}", path.display()));
    let opened = tokio::task::spawn_blocking(move || {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        if file.metadata()?.len() > size {
            file.set_len(0)?;
        }
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Partial { file, hasher }),
                read => hasher.update(&buffer[..read]),
            }
        }
    });
    opened.await.map_err(joined).and_then(|partial| partial).map_err(action)
}

fn create_partial(path: &Path) -> Result<Partial> {
    let file = File::create(path).map_err(Error::io(format!("create {}", path.display())))?;
    Ok(Partial { file, hasher: Hasher::default() })
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

fn forget_old(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A time in the future has no age and is kept.
        if entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age > PARTIAL_AGE) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
