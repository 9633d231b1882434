//! Makes one layer, entry by entry.

use std::io::{self, Write};
use std::path::Path;

use crate::digest::Digest;

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// How a layer is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not compressed.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// One layer, entry by entry. Owner is root and the time the epoch, unless an entry is made by [`Layer::entry`].
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
    compression: Compression,
    /// The tar has its end marker.
    whole: bool,
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// An empty layer, not compressed.
    pub fn new() -> Self {
        Self { tar: tar::Builder::new(Vec::new()), compression: Compression::None, whole: false }
    }

    /// Compresses the layer when it is stored.
    pub fn compressed(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// A regular file.
    ///
    /// # Errors
    /// All of the methods that add entries fail only if the path cannot be stored in a tar.
    pub fn file(mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<Self> {
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        self.tar.append_data(&mut header, path, content)?;
        Ok(self)
    }

    /// A directory.
    ///
    /// # Errors
    /// As [`Layer::file`].
    pub fn directory(mut self, path: &str, mode: u32) -> io::Result<Self> {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        self.tar.append_data(&mut header, path, io::empty())?;
        Ok(self)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// As [`Layer::file`].
    pub fn symlink(mut self, path: &str, target: &str) -> io::Result<Self> {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.tar.append_link(&mut header, path, target)?;
        Ok(self)
    }

    /// Another name for a file of this layer.
    ///
    /// # Errors
    /// As [`Layer::file`].
    pub fn hard_link(mut self, path: &str, target: &str) -> io::Result<Self> {
        let mut header = header(tar::EntryType::Link, 0o644, 0);
        self.tar.append_link(&mut header, path, target)?;
        Ok(self)
    }

    /// Hides a path of the layers below.
    ///
    /// # Errors
    /// As [`Layer::file`].
    pub fn whiteout(self, path: &str) -> io::Result<Self> {
        let (parent, name) =
            path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
        let slash = if parent.is_empty() { "" } else { "/" };
        self.file(&format!("{parent}{slash}.wh.{name}"), 0o600, &[])
    }

    /// Hides all that the layers below have in a directory.
    ///
    /// # Errors
    /// As [`Layer::file`].
    pub fn opaque(self, directory: &str) -> io::Result<Self> {
        self.file(&format!("{directory}/.wh..wh..opq"), 0o600, &[])
    }

    /// Extended attributes for the next entry.
    ///
    /// # Errors
    /// As [`Layer::file`].
    pub fn xattrs<'a>(
        mut self,
        attributes: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> io::Result<Self> {
        let records: Vec<_> = attributes
            .into_iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value))
            .collect();
        self.tar
            .append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), *value)))?;
        Ok(self)
    }

    /// A directory of this machine with all below it, as `path` in the image: owners, modes, times and
    /// symbolic links are kept; hard links become files of their own, extended attributes are left out.
    ///
    /// # Errors
    /// If something cannot be read, or is a socket or device.
    pub fn tree(mut self, path: &str, source: &Path) -> io::Result<Self> {
        self.tar.follow_symlinks(false);
        self.tar.append_dir_all(path, source)?;
        Ok(self)
    }

    /// A layer that was made elsewhere: a whole tar, not compressed, to which nothing is added.
    pub fn from_tar(tar: Vec<u8>) -> Self {
        Self { tar: tar::Builder::new(tar), compression: Compression::None, whole: true }
    }

    /// Any entry, as it is: the header's checksum and path are the caller's business.
    ///
    /// # Errors
    /// None in practice: it is written to memory.
    pub fn entry(mut self, header: &tar::Header, content: &[u8]) -> io::Result<Self> {
        self.tar.append(header, content)?;
        Ok(self)
    }

    pub(super) fn build(self) -> io::Result<Blob> {
        let end = if self.whole { Some(self.tar.get_ref().len()) } else { None };
        let mut plain = self.tar.into_inner()?;
        // The builder ends what it gives back, even what came whole.
        plain.truncate(end.unwrap_or(plain.len()));
        let diff_id = Digest::of(&plain);
        let (data, suffix) = match self.compression {
            Compression::None => (plain, ""),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&plain)?;
                (encoder.finish()?, "+gzip")
            }
            Compression::Zstd => (zstd::encode_all(plain.as_slice(), 1)?, "+zstd"),
        };
        Ok(Blob {
            digest: Digest::of(&data),
            data,
            media_type: format!("{LAYER_TYPE}{suffix}"),
            diff_id,
        })
    }
}

pub(super) fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// A layer as it is stored.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Digest of `data`.
    pub digest: Digest,
    /// The layer, compressed or not.
    pub data: Vec<u8>,
    /// OCI media type.
    pub media_type: String,
    /// Digest of the uncompressed layer.
    pub diff_id: Digest,
}
