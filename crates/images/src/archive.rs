//! Makes images programmatically: layers file by file, a configuration, and archives that any `load` takes.
//!
//! For tests and for programs that ship a small image of their own. Everything is built in memory.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::digest::{Digest, ImageId};
use crate::platform::Platform;

use layer::header;
pub use layer::{Blob, Compression, Layer};

mod layer;

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// Describes an image; [`Builder::build`] makes its blobs.
pub struct Builder {
    platform: Platform,
    names: Vec<String>,
    created: String,
    config: Map<String, Value>,
    layers: Vec<Layer>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An image without layers for this program's own platform.
    pub fn new() -> Self {
        Self {
            platform: Platform::host(),
            names: Vec::new(),
            created: "1970-01-01T00:00:00Z".into(),
            config: Map::new(),
            layers: Vec::new(),
        }
    }

    /// A name the archive gives the image, such as `whoami:latest`.
    pub fn name(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// Another platform.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Time of creation, RFC 3339; the epoch unless set, which makes builds reproducible.
    pub fn created(mut self, time: &str) -> Self {
        self.created = time.to_owned();
        self
    }

    /// First words of the command line.
    pub fn entrypoint(self, words: &[&str]) -> Self {
        self.config("Entrypoint", json!(words))
    }

    /// Further words of the command line.
    pub fn cmd(self, words: &[&str]) -> Self {
        self.config("Cmd", json!(words))
    }

    /// Environment, `NAME=value`.
    pub fn env(self, variables: &[&str]) -> Self {
        self.config("Env", json!(variables))
    }

    /// Working directory.
    pub fn working_dir(self, path: &str) -> Self {
        self.config("WorkingDir", json!(path))
    }

    /// User, as in [`crate::ImageConfig::user`].
    pub fn user(self, user: &str) -> Self {
        self.config("User", json!(user))
    }

    /// A port the image serves, such as `80/tcp`.
    pub fn expose(mut self, port: &str) -> Self {
        let ports = self.config.entry("ExposedPorts").or_insert_with(|| json!({}));
        ports[port] = json!({});
        self
    }

    /// Any field of the configuration's `config` object.
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    /// The next layer, on top of those before.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Makes the blobs.
    ///
    /// # Errors
    /// None in practice: it is all in memory.
    pub fn build(self) -> io::Result<Built> {
        let layers = self.layers.into_iter().map(Layer::build).collect::<io::Result<Vec<_>>>()?;
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        let mut config = json!({
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "created": self.created,
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        if let Some(variant) = &self.platform.variant {
            config["variant"] = json!(variant);
        }
        let config = config.to_string().into_bytes();
        let described = layers.iter().map(|layer| descriptor(&layer.media_type, &layer.data));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, &config),
            "layers": described.collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        Ok(Built { platform: self.platform, names: self.names, config, manifest, layers })
    }
}

/// An image's blobs, to be pushed or written to an archive.
#[derive(Clone, Debug)]
pub struct Built {
    /// What it is for.
    pub platform: Platform,
    /// Names given to it.
    pub names: Vec<String>,
    /// Configuration, JSON.
    pub config: Vec<u8>,
    /// OCI manifest, JSON.
    pub manifest: Vec<u8>,
    /// Layers, lowest first.
    pub layers: Vec<Blob>,
}

impl Built {
    /// The image's id.
    pub fn id(&self) -> ImageId {
        Digest::of(&self.config)
    }

    /// Writes an archive as `docker save` does before version 25.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_docker_archive(&self, to: impl Write) -> io::Result<()> {
        let config_name = format!("{}.json", self.id().hex());
        let layer_name = |layer: &Blob| format!("{}/layer.tar", layer.diff_id.hex());
        let manifest = json!([{
            "Config": config_name,
            "RepoTags": self.names,
            "Layers": self.layers.iter().map(layer_name).collect::<Vec<_>>(),
        }]);
        let mut members = BTreeMap::new();
        members.extend(self.layers.iter().map(|layer| (layer_name(layer), layer.data.clone())));
        members.insert(config_name, self.config.clone());
        members.insert("manifest.json".into(), manifest.to_string().into_bytes());
        write_members(to, &members)
    }

    /// Writes an OCI image layout (OCI image spec, `image-layout.md`) in a tar.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_oci_archive(&self, to: impl Write) -> io::Result<()> {
        write_oci_archive(std::slice::from_ref(self), to)
    }
}

/// Writes one OCI image layout with several images, such as the variants of one image for several platforms.
///
/// # Errors
/// Those of the writer.
pub fn write_oci_archive(images: &[Built], to: impl Write) -> io::Result<()> {
    let mut members = BTreeMap::new();
    let mut blob = |data: &[u8]| {
        members.insert(format!("blobs/sha256/{}", Digest::of(data).hex()), data.to_vec());
    };
    for image in images {
        blob(&image.config);
        blob(&image.manifest);
        image.layers.iter().for_each(|layer| blob(&layer.data));
    }
    let index = index_of(images);
    members.insert("index.json".into(), index.to_string().into_bytes());
    members.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    write_members(to, &members)
}

/// The OCI index of several images, JSON: an entry for each image and name, with its platform.
pub fn index_of(images: &[Built]) -> Value {
    let mut entries = Vec::new();
    for image in images {
        let mut entry = descriptor(MANIFEST_TYPE, &image.manifest);
        entry["platform"] =
            json!({ "os": image.platform.os, "architecture": image.platform.architecture });
        if image.names.is_empty() {
            entries.push(entry.clone());
        }
        for name in &image.names {
            entry["annotations"] = json!({ "io.containerd.image.name": name });
            entries.push(entry.clone());
        }
    }
    json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries })
}

fn descriptor(media_type: &str, data: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(data), "size": data.len() })
}

fn write_members(to: impl Write, members: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let mut tar = tar::Builder::new(to);
    for (name, data) in members {
        let mut header = header(tar::EntryType::Regular, 0o644, data.len() as u64);
        tar.append_data(&mut header, name, data.as_slice())?;
    }
    tar.into_inner()?.flush()
}
