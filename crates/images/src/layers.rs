//! The unpacked layers on disk: `layers/<hex of the diff id>/diff` is a lower directory for overlayfs.
//!
//! A layer's directory appears by one rename, after its content was verified and is on disk: what is there is whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::lease::Leases;
use crate::reaper::Reaper;
use crate::rooted::OPAQUE;
use crate::unpack::{Limits, UnpackError, unpack};

/// The directories `layers` and `tmp` of a store.
#[derive(Debug)]
pub(crate) struct Layers {
    layers: PathBuf,
    tmp: PathBuf,
    limits: Limits,
    reaper: Reaper,
    next_scratch: AtomicU64,
}

/// `layer.json`, beside `diff`.
#[derive(Serialize, Deserialize)]
struct About {
    size: u64,
}

/// A directory in `tmp` that is deleted after this value is gone.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    reaper: Reaper,
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.reaper.take(std::mem::take(&mut self.path));
    }
}

impl Layers {
    /// Opens the directories below `dir`; what an earlier process left half-done is deleted, in the background.
    pub(crate) fn open(dir: &Path, limits: Limits) -> Result<Self> {
        let (layers, tmp) = (dir.join("layers"), dir.join("tmp"));
        for path in [&layers, &tmp] {
            fs::create_dir_all(path).map_err(Error::io(format!("create {}", path.display())))?;
        }
        let reaper =
            Reaper::start().map_err(Error::io("start the thread that removes image files"))?;
        let action = || Error::io(format!("empty {}", tmp.display()));
        let mut next = 0;
        for entry in fs::read_dir(&tmp).map_err(action())? {
            let path = entry.map_err(action())?.path();
            let number = path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok());
            next = next.max(number.map_or(0, |number| number.saturating_add(1)));
            reaper.take(path);
        }
        Ok(Self { layers, tmp, limits, reaper, next_scratch: AtomicU64::new(next) })
    }

    /// A new empty directory on the store's file system.
    pub(crate) fn scratch(&self) -> Result<Scratch> {
        let number = self.next_scratch.fetch_add(1, Ordering::Relaxed);
        let path = self.tmp.join(number.to_string());
        fs::create_dir(&path).map_err(Error::io(format!("create {}", path.display())))?;
        Ok(Scratch { path, reaper: self.reaper.clone() })
    }

    /// The lower directories for an image of these layers, lowest first.
    ///
    /// A layer that comes twice (old builders repeat the empty one) is given once, as overlayfs takes no directory
    /// twice: its uppermost occurrence decides all that the lower ones say. Below an opaque root nothing is visible,
    /// but overlayfs ignores the mark on roots, so what is below is left out.
    pub(crate) fn stack(&self, layers: &[Digest]) -> Result<Vec<PathBuf>> {
        let mut stack: Vec<PathBuf> = Vec::with_capacity(layers.len());
        for layer in layers.iter().rev() {
            let path = self.home(layer).join("diff");
            if stack.contains(&path) {
                continue;
            }
            let opaque = has_opaque_root(&path)?;
            stack.push(path);
            if opaque {
                break;
            }
        }
        stack.reverse();
        Ok(stack)
    }

    pub(crate) fn has(&self, layer: &Digest) -> bool {
        self.home(layer).exists()
    }

    /// Bytes of all files of a layer that is there.
    pub(crate) fn size(&self, layer: &Digest) -> Result<u64> {
        let path = self.home(layer).join("layer.json");
        let action = || Error::io(format!("read {}", path.display()));
        let data = fs::read(&path).map_err(action())?;
        let about: About = serde_json::from_slice(&data).map_err(|error| action()(error.into()))?;
        Ok(about.size)
    }

    /// Unpacks `blob`, of `compressed` bytes, as `layer`, unless it is there. Blocking.
    pub(crate) fn add(&self, layer: &Digest, blob: impl Read, compressed: u64) -> Result<()> {
        if self.has(layer) {
            return Ok(());
        }
        let scratch = self.scratch()?;
        let diff = scratch.path().join("diff");
        let create = Error::io(format!("create {}", diff.display()));
        fs::create_dir(&diff)
            .and_then(|()| fs::set_permissions(&diff, fs::Permissions::from_mode(0o755)))
            .map_err(create)?;
        let failed = |reason: String| Error::Layer { layer: *layer, reason };
        let unpacked = unpack(blob, compressed, &diff, &self.limits)
            .map_err(|error: UnpackError| failed(error.to_string()))?;
        if unpacked.diff_id != *layer {
            return Err(failed(format!("its content has digest {}", unpacked.diff_id)));
        }
        if let Some(devices) = unpacked.devices {
            tracing::warn!(%layer, "left device nodes out of an image layer: {devices}");
        }
        let about = scratch.path().join("layer.json");
        let data = format!("{{\"size\":{}}}\n", unpacked.size);
        swarm_durable::replace(&about, data.as_bytes(), 0o644)
            .map_err(Error::io(format!("write {}", about.display())))?;
        self.publish(layer, &scratch)
    }

    /// Brings all of the layer to disk, then makes it visible.
    fn publish(&self, layer: &Digest, scratch: &Scratch) -> Result<()> {
        let home = self.home(layer);
        let action = || format!("store layer {}", home.display());
        let directory = File::open(scratch.path()).map_err(Error::io(action()))?;
        rustix::fs::syncfs(&directory).map_err(Error::errno(action()))?;
        match fs::rename(scratch.path(), &home) {
            // Somebody else unpacked the same layer meanwhile: it has the same content.
            Err(_) if self.has(layer) => Ok(()),
            other => other
                .and_then(|()| swarm_durable::sync_folder(&self.layers))
                .map_err(Error::io(action())),
        }
    }

    /// Moves every layer that is not `needed` and not leased out of sight, to be deleted.
    pub(crate) fn collect(&self, needed: &BTreeSet<Digest>, leases: &Leases) -> Result<()> {
        let action = || Error::io(format!("collect layers in {}", self.layers.display()));
        let scratch = self.scratch()?;
        // With the leases locked, a layer is either leased before it is looked at, or gone before it is leased.
        let leased = leases.lock();
        for entry in fs::read_dir(&self.layers).map_err(action())? {
            let name = entry.map_err(action())?.file_name();
            let digest = format!("sha256:{}", name.to_string_lossy()).parse::<Digest>();
            if digest.is_ok_and(|layer| !needed.contains(&layer) && !leased.contains_key(&layer)) {
                fs::rename(self.layers.join(&name), scratch.path().join(&name)).map_err(action())?;
            }
        }
        Ok(())
    }

    fn home(&self, layer: &Digest) -> PathBuf {
        self.layers.join(layer.hex())
    }
}

