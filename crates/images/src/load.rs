//! Takes in image archives: those of `docker save`, and OCI image layouts in a tar; Docker 25 and later write both in one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use serde::Deserialize;

use crate::catalog::{Addition, Catalog, check_platform, parse_config};
use crate::decompress::Decompressed;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::Loaded;
use crate::layers::Scratch;
use crate::manifest::{Descriptor, Document, Index, MAX_CONFIG, MAX_MANIFEST, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::tar_stream::{Kind, TarStream};

/// Most members of an archive, and longest name of one; bound memory.
const MAX_MEMBERS: usize = 100_000;
const MAX_NAME: usize = 4096;
/// Links in archives lead to other members; chains longer than this are loops.
const MAX_LINKS: usize = 8;

/// An image in the archive, its layers still packed.
struct Found {
    config: Vec<u8>,
    names: Vec<Reference>,
    layers: Vec<PathBuf>,
}

/// Loads all images of an archive for `platform`. Blocking. `max_bytes` bounds what the archive holds.
pub(crate) fn load(
    catalog: &Catalog,
    archive: impl Read,
    platform: &Platform,
    max_bytes: u64,
) -> Result<Vec<Loaded>> {
    let contents = Contents::read(catalog.layers.scratch()?, archive, max_bytes)?;
    let found = contents.images(platform)?;
    let result = add_all(catalog, &found, platform);
    if result.is_err() {
        // Layers of an archive that failed later are of no use.
        catalog.collect()?;
    }
    result
}

fn add_all(catalog: &Catalog, found: &[Found], platform: &Platform) -> Result<Vec<Loaded>> {
    let (mut additions, mut leases) = (Vec::new(), Vec::new());
    for image in found {
        let id = Digest::of(&image.config);
        let shown = image.names.first().map_or_else(|| id.to_string(), Reference::familiar);
        let config = parse_config(&shown, &image.config)?;
        check_platform(&shown, &config, platform)?;
        if config.diff_ids.len() != image.layers.len() {
            return Err(archive(format!(
                "image {shown} does not have as many layers as its configuration says"
            )));
        }
        leases.push(catalog.leases.take(config.diff_ids.iter().copied().chain([id])));
        for (layer, path) in config.diff_ids.iter().zip(&image.layers) {
            let open = || Error::io(format!("open {}", path.display()));
            let file = File::open(path).map_err(open())?;
            let length = file.metadata().map_err(open())?.len();
            catalog.layers.add(layer, file, length)?;
        }
        let names = image.names.iter().cloned();
        match additions.iter_mut().find(|known: &&mut Addition| known.id == id) {
            Some(known) => known.references.extend(names),
            None => additions.push(Addition {
                id,
                config: image.config.clone(),
                references: names.collect(),
            }),
        }
    }
    catalog.add(&additions)?;
    drop(leases);
    Ok(additions
        .into_iter()
        .map(|image| Loaded { id: image.id, names: image.references })
        .collect())
}

/// The members of an archive, on disk under numbers: their own names are only looked up, never opened.
struct Contents {
    files: HashMap<String, PathBuf>,
    links: HashMap<String, String>,
    /// Removes the files in the end.
    _scratch: Scratch,
}

impl Contents {
    fn read(scratch: Scratch, archive: impl Read, max_bytes: u64) -> Result<Self> {
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        let mut stream = TarStream::new(Decompressed::new(archive).map_err(damaged)?);
        let mut left = max_bytes;
        while let Some(entry) = stream.next_entry().map_err(damaged)? {
            if files.len() + links.len() >= MAX_MEMBERS
                || entry.path.len() > MAX_NAME
                || entry.link.len() > MAX_NAME
            {
                return Err(self::archive("it has too many members, or too long names".into()));
            }
            left = left
                .checked_sub(entry.size)
                .ok_or_else(|| self::archive(format!("it is larger than {max_bytes} bytes")))?;
            let name = resolve("", &entry.path);
            match entry.kind {
                Kind::File => {
                    let path = scratch.path().join(files.len().to_string());
                    write_member(&mut stream, &path)?;
                    files.insert(name, path);
                }
                Kind::Symlink => drop(links.insert(name.clone(), resolve(&name, &entry.link))),
                Kind::HardLink => drop(links.insert(name, resolve("", &entry.link))),
                _ => {}
            }
        }
        Ok(Self { files, links, _scratch: scratch })
    }

    fn images(&self, platform: &Platform) -> Result<Vec<Found>> {
        let found = if self.files.contains_key("manifest.json") {
            self.docker_images()?
        } else if self.files.contains_key("index.json") {
            self.oci_images(platform)?
        } else {
            return Err(archive("it holds neither manifest.json nor index.json".into()));
        };
        if found.is_empty() { Err(archive("it holds no image".into())) } else { Ok(found) }
    }

    fn docker_images(&self) -> Result<Vec<Found>> {
        let images: Vec<DockerImage> =
            parse("manifest.json", &self.small("manifest.json", MAX_MANIFEST)?)?;
        images.iter().map(|image| self.docker_image(image)).collect()
    }

    fn docker_image(&self, image: &DockerImage) -> Result<Found> {
        let config = self.small(&image.config, MAX_CONFIG)?;
        let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if let Ok(expected) = format!("sha256:{stem}").parse::<Digest>() {
            check_digest(&image.config, &config, expected)?;
        }
        let name = |text: &String| text.parse().map_err(|error| archive(format!("{error}")));
        Ok(Found {
            config,
            names: image.repo_tags.iter().flatten().map(name).collect::<Result<_>>()?,
            layers: image.layers.iter().map(|name| self.file(name)).collect::<Result<_>>()?,
        })
    }

    fn oci_images(&self, platform: &Platform) -> Result<Vec<Found>> {
        let index: Index = parse("index.json", &self.small("index.json", MAX_MANIFEST)?)?;
        let (mut found, mut others) = (Vec::new(), Vec::new());
        for entry in index.manifests.iter().filter(|entry| !entry.is_attestation()) {
            match &entry.platform {
                Some(other) if !platform.runs(other) => others.push(other.clone()),
                _ => found.push(self.oci_image(entry, platform)?),
            }
        }
        if found.is_empty() && !others.is_empty() {
            let image = "in the archive".to_owned();
            return Err(Error::NoVariant { image, wanted: platform.clone(), available: others });
        }
        Ok(found)
    }

    fn oci_image(&self, entry: &Descriptor, platform: &Platform) -> Result<Found> {
        let names = oci_name(entry).into_iter().collect::<Vec<_>>();
        let shown = names.first().map_or_else(|| entry.digest.to_string(), Reference::familiar);
        let manifest = match Document::parse(&shown, &self.blob(entry, MAX_MANIFEST)?)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => self.manifest(&shown, index.choose(&shown, platform)?)?,
        };
        let config = self.blob(&manifest.config, MAX_CONFIG)?;
        let layers = manifest
            .layers
            .iter()
            .map(|layer| self.file(&blob_name(layer)))
            .collect::<Result<_>>()?;
        Ok(Found { config, names, layers })
    }

    fn manifest(&self, image: &str, entry: &Descriptor) -> Result<Manifest> {
        match Document::parse(image, &self.blob(entry, MAX_MANIFEST)?)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => {
                Err(archive(format!("the index of {image} points to another index")))
            }
        }
    }

    /// A small blob of an OCI layout, verified.
    fn blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let name = blob_name(blob);
        let data = self.small(&name, limit)?;
        check_digest(&name, &data, blob.digest)?;
        Ok(data)
    }

    /// Where a member is on disk.
    fn file(&self, name: &str) -> Result<PathBuf> {
        let mut wanted = resolve("", name.as_bytes());
        for _ in 0..MAX_LINKS {
            if let Some(path) = self.files.get(&wanted) {
                return Ok(path.clone());
            }
            match self.links.get(&wanted) {
                Some(target) => wanted.clone_from(target),
                None => break,
            }
        }
        Err(archive(format!("{name} is missing (is it truncated?)")))
    }

    fn small(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let path = self.file(name)?;
        let action = || Error::io(format!("read {}", path.display()));
        let file = File::open(&path).map_err(action())?;
        if file.metadata().map_err(action())?.len() > limit {
            return Err(archive(format!("{name} is larger than {limit} bytes")));
        }
        let mut data = Vec::new();
        file.take(limit).read_to_end(&mut data).map_err(action())?;
        Ok(data)
    }
}

