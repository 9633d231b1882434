//! The `whoami:latest` image: one static binary in an archive that is both an OCI image layout and a `docker save` file.

use crate::error::IoContext;
use crate::{Error, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

/// Reference of the image.
pub const NAME: &str = "whoami:latest";

const ELF_MAGIC: &[u8] = b"\x7fELF\x02\x01";
const PT_INTERP: u32 = 3;

/// Writes the image archive (a tar) with `binary` as `/whoami`. The same binary gives the same bytes.
///
/// # Errors
/// [`Error::BadFile`] when `binary` is no static 64-bit executable; errors of `out`.
pub fn write(binary: &Path, out: impl Write) -> Result<()> {
    let program = std::fs::read(binary).io("read", binary.display())?;
    let architecture = static_architecture(&program)
        .map_err(|reason| Error::BadFile { path: binary.to_owned(), reason })?;
    archive(&program, architecture, out).io("write image archive of", binary.display())
}

fn archive(program: &[u8], architecture: &str, out: impl Write) -> std::io::Result<()> {
    let layer = layer(program)?;
    let config = config(architecture, &digest(&layer)).to_string().into_bytes();
    let manifest = manifest(&config, &layer).to_string().into_bytes();
    let mut archive = tar::Builder::new(out);
    for blob in [&layer, &config, &manifest] {
        append(&mut archive, &blob_path(blob), 0o644, blob)?;
    }
    let index = index(&manifest).to_string();
    let docker = json!([{
        "Config": blob_path(&config), "RepoTags": [NAME], "Layers": [blob_path(&layer)],
    }]);
    append(&mut archive, "index.json", 0o644, index.as_bytes())?;
    append(&mut archive, "manifest.json", 0o644, docker.to_string().as_bytes())?;
    append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.into_inner()?.flush()
}

/// The one layer: the program and what programs expect of any root.
fn layer(program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    append_directory(&mut layer, "etc/", 0o755)?;
    append(&mut layer, "etc/group", 0o644, b"root:x:0:\nnobody:x:65534:\n")?;
    let passwd = b"root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
    append(&mut layer, "etc/passwd", 0o644, passwd)?;
    append_directory(&mut layer, "tmp/", 0o1777)?;
    append(&mut layer, "whoami", 0o755, program)?;
    layer.into_inner()
}

/// OCI image configuration (image-spec, config.md).
fn config(architecture: &str, layer_digest: &str) -> Value {
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/whoami"],
            "Env": ["PATH=/"],
            "ExposedPorts": {"80/tcp": {}, "80/udp": {}},
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    })
}

fn manifest(config: &[u8], layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(config), "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest(layer), "size": layer.len(),
        }],
    })
}

fn index(manifest: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(manifest), "size": manifest.len(),
            "annotations": {
                "io.containerd.image.name": format!("docker.io/library/{NAME}"),
                "org.opencontainers.image.ref.name": "latest",
            },
        }],
    })
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    data: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    archive.append_data(&mut header, path, data)
}

fn append_directory<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(mode);
    header.set_size(0);
    archive.append_data(&mut header, path, std::io::empty())
}

fn hex(data: &[u8]) -> String {
    Sha256::digest(data).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written to it");
        text
    })
}

fn digest(data: &[u8]) -> String {
    format!("sha256:{}", hex(data))
}

fn blob_path(data: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(data))
}

/// The architecture, in the words of OCI, of a static little-endian ELF64 executable; a dynamic one would not find its loader in the image.
/// Offsets are those of `Elf64_Ehdr` and `Elf64_Phdr`, elf(5).
fn static_architecture(program: &[u8]) -> std::result::Result<&'static str, String> {
    let damaged = || "its ELF header is damaged".to_owned();
    if !program.starts_with(ELF_MAGIC) {
        return Err("it is no 64-bit little-endian ELF file".to_owned());
    }
    let number = |offset: usize, length: usize| -> std::result::Result<u64, String> {
        let bytes = program.get(offset..).and_then(|p| p.get(..length)).ok_or_else(damaged)?;
        Ok(bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    };
    let table = usize::try_from(number(32, 8)?).map_err(|_| damaged())?;
    let (size, count) = (number(54, 2)? as usize, number(56, 2)? as usize);
    for index in 0..count {
        let offset = table.checked_add(index * size).ok_or_else(damaged)?;
        if number(offset, 4)? == u64::from(PT_INTERP) {
            return Err(
                "it is linked dynamically; `cargo xtask build` makes a static one".to_owned()
            );
        }
    }
    match number(18, 2)? {
        62 => Ok("amd64"),
        183 => Ok("arm64"),
        243 => Ok("riscv64"),
        other => Err(format!("ELF machine {other} is not known here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut data = Vec::new();
                entry.read_to_end(&mut data).unwrap();
                (entry.path().unwrap().to_string_lossy().into_owned(), data)
            })
            .collect()
    }

    #[test]
    fn every_digest_names_the_blob_it_stands_for() {
        let mut out = Vec::new();
        archive(b"program", "amd64", &mut out).unwrap();
        let files = files(&out);
        for (path, data) in files.iter().filter(|(p, _)| p.starts_with("blobs/")) {
            assert_eq!(*path, blob_path(data));
        }
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let path = |v: &Value| v["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        let manifest: Value =
            serde_json::from_slice(&files[&path(&index["manifests"][0])]).unwrap();
        let config: Value = serde_json::from_slice(&files[&path(&manifest["config"])]).unwrap();
        let layer = &files[&path(&manifest["layers"][0])];
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(layer));
        let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(docker[0]["Config"], path(&manifest["config"]));
        assert_eq!(docker[0]["RepoTags"][0], "whoami:latest");
        assert_eq!(self::files(layer)["whoami"], b"program");
    }

    #[test]
    fn a_dynamic_program_is_refused() {
        let this_test = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = static_architecture(&this_test).unwrap_err();
        assert!(error.contains("linked dynamically"), "{error}");
        assert!(static_architecture(b"#!/bin/sh").is_err());
        assert!(static_architecture(ELF_MAGIC).unwrap_err().contains("damaged"));
    }
}
