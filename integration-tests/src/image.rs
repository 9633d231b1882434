//! An image with a shell: busybox, for what the sample image cannot do. `busybox-static` of Debian must be installed.

use crate::Cluster;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;

/// Reference of the image that [`load_busybox`] loads.
pub const BUSYBOX: &str = "busybox:test";

const PROGRAM: &str = "/bin/busybox";
/// Commands that scripts of tests use.
const APPLETS: [&str; 14] = [
    "sh", "cat", "echo", "env", "false", "head", "id", "ls", "pwd", "sleep", "tail", "test", "tty",
    "wget",
];

/// Makes the image and loads it on every node of the cluster.
///
/// # Panics
/// When busybox is not installed, or a node does not take the image.
pub fn load_busybox(cluster: &Cluster) {
    let busybox =
        std::fs::read(PROGRAM).unwrap_or_else(|e| panic!("{PROGRAM}: {e}: install busybox-static"));
    // On the disk of a host: those see no other's /tmp.
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    archive(&layer(&busybox), file.path());
    for node in cluster.nodes() {
        let copy = node.state_dir().join("busybox.tar");
        std::fs::copy(file.path(), &copy).expect("a copy on the node's disk");
        node.swarmctl(["image".as_ref(), "load".as_ref(), "-i".as_ref(), copy.as_os_str()])
            .unwrap_or_else(|e| panic!("{e}"));
    }
}

fn layer(busybox: &[u8]) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "bin/busybox", 0o755, busybox);
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("a link");
    }
    let passwd = b"root:x:0:0:root:/:/bin/sh\nworker:x:1234:2345:worker:/:/bin/sh\n";
    add(&mut layer, "etc/passwd", 0o644, passwd);
    add(&mut layer, "etc/group", 0o644, b"root:x:0:\nworkers:x:2345:\nextra:x:77:worker\n");
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o1777);
    header.set_size(0);
    layer.append_data(&mut header, "tmp/", std::io::empty()).expect("a directory");
    layer.into_inner().expect("a layer in memory")
}

/// What `docker save` writes.
fn archive(layer: &[u8], path: &Path) {
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["/bin/sleep", "100000"], "WorkingDir": "/tmp"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(layer))]},
    });
    let config = config.to_string();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let manifest: Value =
        json!([{"Config": config_name, "RepoTags": [BUSYBOX], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(File::create(path).expect("the archive"));
    add(&mut archive, &config_name, 0o644, config.as_bytes());
    add(&mut archive, "layer.tar", 0o644, layer);
    add(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes());
    archive.finish().expect("the archive's end");
}

fn add<W: std::io::Write>(archive: &mut tar::Builder<W>, path: &str, mode: u32, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    archive.append_data(&mut header, path, data).expect("an entry of the archive");
}

fn hex(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}