fn has_opaque_root(path: &Path) -> Result<bool> {
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(path, OPAQUE, &mut value[..]) {
        Ok(_) => Ok(value == *b"y"),
        Err(rustix::io::Errno::NODATA) => Ok(false),
        Err(errno) => Err(Error::errno(format!("read attributes of {}", path.display()))(errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged while a layer with these device nodes is added.
    fn logged(nodes: &[&str]) -> String {
        let mut tar = tar::Builder::new(Vec::new());
        for node in nodes {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Char);
            header.set_size(0);
            tar.append_data(&mut header, node, io::empty()).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let layers = Layers::open(dir.path(), Limits::default()).unwrap();
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            layers.add(&Digest::of(&tar), tar.as_slice(), tar.len() as u64).unwrap();
        });
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn device_nodes_that_are_left_out_are_told_once_a_layer() {
        assert_eq!(logged(&[]), "");
        let one = logged(&["dev/console"]);
        assert!(one.contains("device nodes out of an image layer: \"dev/console\" layer=sha256:"));
        let many = logged(&["dev/console", "dev/null", "dev/zero"]);
        assert!(many.contains("\"dev/console\" and 2 more layer=sha256:"), "{many}");
        assert_eq!((one.lines().count(), many.lines().count()), (1, 1));
    }
}
