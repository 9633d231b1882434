//! Pulls an image: manifest, configuration, then all missing layers at once.

use std::fs::File;
use std::sync::Arc;

use futures::future::try_join_all;
use tokio::sync::Semaphore;

use crate::blocking::blocking;
use crate::catalog::{Addition, Catalog, check_platform, parse_config};
use crate::digest::{Digest, ImageId};
use crate::download::Downloads;
use crate::error::{Error, Result};
use crate::flight::Flights;
use crate::lease::Lease;
use crate::manifest::{Descriptor, Document, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::Registry;

/// Layers unpacked at once; more would only fight for the disk.
const CONCURRENT_UNPACKS: usize = 2;

/// All a pull needs.
pub(crate) struct Puller {
    catalog: Arc<Catalog>,
    registry: Registry,
    downloads: Downloads,
    unpacks: Semaphore,
    /// Longest blob downloaded.
    max_bytes: u64,
    images: Flights<(Reference, Platform), Result<Pulled>>,
    layers: Flights<Digest, Result<()>>,
}

/// A pulled image, kept from removal until the caller has what it needs of it.
#[derive(Clone)]
pub(crate) struct Pulled {
    pub(crate) id: ImageId,
    pub(crate) layers: Vec<Digest>,
    pub(crate) lease: Arc<Lease>,
}

impl Puller {
    pub(crate) fn new(
        catalog: Arc<Catalog>,
        registry: Registry,
        downloads: Downloads,
        max_bytes: u64,
    ) -> Self {
        Self {
            max_bytes,
            catalog,
            registry,
            downloads,
            unpacks: Semaphore::new(CONCURRENT_UNPACKS),
            images: Flights::default(),
            layers: Flights::default(),
        }
    }

    /// The digest a registry has for a reference now, of an image that runs on `platform`.
    pub(crate) async fn resolve(&self, image: &Reference, platform: &Platform) -> Result<Digest> {
        let (manifest, digest) = self.manifest(image, platform).await?;
        let blob = self.config(image, &manifest.config).await?;
        let config = parse_config(&image.familiar(), &blob)?;
        check_platform(&image.familiar(), &config, platform)?;
        Ok(digest)
    }

    /// Pulls; callers that want the same at the same time share one pull.
    pub(crate) async fn pull(
        self: &Arc<Self>,
        image: &Reference,
        platform: &Platform,
    ) -> Result<Pulled> {
        let work = || {
            let (this, image, platform) = (Arc::clone(self), image.clone(), platform.clone());
            async move { this.pull_now(&image, &platform).await }
        };
        self.images.run((image.clone(), platform.clone()), work).await
    }

    async fn pull_now(self: &Arc<Self>, image: &Reference, platform: &Platform) -> Result<Pulled> {
        let (manifest, digest) = self.manifest(image, platform).await?;
        let id = manifest.config.digest;
        let id_lease = self.catalog.leases.take([id]);
        let blob = self.config(image, &manifest.config).await?;
        let config = parse_config(&image.familiar(), &blob)?;
        check_platform(&image.familiar(), &config, platform)?;
        if config.diff_ids.len() != manifest.layers.len() {
            let reason =
                "manifest and configuration disagree about the number of layers".to_owned();
            return Err(Error::Malformed { image: image.familiar(), reason });
        }
        // From here on no removal of another image takes layers away that this one shares.
        let lease = Arc::new(self.catalog.leases.take(config.diff_ids.iter().copied().chain([id])));
        drop(id_lease);
        let pairs = config.diff_ids.iter().zip(&manifest.layers);
        try_join_all(pairs.map(|(layer, blob)| self.layer(image, *layer, blob))).await?;
        self.add(image, digest, id, blob).await?;
        Ok(Pulled { id, layers: config.diff_ids, lease })
    }

    /// The manifest for the platform, and the digest the reference stands for (that of the index, if there is one).
    async fn manifest(&self, image: &Reference, platform: &Platform) -> Result<(Manifest, Digest)> {
        let name = image.familiar();
        let (blob, digest) = self.registry.manifest(image).await?;
        let index = match Document::parse(&name, &blob)? {
            Document::Manifest(manifest) => return Ok((manifest, digest)),
            Document::Index(index) => index,
        };
        let chosen = image.by_digest(index.choose(&name, platform)?.digest);
        let (blob, _) = self.registry.manifest(&chosen).await?;
        match Document::parse(&name, &blob)? {
            Document::Manifest(manifest) => Ok((manifest, digest)),
            Document::Index(_) => Err(Error::Malformed {
                image: name,
                reason: "its index points to another index".to_owned(),
            }),
        }
    }

    /// The configuration blob, from the store or the registry.
    async fn config(&self, image: &Reference, blob: &Descriptor) -> Result<Vec<u8>> {
        if let Some(config) = self.catalog.config(&blob.digest)? {
            return Ok(config);
        }
        let fetched = self.downloads.fetch(&self.registry, image, blob).await?;
        blocking(move || {
            let path = fetched.path();
            std::fs::read(path).map_err(Error::io(format!("read {}", path.display())))
        })
        .await
    }

    /// Has the layer unpacked; images that share it wait for one download.
    async fn layer(
        self: &Arc<Self>,
        image: &Reference,
        layer: Digest,
        blob: &Descriptor,
    ) -> Result<()> {
        let work = || {
            let (this, image, blob) = (Arc::clone(self), image.clone(), blob.clone());
            async move { this.layer_now(&image, layer, &blob).await }
        };
        self.layers.run(layer, work).await
    }

    async fn layer_now(&self, image: &Reference, layer: Digest, blob: &Descriptor) -> Result<()> {
        if self.catalog.layers.has(&layer) {
            return Ok(());
        }
        if blob.size > self.max_bytes {
            return Err(Error::Layer {
                layer,
                reason: format!("it is larger than {} bytes", self.max_bytes),
            });
        }
        let fetched = self.downloads.fetch(&self.registry, image, blob).await?;
        // The semaphore is never closed.
        let _permit = self.unpacks.acquire().await.ok();
        let catalog = Arc::clone(&self.catalog);
        let length = blob.size;
        blocking(move || {
            let path = fetched.path();
            let file = File::open(path).map_err(Error::io(format!("open {}", path.display())))?;
            catalog.layers.add(&layer, file, length)
        })
        .await
    }

    async fn add(
        &self,
        image: &Reference,
        digest: Digest,
        id: ImageId,
        config: Vec<u8>,
    ) -> Result<()> {
        let catalog = Arc::clone(&self.catalog);
        let references = match image.digest() {
            Some(_) => vec![image.by_digest(digest)],
            None => vec![image.clone(), image.by_digest(digest)],
        };
        blocking(move || catalog.add(&[Addition { id, config, references }])).await
    }
}