/// An element of `manifest.json` (Docker image spec v1.2, "Combined Image JSON + Filesystem Changeset Format").
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn write_member(stream: &mut impl Read, path: &std::path::Path) -> Result<()> {
    let action = || Error::io(format!("write {}", path.display()));
    let mut file = File::create(path).map_err(action())?;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        // Read and write errors have different causes: the archive, and this disk.
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => io::Write::write_all(&mut file, &buffer[..read]).map_err(action())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(damaged(error)),
        }
    }
}

/// The image's name: containerd's annotation is whole, OCI's may be only a tag, which names nothing.
fn oci_name(entry: &Descriptor) -> Option<Reference> {
    let whole = entry.annotation("io.containerd.image.name").and_then(|name| name.parse().ok());
    let partial = entry
        .annotation("org.opencontainers.image.ref.name")
        .filter(|name| name.contains([':', '/']));
    whole.or_else(|| partial?.parse().ok())
}

fn blob_name(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest.hex())
}

/// A member's name without `.` and `..`, relative to the member `from` for a link's target.
fn resolve(from: &str, path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> =
        if path.starts_with('/') { Vec::new() } else { from.split('/').collect() };
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn check_digest(name: &str, data: &[u8], expected: Digest) -> Result<()> {
    let actual = Digest::of(data);
    if actual == expected {
        Ok(())
    } else {
        Err(archive(format!("{name} is corrupt: its content has digest {actual}")))
    }
}

fn parse<T: for<'de> Deserialize<'de>>(name: &str, data: &[u8]) -> Result<T> {
    serde_json::from_slice(data).map_err(|error| archive(format!("{name} is malformed: {error}")))
}

fn archive(reason: String) -> Error {
    Error::Archive(reason)
}

fn damaged(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => archive("it is truncated".into()),
        _ => archive(error.to_string()),
    }
}
