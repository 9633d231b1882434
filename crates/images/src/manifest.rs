//! Manifests and indexes, OCI's and Docker's, which have the same shape (OCI image spec, `manifest.md`, `image-index.md`).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::platform::Platform;

/// What manifests are asked for, in the order of liking.
pub(crate) const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Largest configuration read into memory.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// Largest manifest or index; Docker's registry has the same limit.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Most layers of an image: overlayfs takes 500 lower directories (kernel, `fs/overlayfs/params.h`).
const MAX_LAYERS: usize = 499;

/// Points to a blob.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Build attestations travel in indexes as images for the platform `unknown/unknown`.
    pub(crate) fn is_attestation(&self) -> bool {
        self.annotation("vnd.docker.reference.type") == Some("attestation-manifest")
            || self.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    }
}

/// An image for one platform.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Images for several platforms.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

/// Either of them.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// Tells them apart by what they hold; `mediaType` is optional in both.
    pub(crate) fn parse(image: &str, blob: &[u8]) -> Result<Self> {
        let malformed = |reason: String| Error::Malformed { image: image.to_owned(), reason };
        let parse_error =
            |error: serde_json::Error| malformed(format!("malformed manifest: {error}"));
        let value: serde_json::Value = serde_json::from_slice(blob).map_err(parse_error)?;
        if value.get("manifests").is_some() {
            return serde_json::from_value(value).map(Self::Index).map_err(parse_error);
        }
        if value.get("schemaVersion").and_then(serde_json::Value::as_u64) == Some(1) {
            return Err(malformed(
                "its manifest has schema version 1, which is no longer supported".into(),
            ));
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(parse_error)?;
        manifest.check().map_err(malformed)?;
        Ok(Self::Manifest(manifest))
    }
}

impl Manifest {
    fn check(&self) -> std::result::Result<(), String> {
        if self.config.size > MAX_CONFIG {
            return Err(format!("its configuration is larger than {MAX_CONFIG} bytes"));
        }
        if self.layers.len() > MAX_LAYERS {
            return Err(format!("it has more than {MAX_LAYERS} layers"));
        }
        match self.layers.iter().find(|layer| !is_layer(&layer.media_type)) {
            Some(layer) => Err(format!(
                "layer {} has the unsupported media type {:?}",
                layer.digest, layer.media_type
            )),
            None => Ok(()),
        }
    }
}

/// Tar, plain or compressed with gzip or zstd; what the bytes are decides which.
fn is_layer(media_type: &str) -> bool {
    let plain = media_type
        .strip_suffix("+gzip")
        .or_else(|| media_type.strip_suffix("+zstd"))
        .unwrap_or(media_type);
    matches!(
        plain,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    )
}

impl Index {
    /// The entry for `wanted`; one that names the very variant goes before one that names none.
    pub(crate) fn choose(&self, image: &str, wanted: &Platform) -> Result<&Descriptor> {
        let images = || self.manifests.iter().filter(|entry| !entry.is_attestation());
        let fits = |entry: &&Descriptor| {
            entry.platform.as_ref().is_some_and(|platform| wanted.runs(platform))
        };
        let exact = images().find(|entry| entry.platform.as_ref() == Some(wanted));
        exact.or_else(|| images().find(fits)).ok_or_else(|| Error::NoVariant {
            image: image.to_owned(),
            wanted: wanted.clone(),
            available: images().filter_map(|entry| entry.platform.clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn index(platforms: &[&str]) -> Index {
        let entry = |platform: &&str| {
            let (architecture, variant) = platform.split_once('/').unwrap_or((platform, ""));
            let os = if architecture == "unknown" { "unknown" } else { "linux" };
            let variant = if variant.is_empty() {
                String::new()
            } else {
                format!(r#","variant":"{variant}""#)
            };
            format!(
                r#"{{"digest":"{DIGEST}","size":1,"platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}}}"#
            )
        };
        let entries: Vec<_> = platforms.iter().map(entry).collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        match Document::parse("x", text.as_bytes()).unwrap() {
            Document::Index(index) => index,
            Document::Manifest(_) => panic!("parsed as a manifest"),
        }
    }

    #[test]
    fn the_wanted_platform_is_chosen_or_the_others_are_named() {
        let of = |entry: &Descriptor| entry.platform.as_ref().unwrap().to_string();
        let many = index(&["unknown", "arm/v6", "arm/v7", "amd64"]);
        assert_eq!(of(many.choose("x", &Platform::linux("amd64")).unwrap()), "linux/amd64");
        let v7 = Platform { variant: Some("v7".into()), ..Platform::linux("arm") };
        assert_eq!(of(many.choose("x", &v7).unwrap()), "linux/arm/v7");
        let error = many.choose("x", &Platform::linux("s390x")).unwrap_err();
        let text = "image x has no variant for linux/s390x (it has linux/arm/v6, linux/arm/v7, linux/amd64)";
        assert_eq!(error.to_string(), text);
        let error = index(&["unknown"]).choose("x", &v7).unwrap_err();
        assert_eq!(error.to_string(), "image x has no variant for linux/arm/v7 (it has none)");
    }

    #[test]
    fn strange_manifests_are_refused_with_a_reason() {
        let encrypted = format!(
            r#"{{"config":{{"digest":"{DIGEST}","size":1}},"layers":[
                {{"mediaType":"application/vnd.oci.image.layer.v1.tar+encrypted","digest":"{DIGEST}","size":1}}]}}"#
        );
        let huge = format!(r#"{{"config":{{"digest":"{DIGEST}","size":99999999}},"layers":[]}}"#);
        for (text, reason) in [
            ("<html>", "malformed manifest"),
            ("{}", "malformed manifest"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema version 1"),
            (&encrypted, "unsupported media type"),
            (&huge, "configuration is larger"),
        ] {
            let error = Document::parse("x", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
