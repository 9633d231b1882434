//! The store's index: which images there are and what they are called. One JSON file, replaced whole and durably.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, ImageId};
use crate::error::{Error, Result};

const FILE: &str = "index.json";
const VERSION: u32 = 1;

/// What the store knows. New fields must have defaults: older files are read too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    pub(crate) images: BTreeMap<ImageId, Record>,
    /// Canonical `name:tag` or `name@digest` to image.
    pub(crate) references: BTreeMap<String, ImageId>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Digests of the uncompressed layers, lowest first.
    pub(crate) layers: Vec<Digest>,
    /// Bytes of all files of all layers.
    pub(crate) size: u64,
    /// RFC 3339, from the configuration.
    pub(crate) created: Option<String>,
    /// `os/architecture[/variant]`.
    pub(crate) platform: String,
}

impl Index {
    /// Reads the index in `dir`; a new store has none.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let data = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(Error::io(format!("read image index {}", path.display())))?,
        };
        let index: Self = serde_json::from_slice(&data).map_err(|error| {
            Error::io(format!("read image index {}", path.display()))(error.into())
        })?;
        if index.version > VERSION {
            let newer = io::Error::other(format!(
                "it has version {}, this program knows {VERSION}",
                index.version
            ));
            return Err(Error::io(format!("read image index {}", path.display()))(newer));
        }
        Ok(index)
    }

    /// Writes it so that a crash at any moment leaves the old or the new one.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let action = || Error::io(format!("write image index {}", dir.join(FILE).display()));
        let data = serde_json::to_vec_pretty(&Self { version: VERSION, ..self.clone() });
        let data = data.map_err(|error| action()(error.into()))?;
        swarm_durable::replace(&dir.join(FILE), &data, 0o644).map_err(action())
    }

    /// Adds an image under its names, which may have meant another one before.
    pub(crate) fn add(
        &mut self,
        id: ImageId,
        record: Record,
        references: impl IntoIterator<Item = String>,
    ) {
        self.images.insert(id, record);
        self.references.extend(references.into_iter().map(|reference| (reference, id)));
    }

    /// Names of one image, sorted.
    pub(crate) fn names(&self, id: &ImageId) -> Vec<String> {
        self.references.iter().filter(|(_, of)| *of == id).map(|(name, _)| name.clone()).collect()
    }

    /// Every layer some image needs.
    pub(crate) fn layers(&self) -> BTreeSet<Digest> {
        self.images.values().flat_map(|record| record.layers.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote_and_refuses_the_future() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Index::read(dir.path()).unwrap(), Index::default());
        let (id, layer) = (Digest::of(b"config"), Digest::of(b"layer"));
        let record =
            Record { layers: vec![layer], size: 7, created: None, platform: "linux/amd64".into() };
        let mut index = Index { version: VERSION, ..Index::default() };
        index.add(id, record, ["a/b:c".to_owned()]);
        index.write(dir.path()).unwrap();
        assert_eq!(Index::read(dir.path()).unwrap(), index);
        assert_eq!((index.names(&id), index.layers().len()), (vec!["a/b:c".to_owned()], 1));
        let newer = fs::read_to_string(dir.path().join(FILE))
            .unwrap()
            .replace(r#""version": 1"#, r#""version": 9"#);
        fs::write(dir.path().join(FILE), newer).unwrap();
        assert!(Index::read(dir.path()).unwrap_err().to_string().contains("version 9"));
    }
}
