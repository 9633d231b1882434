//! [`ImageStore`]: the images of one node.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Catalog;
use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::download::Downloads;
use crate::error::{Error, Result};
use crate::lease::Lease;
use crate::load;
use crate::platform::Platform;
use crate::pull::{Puller, blocking};
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

/// An image ready to run. While this value (or a clone) lives, the image cannot be removed.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the configuration.
    pub id: ImageId,
    /// The name it was asked for by.
    pub reference: Reference,
    /// What it was built for.
    pub platform: Platform,
    /// Its defaults for containers.
    pub config: ImageConfig,
    /// Unpacked layers, lowest first, none twice; may be none at all. Give them to overlayfs in reverse: its `lowerdir` starts with the uppermost.
    pub layers: Vec<PathBuf>,
    /// Held for its drop.
    pub(crate) _lease: Arc<Lease>,
}

impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        (self.id, &self.reference) == (other.id, &other.reference)
    }
}

/// An image in [`ImageStore::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// Digest of the configuration.
    pub id: ImageId,
    /// Names with a tag, sorted; may be none.
    pub tags: Vec<Reference>,
    /// Names by digest of the manifest or index; none for images that were loaded.
    pub digests: Vec<Reference>,
    /// Bytes of all files of all layers, shared ones included.
    pub size: u64,
    /// RFC 3339, as the image's builder wrote it.
    pub created: Option<String>,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Digests of the uncompressed layers, lowest first.
    pub layers: Vec<Digest>,
}

/// An image that [`ImageStore::load`] found in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Digest of the configuration.
    pub id: ImageId,
    /// Names the archive gives it; may be none.
    pub names: Vec<Reference>,
}

/// What [`ImageStore::remove`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Canonical names that are gone.
    pub untagged: Vec<String>,
    /// The image, if it went too.
    pub deleted: Option<ImageId>,
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
