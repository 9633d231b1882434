//! The images of one store: index, configurations and layers kept in step. All calls block on the disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::ConfigFile;
use crate::digest::{Digest, ImageId};
use crate::error::{Error, Result};
use crate::image::{Image, ImageSummary, Removed};
use crate::index::{Index, Record};
use crate::layers::Layers;
use crate::lease::{Lease, Leases};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::unpack::Limits;

/// Shortest abbreviation of an id that is looked up.
const MIN_ID: usize = 4;

/// An image whose layers are unpacked, to be made visible.
pub(crate) struct Addition {
    pub(crate) id: ImageId,
    pub(crate) config: Vec<u8>,
    pub(crate) references: Vec<Reference>,
}

pub(crate) struct Catalog {
    dir: PathBuf,
    pub(crate) layers: Layers,
    pub(crate) leases: Leases,
    index: Mutex<Index>,
    /// Held by whoever changes the index, from reading it to having it on disk, so that readers never wait for a disk.
    writing: Mutex<()>,
    /// Keeps other processes out while open.
    _lock: File,
}

impl Catalog {
    pub(crate) fn open(dir: &Path, limits: Limits) -> Result<Self> {
        let configs = dir.join("configs");
        fs::create_dir_all(&configs)
            .map_err(Error::io(format!("create image store {}", configs.display())))?;
        let lock = lock(dir)?;
        let index = Index::read(dir)?;
        let layers = Layers::open(dir, limits)?;
        let catalog = Self {
            dir: dir.to_owned(),
            layers,
            leases: Leases::default(),
            index: Mutex::new(index),
            writing: Mutex::default(),
            _lock: lock,
        };
        catalog.collect()?;
        Ok(catalog)
    }

