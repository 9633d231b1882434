//! What can go wrong with images. Every text is one line, made to be shown to people.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::{Digest, ImageId};
use crate::platform::Platform;
use crate::reference::ReferenceError;

/// `Result` with this crate's [`Error`], unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on images failed. Cloneable, as callers that wait for the same pull all get it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text names no image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Neither the store nor, for a pull, the registry has it.
    #[error("image not found: {0}")]
    NotFound(String),
    /// An abbreviated id fits several images.
    #[error("image id {0} is ambiguous")]
    AmbiguousId(String),
    /// The image exists, but not for this platform.
    #[error("image {image} has no variant for {wanted} (it has {})", Listed(.available))]
    NoVariant {
        /// As the user named it.
        image: String,
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        available: Vec<Platform>,
    },
    /// The registry did not answer: name resolution, connection, TLS, or time-out.
    #[error("pull {image}: registry {registry} is unreachable: {reason}")]
    Unreachable {
        /// What was pulled.
        image: String,
        /// Host and port.
        registry: String,
        /// The underlying cause.
        reason: String,
    },
    /// The registry refuses anonymous access, or hides that the repository does not exist.
    #[error(
        "pull {image}: access denied by {registry}: the repository does not exist or needs a login"
    )]
    Denied {
        /// What was pulled.
        image: String,
        /// Host and port.
        registry: String,
    },
    /// The registry answered with an error.
    #[error("pull {image}: registry {registry}: {reason}")]
    Registry {
        /// What was pulled.
        image: String,
        /// Host and port.
        registry: String,
        /// What it said.
        reason: String,
    },
    /// A downloaded blob is not what its digest says.
    #[error("pull {image}: blob {expected} is corrupt: its content has digest {actual}")]
    BlobDigest {
        /// What was pulled.
        image: String,
        /// Digest asked for.
        expected: Digest,
        /// Digest of what came.
        actual: Digest,
    },
    /// A downloaded blob is longer than its descriptor says.
    #[error("pull {image}: blob {digest} is corrupt: it is longer than its {size} bytes")]
    BlobSize {
        /// What was pulled.
        image: String,
        /// Digest asked for.
        digest: Digest,
        /// Size in the manifest.
        size: u64,
    },
    /// A manifest, index or configuration makes no sense.
    #[error("image {image}: {reason}")]
    Malformed {
        /// Which image.
        image: String,
        /// What is wrong.
        reason: String,
    },
    /// A layer could not be unpacked: malicious, corrupt, over a limit, or no space left.
    #[error("layer {layer}: {reason}")]
    Layer {
        /// Digest of the uncompressed layer, as the configuration gives it.
        layer: Digest,
        /// Names the entry, if it is about one.
        reason: String,
    },
    /// An archive given to `load` is damaged, or is no image archive.
    #[error("image archive: {0}")]
    Archive(String),
    /// The image is needed.
    #[error("image {0} is in use")]
    InUse(ImageId),
    /// Another process has the store open.
    #[error("image store {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The store's own files fail.
    #[error("{action}: {source}")]
    Io {
        /// What was tried, with the path.
        action: String,
        /// The cause.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// For `map_err`: what was being done when the file system failed.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source: Arc::new(source) }
    }

    /// A rustix error while doing `action`.
    pub(crate) fn errno(action: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let io = Self::io(action);
        move |errno| io(errno.into())
    }

    /// Whether trying again later, unchanged, may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Registry { .. })
    }
}

struct Listed<'a>(&'a [Platform]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, platform) in self.0.iter().enumerate() {
            write!(f, "{}{platform}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
