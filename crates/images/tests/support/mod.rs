//! What the tests of this crate share: a store in a temporary directory, images to put in it, looks at files.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{Cursor, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use swarm_images::archive::{Builder, Built, Layer};
use swarm_images::{Error, Image, ImageStore, Loaded, Options, Platform, Reference};

pub(crate) mod registry;

/// A store that goes away with its directory.
pub(crate) struct TestStore {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: ImageStore,
}

impl TestStore {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().expect("make a temporary directory");
        let store = ImageStore::open(dir.path(), options).await.expect("open the store");
        Self { dir, store }
    }

    pub(crate) async fn load(&self, archive: Vec<u8>) -> Result<Vec<Loaded>, Error> {
        self.store.load(Cursor::new(archive), &Platform::host()).await
    }

    /// Loads one image and gives it back.
    pub(crate) async fn load_image(&self, image: &Built) -> Result<Image, Error> {
        let loaded = self.load(oci(image)).await?;
        Ok(self.store.get(&loaded[0].names[0]).await.expect("get the loaded image"))
    }

    /// Loads an image of these layers, named `test`, and gives the error in words.
    pub(crate) async fn refusal(&self, layers: Vec<Layer>) -> String {
        let error = self
            .load_image(&image("test", layers))
            .await
            .expect_err("a malicious image was accepted");
        let text = error.to_string();
        assert!(!text.contains('\n'), "more than one line: {text}");
        text
    }

    /// Asserts that the store holds nothing: no image, no layer, no configuration, no temporary file.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.store.list(), []);
        wait_until_empty(&self.dir.path().join("tmp"));
        for folder in ["layers", "configs"] {
            assert_eq!(
                names(&self.dir.path().join(folder)),
                Vec::<String>::new(),
                "{folder} is not empty"
            );
        }
    }

    pub(crate) async fn assert_not_visible(&self, name: &Reference) {
        assert!(matches!(self.store.get(name).await, Err(Error::NotFound(_))), "{name} is visible");
        assert_eq!(self.store.list(), []);
    }

    pub(crate) fn layer_count(&self) -> usize {
        names(&self.dir.path().join("layers")).len()
    }
}

pub(crate) fn image(name: &str, layers: Vec<Layer>) -> Built {
    layers
        .into_iter()
        .fold(Builder::new().name(name), Builder::layer)
        .build()
        .expect("build an image")
}

/// A layer with one file.
pub(crate) fn file_layer(path: &str, content: &[u8]) -> Layer {
    Layer::new().file(path, 0o644, content).expect("add a file")
}

pub(crate) fn oci(image: &Built) -> Vec<u8> {
    let mut archive = Vec::new();
    image.write_oci_archive(&mut archive).expect("write an archive");
    archive
}

pub(crate) fn docker(image: &Built) -> Vec<u8> {
    let mut archive = Vec::new();
    image.write_docker_archive(&mut archive).expect("write an archive");
    archive
}

pub(crate) fn reference(text: &str) -> Reference {
    text.parse().expect("parse a reference")
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries =
        std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Waits for the background deletion.
pub(crate) fn wait_until_empty(dir: &Path) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !names(dir).is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "{} is not empty: {:?}",
            dir.display(),
            names(dir)
        );
        std::thread::sleep(std::time::Duration::from_millis(2)); // the deletion is in the background and tells nobody
    }
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Mode with type, owner, group.
pub(crate) fn stat(path: impl AsRef<Path>) -> (u32, u32, u32) {
    let path = path.as_ref();
    let metadata = std::fs::symlink_metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (metadata.mode(), metadata.uid(), metadata.gid())
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

/// An overlay of an image's layers, mounted as a container's root would be; unmounted when dropped.
pub(crate) struct Mounted {
    pub(crate) root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mounted {
    pub(crate) fn new(image: &Image) -> Self {
        let dir = tempfile::tempdir().expect("make a temporary directory");
        let made = ["root", "upper", "work"].map(|name| dir.path().join(name));
        made.iter().for_each(|path| std::fs::create_dir(path).expect("make a directory"));
        let lower: Vec<_> =
            image.layers.iter().rev().map(|layer| layer.display().to_string()).collect();
        let [root, upper, work] = made;
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            upper.display(),
            work.display()
        );
        let status = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&root)
            .status();
        assert!(status.expect("run mount").success(), "mount an overlay of {options}");
        Self { root, _dir: dir }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // If it fails, the directory cannot be removed and the test's output shows why.
        drop(Command::new("umount").arg(&self.root).status());
    }
}

/// Reads all of something.
pub(crate) fn all(mut from: impl Read) -> Vec<u8> {
    let mut data = Vec::new();
    from.read_to_end(&mut data).expect("read");
    data
}