    /// Makes images visible, all or none.
    pub(crate) fn add(&self, additions: &[Addition]) -> Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.index().clone();
        for addition in additions {
            let path = self.config_path(&addition.id);
            swarm_durable::replace(&path, &addition.config, 0o644)
                .map_err(Error::io(format!("write {}", path.display())))?;
            let names = addition.references.iter().map(Reference::key);
            index.add(addition.id, self.record(addition)?, names);
        }
        index.write(&self.dir)?;
        *self.index() = index;
        Ok(())
    }

    fn record(&self, addition: &Addition) -> Result<Record> {
        let config = parse_config(&addition.id.to_string(), &addition.config)?;
        let sizes = config.diff_ids.iter().map(|layer| self.layers.size(layer));
        Ok(Record {
            size: sizes.sum::<Result<u64>>()?,
            layers: config.diff_ids,
            created: config.created,
            platform: config.platform.to_string(),
        })
    }

    /// Whether the index has that name.
    pub(crate) fn has(&self, reference: &Reference) -> bool {
        self.index().references.contains_key(&reference.key())
    }

    /// The image a reference means here, if it is whole.
    pub(crate) fn get(&self, reference: &Reference) -> Result<Image> {
        let not_found = || Error::NotFound(reference.familiar());
        let (id, layers, lease) = {
            let index = self.index();
            let id = *index.references.get(&reference.key()).ok_or_else(not_found)?;
            let layers = index.images.get(&id).ok_or_else(not_found)?.layers.clone();
            // Taken with the index locked: remove() looks at leases after it took the image out of the index.
            let lease = self.leases.take(layers.iter().copied().chain([id]));
            (id, layers, lease)
        };
        self.image(reference, id, &layers, Arc::new(lease))
    }

    pub(crate) fn image(
        &self,
        reference: &Reference,
        id: ImageId,
        layers: &[Digest],
        lease: Arc<Lease>,
    ) -> Result<Image> {
        if let Some(missing) = layers.iter().find(|layer| !self.layers.has(layer)) {
            tracing::warn!(image = %reference, layer = %missing, "layer directory is gone, image counts as missing");
            return Err(Error::NotFound(reference.familiar()));
        }
        let config = self.config(&id)?.ok_or_else(|| Error::NotFound(reference.familiar()))?;
        let config = parse_config(&reference.familiar(), &config)?;
        Ok(Image {
            id,
            reference: reference.clone(),
            platform: config.platform,
            config: config.config,
            layers: self.layers.stack(layers)?,
            _lease: lease,
        })
    }

    /// A configuration blob, if it is there and sound.
    pub(crate) fn config(&self, id: &ImageId) -> Result<Option<Vec<u8>>> {
        let path = self.config_path(id);
        match fs::read(&path) {
            Ok(data) => Ok(Some(data).filter(|data| Digest::of(data) == *id)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("read {}", path.display()))(error)),
        }
    }

    /// All images, newest first, as Docker lists them.
    pub(crate) fn list(&self) -> Vec<ImageSummary> {
        let index = self.index().clone();
        let summary = |(id, record): (&ImageId, &Record)| {
            let parse = |name: &String| name.parse().ok();
            let names: Vec<Reference> = index.names(id).iter().filter_map(parse).collect();
            let (digests, tags) = names.into_iter().partition(|name| name.digest().is_some());
            ImageSummary {
                id: *id,
                tags,
                digests,
                size: record.size,
                created: record.created.clone(),
                platform: record.platform.clone(),
                layers: record.layers.clone(),
            }
        };
        let mut all: Vec<_> = index.images.iter().map(summary).collect();
        all.sort_by(|a, b| {
            b.created.cmp(&a.created).then_with(|| a.tags.cmp(&b.tags)).then(a.id.cmp(&b.id))
        });
        all
    }

    /// What a name or an id, abbreviated or not, stands for; the name's key if it was a name.
    fn find(&self, text: &str) -> Result<(ImageId, Option<String>)> {
        let index = self.index();
        let reference = text.parse::<Reference>();
        if let Ok(reference) = &reference
            && let Some(id) = index.references.get(&reference.key())
        {
            return Ok((*id, Some(reference.key())));
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let hex = prefix.len() >= MIN_ID
            && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut fitting = index.images.keys().filter(|id| hex && id.hex().starts_with(prefix));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok((*id, None)),
            (Some(_), Some(_)) => Err(Error::AmbiguousId(text.to_owned())),
            _ if text.starts_with("sha256:") || hex => Err(Error::NotFound(text.to_owned())),
            _ => Err(reference
                .map_or_else(Error::from, |reference| Error::NotFound(reference.familiar()))),
        }
    }

    /// See [`crate::ImageStore::remove`].
    pub(crate) fn remove(&self, text: &str, in_use: &dyn Fn(&ImageId) -> bool) -> Result<Removed> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, key) = self.find(text)?;
        let before = self.index().clone();
        let (after, removed) = take_out(&before, id, key);
        if removed.deleted.is_some() && in_use(&id) {
            return Err(Error::InUse(id));
        }
        {
            let mut index = self.index();
            if removed.deleted.is_some() && self.leases.lock().contains_key(&id) {
                return Err(Error::InUse(id));
            }
            index.clone_from(&after);
        }
        if let Err(error) = after.write(&self.dir) {
            *self.index() = before;
            return Err(error);
        }
        self.collect_while(&writing)?;
        Ok(removed)
    }

    /// Removes layers and configurations that no image has and nobody leases.
    pub(crate) fn collect(&self) -> Result<()> {
        self.collect_while(&self.writing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Images being added hold leases until they are in the index, and none gets there while the caller holds the
    /// writing lock: so each is seen in one of the two.
    fn collect_while(&self, _writing: &MutexGuard<'_, ()>) -> Result<()> {
        let (layers, images) = {
            let index = self.index();
            (index.layers(), index.images.keys().copied().collect())
        };
        self.layers.collect(&layers, &self.leases)?;
        self.collect_configs(&images)
    }

    fn collect_configs(&self, needed: &BTreeSet<ImageId>) -> Result<()> {
        let configs = self.dir.join("configs");
        let action = || Error::io(format!("collect image configurations in {}", configs.display()));
        let leased = self.leases.lock();
        for entry in fs::read_dir(&configs).map_err(action())? {
            let entry = entry.map_err(action())?;
            let id = format!("sha256:{}", entry.file_name().to_string_lossy()).parse::<Digest>();
            if !id.is_ok_and(|id| needed.contains(&id) || leased.contains_key(&id)) {
                fs::remove_file(entry.path()).map_err(action())?;
            }
        }
        Ok(())
    }

    fn config_path(&self, id: &ImageId) -> PathBuf {
        self.dir.join("configs").join(id.hex())
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // The index is only ever replaced whole, so a panic elsewhere leaves it sound.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The index without a name, or, if it was the last or none was given, without the image.
fn take_out(index: &Index, id: ImageId, key: Option<String>) -> (Index, Removed) {
    let mut index = index.clone();
    let tags =
        |index: &Index| index.names(&id).into_iter().filter(|name| !name.contains('@')).count();
    let mut untagged: Vec<_> = key.into_iter().collect();
    let by_name = !untagged.is_empty();
    index.references.retain(|name, _| !untagged.contains(name));
    if by_name && (tags(&index) > 0 || untagged[0].contains('@') && !index.names(&id).is_empty()) {
        return (index, Removed { untagged, deleted: None });
    }
    // Names by digest go with the last tag: nobody could see them in a list.
    untagged.extend(index.names(&id));
    index.references.retain(|_, of| *of != id);
    index.images.remove(&id);
    (index, Removed { untagged, deleted: Some(id) })
}

/// Parses a configuration; errors name the image.
pub(crate) fn parse_config(image: &str, blob: &[u8]) -> Result<ConfigFile> {
    ConfigFile::parse(blob).map_err(|error| Error::Malformed {
        image: image.to_owned(),
        reason: format!("malformed configuration (is it a container image?): {error}"),
    })
}

/// Fails if an image is not for the wanted platform.
pub(crate) fn check_platform(image: &str, config: &ConfigFile, wanted: &Platform) -> Result<()> {
    if wanted.runs(&config.platform) {
        return Ok(());
    }
    Err(Error::NoVariant {
        image: image.to_owned(),
        wanted: wanted.clone(),
        available: vec![config.platform.clone()],
    })
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(Error::io(format!("create {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked(dir.to_owned())),
        Err(fs::TryLockError::Error(error)) => {
            Err(Error::io(format!("lock {}", path.display()))(error))
        }
    }
}
