//! The `whoami:latest` image: one program, and what it needs if it is linked dynamically, in an archive that is both an
//! OCI image layout and a `docker save` file.

use crate::error::IoContext;
use crate::{Error, Result, libraries};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Reference of the image.
pub const NAME: &str = "whoami:latest";

const ELF_MAGIC: &[u8] = b"\x7fELF\x02\x01";
const PT_INTERP: usize = 3;

/// Where the image has the libraries of a program that has some: in one place, wherever this machine has them.
const LIBRARIES: &str = "/lib";

/// A file of the image.
struct File {
    /// From the root.
    path: PathBuf,
    content: Vec<u8>,
}

impl File {
    fn read(from: &Path, path: impl Into<PathBuf>) -> Result<Self> {
        let content = std::fs::read(from).io("read", from.display())?;
        Ok(Self { path: path.into(), content })
    }
}

/// Writes the image archive (a tar) with `binary` as `/whoami`. The same files give the same bytes.
///
/// # Errors
/// [`Error::BadFile`] when `binary` is no 64-bit executable, or lacks a library; errors of `out`.
pub fn write(binary: &Path, out: impl Write) -> Result<()> {
    let program = File::read(binary, "/whoami")?;
    let elf = Elf::read(&program.content)
        .map_err(|reason| Error::BadFile { path: binary.to_owned(), reason })?;
    let mut files = vec![program];
    if let Some(loader) = elf.loader {
        for library in libraries::of(binary, &loader)? {
            files.push(File::read(&library.path, Path::new(LIBRARIES).join(library.name))?);
        }
        files.push(File::read(&loader, &loader)?);
    }
    archive(&files, elf.architecture, out).io("write image archive of", binary.display())
}

fn archive(files: &[File], architecture: &str, out: impl Write) -> std::io::Result<()> {
    let layer = layer(files)?;
    let mut env = vec!["PATH=/".to_owned()];
    if files.len() > 1 {
        env.push(format!("LD_LIBRARY_PATH={LIBRARIES}"));
    }
    let config = config(architecture, &env, &digest(&layer)).to_string().into_bytes();
    let manifest = manifest(&config, &layer).to_string().into_bytes();
    let mut archive = tar::Builder::new(out);
    for blob in [&layer, &config, &manifest] {
        append(&mut archive, blob_path(blob), 0o644, blob)?;
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

/// The one layer: these files and what programs expect of any root.
fn layer(files: &[File]) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    append_directory(&mut layer, "etc/", 0o755)?;
    append(&mut layer, "etc/group", 0o644, b"root:x:0:\nnobody:x:65534:\n")?;
    let passwd = b"root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
    append(&mut layer, "etc/passwd", 0o644, passwd)?;
    append_directory(&mut layer, "tmp/", 0o1777)?;
    let mut made = BTreeSet::new();
    for File { path, content } in files {
        let path = path.strip_prefix("/").unwrap_or(path);
        let parents: Vec<&Path> = path.ancestors().skip(1).collect();
        for parent in parents.into_iter().rev().filter(|dir| !dir.as_os_str().is_empty()) {
            if made.insert(parent) {
                append_directory(&mut layer, parent, 0o755)?;
            }
        }
        append(&mut layer, path, 0o755, content)?;
    }
    layer.into_inner()
}

/// OCI image configuration (image-spec, config.md).
fn config(architecture: &str, env: &[String], layer_digest: &str) -> Value {
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/whoami"],
            "Env": env,
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
    path: impl AsRef<Path>,
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
    path: impl AsRef<Path>,
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

/// What an image has to know of a little-endian ELF64 executable.
#[derive(Debug, PartialEq, Eq)]
struct Elf {
    /// In the words of OCI.
    architecture: &'static str,
    /// What loads it; none if it is linked statically.
    loader: Option<PathBuf>,
}

impl Elf {
    /// Offsets are those of `Elf64_Ehdr` and `Elf64_Phdr`, elf(5).
    fn read(program: &[u8]) -> std::result::Result<Self, String> {
        if !program.starts_with(ELF_MAGIC) {
            return Err("it is no 64-bit little-endian ELF file".to_owned());
        }
        let architecture = match number(program, 18, 2)? {
            62 => "amd64",
            183 => "arm64",
            243 => "riscv64",
            other => return Err(format!("ELF machine {other} is not known here")),
        };
        let table = number(program, 32, 8)?;
        let (size, count) = (number(program, 54, 2)?, number(program, 56, 2)?);
        for index in 0..count {
            let header = table.checked_add(index * size).ok_or_else(damaged)?;
            if number(program, header, 4)? == PT_INTERP {
                let (offset, length) =
                    (number(program, header + 8, 8)?, number(program, header + 32, 8)?);
                let path = bytes(program, offset, length)?.strip_suffix(b"\0");
                let path = path.and_then(|path| std::str::from_utf8(path).ok());
                return Ok(Self { architecture, loader: Some(path.ok_or_else(damaged)?.into()) });
            }
        }
        Ok(Self { architecture, loader: None })
    }
}

fn damaged() -> String {
    "its ELF header is damaged".to_owned()
}

fn bytes(program: &[u8], offset: usize, length: usize) -> std::result::Result<&[u8], String> {
    program.get(offset..).and_then(|rest| rest.get(..length)).ok_or_else(damaged)
}

fn number(program: &[u8], offset: usize, length: usize) -> std::result::Result<usize, String> {
    let bytes = bytes(program, offset, length)?;
    let number = bytes.iter().rev().fold(0, |n: u64, byte| n << 8 | u64::from(*byte));
    usize::try_from(number).map_err(|_| damaged())
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
        let program = File { path: "/whoami".into(), content: b"program".to_vec() };
        archive(&[program], "amd64", &mut out).unwrap();
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

    /// The layer of an image archive.
    fn layer_of(archive: &[u8]) -> Vec<u8> {
        let files = files(archive);
        let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        files[docker[0]["Layers"][0].as_str().unwrap()].clone()
    }

    #[test]
    fn a_dynamic_program_runs_where_only_its_image_is() {
        let this_test = std::env::current_exe().unwrap();
        let mut out = Vec::new();
        write(&this_test, &mut out).unwrap();
        let root = tempfile::tempdir().unwrap();
        tar::Archive::new(layer_of(&out).as_slice()).unpack(root.path()).unwrap();
        let mut command = std::process::Command::new("chroot");
        command.arg(root.path()).args(["/whoami", "--list"]).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("LD_LIBRARY_PATH", LIBRARIES);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("a_dynamic_program_runs_where_only_its_image_is: test"), "{said}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let read = |program: &[u8]| Elf::read(program).unwrap_err();
        assert!(read(b"#!/bin/sh").contains("no 64-bit"));
        assert!(read(ELF_MAGIC).contains("damaged"));
        let mut elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(Elf::read(&elf).unwrap().loader.is_some_and(|loader| loader.is_absolute()));
        elf.truncate(100);
        assert!(read(&elf).contains("damaged"));
        elf[18] = 0;
        assert!(read(&elf).contains("machine 0 is not known"));
    }
}
