//! A tree packed by GNU tar and by the builder comes out of the store as it went in.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use support::{TestStore, image, names};
use swarm_images::archive::Layer;

/// Type, mode, owner, group, seconds, content or target, and if asked links, of everything below a directory.
fn fingerprint(root: &Path, count_links: bool) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        for name in names(&root.join(&directory)) {
            let (path, full) = (directory.join(&name), root.join(&directory).join(&name));
            let m = std::fs::symlink_metadata(&full).unwrap();
            let content = match m.file_type() {
                kind if kind.is_file() => {
                    swarm_images::Digest::of(&std::fs::read(&full).unwrap()).to_string()
                }
                kind if kind.is_symlink() => {
                    std::fs::read_link(&full).unwrap().display().to_string()
                }
                _ => String::new(),
            };
            let links = if m.is_dir() || !count_links { 0 } else { m.nlink() };
            let text =
                format!("{:o} {}:{} {links} {} {content}", m.mode(), m.uid(), m.gid(), m.mtime());
            if m.is_dir() {
                open.push(path.clone());
            }
            found.insert(path, text);
        }
    }
    found
}

fn run(command: &str) {
    let status = std::process::Command::new("sh").args(["-ec", command]).status().expect("run sh");
    assert!(status.success(), "{command}");
}

#[tokio::test]
async fn what_tar_and_the_builder_pack_comes_out_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (source, tar) = (dir.path().join("source"), dir.path().join("layer.tar"));
    let deep = "directory-with-a-long-name/".repeat(8);
    let (at, to) = (source.display(), tar.display());
    run(&format!(
        "mkdir -p {at}/{deep} {at}/sub && cd {at} && echo deep > {deep}file && cp -a /bin/ls sub/ls
         echo text > a && ln a sub/b && ln -s ../../../etc/passwd link && ln -s {deep} longlink && mkfifo pipe
         head -c 3000000 /dev/urandom > random && truncate -s 5M holes && echo end >> holes
         chmod 4755 sub/ls && chown 1234:70000 a && chmod 1777 sub && touch -d '1999-12-31 UTC' a sub"
    ));
    // The builder packs hard links as files of their own.
    let mut layers = vec![(Layer::new().tree(".", &source).unwrap(), false)];
    for options in
        ["--format=gnu", "--format=gnu --sparse", "--format=pax --pax-option=delete=atime"]
    {
        run(&format!("tar -C {at} --numeric-owner {options} -cf {to} ."));
        layers.push((Layer::from_tar(std::fs::read(&tar).unwrap()), true));
    }
    for (layer, count_links) in layers {
        let test = TestStore::new().await;
        let loaded = test.load_image(&image("test", vec![layer])).await.unwrap();
        let (expected, found) =
            (fingerprint(&source, count_links), fingerprint(&loaded.layers[0], count_links));
        for (path, text) in &expected {
            assert_eq!(found.get(path), Some(text), "{}", path.display());
        }
        assert_eq!(found.len(), expected.len());
    }
}
