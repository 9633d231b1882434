//! What the store says of images: one that is ready to run, one in a list, one that was loaded or removed.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::lease::Lease;
use crate::platform::Platform;
use crate::reference::Reference;

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

/// An image in [`crate::ImageStore::list`].
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

/// An image that [`crate::ImageStore::load`] found in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Digest of the configuration.
    pub id: ImageId,
    /// Names the archive gives it; may be none.
    pub names: Vec<Reference>,
}

/// What [`crate::ImageStore::remove`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Canonical names that are gone.
    pub untagged: Vec<String>,
    /// The image, if it went too.
    pub deleted: Option<ImageId>,
}
