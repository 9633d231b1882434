//! [`ImageStore`]: the images of one node.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::blocking::blocking;
use crate::catalog::Catalog;
use crate::digest::ImageId;
use crate::download::Downloads;
use crate::error::{Error, Result};
use crate::image::{Image, ImageSummary, Loaded, Removed};
use crate::load;
use crate::platform::Platform;
use crate::pull::Puller;
use crate::reference::Reference;
use crate::registry::Registry;
use crate::unpack::Limits;

/// How a store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of registries spoken to over plain HTTP, as images name them.
    pub insecure_registries: Vec<String>,
    /// Blobs downloaded at once.
    pub concurrent_downloads: usize,
    /// Longest silence of a registry, waiting for an answer or within one.
    pub read_timeout: Duration,
    /// What a layer, or an archive as a whole, may cost.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            insecure_registries: Vec::new(),
            concurrent_downloads: 4,
            read_timeout: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

/// When to ask the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Only if this node has no image of that name for the platform.
    #[default]
    IfMissing,
    /// Always; layers that are here are not downloaded again.
    Always,
}

/// The images of one node, in a directory of its own on a file system that knows `trusted.*` attributes (ext4, xfs,
/// btrfs). Needs root. Clones are the same store.
#[derive(Clone)]
pub struct ImageStore {
    catalog: Arc<Catalog>,
    puller: Arc<Puller>,
    limits: Limits,
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageStore").finish_non_exhaustive()
    }
}

impl ImageStore {
    /// Opens the store in `dir`, making it if there is none, and removes what an earlier process left half-done.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open; [`Error::Io`] naming the file if the disk fails.
    pub async fn open(dir: impl Into<PathBuf>, options: Options) -> Result<Self> {
        let dir = dir.into();
        let limits = options.limits;
        blocking(move || {
            let catalog = Arc::new(Catalog::open(&dir, limits)?);
            let downloads = Downloads::open(dir.join("downloads"), options.concurrent_downloads)?;
            let registry = Registry::new(options.insecure_registries, options.read_timeout);
            let puller = Puller::new(Arc::clone(&catalog), registry, downloads, limits.max_bytes);
            let puller = Arc::new(puller);
            Ok(Self { catalog, puller, limits })
        })
        .await
    }

    /// The image of that name for that platform: from here, or from its registry.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NoVariant`], [`Error::Unreachable`], [`Error::Denied`], [`Error::Registry`];
    /// [`Error::BlobDigest`] and [`Error::BlobSize`] for corrupt downloads; [`Error::Layer`] for layers that are
    /// malicious or too big; nothing of a failed pull is visible, complete layers and partial downloads are reused.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        policy: PullPolicy,
    ) -> Result<Image> {
        if policy == PullPolicy::IfMissing {
            match self.get(reference).await {
                Ok(image) if platform.runs(&image.platform) => return Ok(image),
                Ok(_) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let pulled = self.puller.pull(reference, platform).await?;
        let (catalog, reference) = (Arc::clone(&self.catalog), reference.clone());
        blocking(move || catalog.image(&reference, pulled.id, &pulled.layers, pulled.lease)).await
    }

    /// Asks the registry what a reference means now: the same reference with the digest of its manifest or index. The
    /// image must run on `platform`; no layer is downloaded.
    ///
    /// # Errors
    /// As [`ImageStore::pull`].
    pub async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Reference> {
        let digest = self.puller.resolve(reference, platform).await?;
        Ok(reference.with_digest(digest))
    }

    /// Whether this node has an image of that name, by the index in memory: the disk is not looked at.
    pub fn has(&self, reference: &Reference) -> bool {
        self.catalog.has(reference)
    }

    /// The image of that name on this node.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn get(&self, reference: &Reference) -> Result<Image> {
        let (catalog, reference) = (Arc::clone(&self.catalog), reference.clone());
        blocking(move || catalog.get(&reference)).await
    }

    /// Takes in all images of an archive: `docker save` or OCI layout, in a tar, plain or compressed. All or nothing.
    ///
    /// # Errors
    /// [`Error::Archive`] if it is damaged, cut off or no image archive; [`Error::NoVariant`], [`Error::Layer`] as for
    /// a pull.
    pub async fn load(
        &self,
        archive: impl Read + Send + 'static,
        platform: &Platform,
    ) -> Result<Vec<Loaded>> {
        let (catalog, platform, limits) =
            (Arc::clone(&self.catalog), platform.clone(), self.limits);
        blocking(move || load::load(&catalog, archive, &platform, limits.max_bytes)).await
    }

    /// [`ImageStore::load`] from a file.
    ///
    /// # Errors
    /// Besides those of `load`, [`Error::Io`] if the file cannot be opened.
    pub async fn load_file(&self, path: &Path, platform: &Platform) -> Result<Vec<Loaded>> {
        let path = path.to_owned();
        let action = Error::io(format!("open image archive {}", path.display()));
        let file = blocking(move || File::open(path).map_err(action)).await?;
        self.load(file, platform).await
    }

    /// All images, newest first.
    pub fn list(&self) -> Vec<ImageSummary> {
        self.catalog.list()
    }

    /// Removes a name, and with the last name the image; or an image with all its names, given its id (4 digits or
    /// more of it). Layers that no other image needs go too.
    ///
    /// `in_use` says whether containers use an image; it is asked only if the image itself would go.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::AmbiguousId`]; [`Error::InUse`] if `in_use` says so or an [`Image`] value of it
    /// lives.
    pub async fn remove(
        &self,
        name_or_id: &str,
        in_use: impl Fn(&ImageId) -> bool + Send + 'static,
    ) -> Result<Removed> {
        let (catalog, text) = (Arc::clone(&self.catalog), name_or_id.to_owned());
        blocking(move || catalog.remove(&text, &in_use)).await
    }
}
