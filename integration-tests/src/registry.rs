//! A real registry (Debian's `docker-registry`) on the machine, and a push to it. Needs curl.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use swarm_images::Digest;
use swarm_images::archive::Built;
use tempfile::TempDir;

use crate::client::text;
use crate::eventually;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry in clear text; ended when dropped.
#[derive(Debug)]
pub struct Registry {
    host: String,
    process: Option<Child>,
    dir: TempDir,
}

impl Registry {
    /// Listens on an address of this machine.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(address: SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let host = address.to_string();
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
            storage.display()
        );
        fs::write(&config, text).expect("the registry's configuration");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian package docker-registry)");
        let registry = Self { host, process: Some(process), dir };
        eventually("the registry's answer", || {
            curl(&[&format!("http://{}/v2/", registry.host)]).map(drop)
        });
        registry
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Pushes an image as `name:tag`; gives the digest of its manifest.
    ///
    /// # Panics
    /// When the registry does not take it.
    #[track_caller]
    pub fn push(&self, name: &str, tag: &str, image: &Built) -> Digest {
        let blobs = image.layers.iter().map(|layer| &layer.data[..]).chain([&image.config[..]]);
        for blob in blobs {
            self.push_blob(name, blob);
        }
        let file = self.file("manifest", &image.manifest);
        let url = format!("http://{}/v2/{name}/manifests/{tag}", self.host);
        curl(&[
            "-X",
            "PUT",
            "-H",
            &format!("Content-Type: {MANIFEST}"),
            "--data-binary",
            &file,
            &url,
        ])
        .unwrap_or_else(|e| panic!("{url}: {e}"));
        Digest::of(&image.manifest)
    }

    fn push_blob(&self, name: &str, blob: &[u8]) {
        let url = format!("http://{}/v2/{name}/blobs/uploads/", self.host);
        let headers = curl(&["-X", "POST", "-D", "-", "-o", "/dev/null", &url])
            .unwrap_or_else(|e| panic!("{url}: {e}"));
        let mut lines = headers.lines().filter_map(|line| line.split_once(": "));
        let location = lines.find(|(key, _)| key.eq_ignore_ascii_case("location"));
        let location = location.expect("where to upload").1.trim();
        let url = format!("{location}&digest={}", Digest::of(blob));
        let file = self.file("blob", blob);
        let kind = "Content-Type: application/octet-stream";
        curl(&["-X", "PUT", "-H", kind, "--data-binary", &file, &url])
            .unwrap_or_else(|e| panic!("{url}: {e}"));
    }

    /// As curl's `@FILE`.
    fn file(&self, name: &str, content: &[u8]) -> String {
        let path: &Path = &self.dir.path().join(name);
        fs::write(path, content).expect("a temporary file");
        format!("@{}", path.display())
    }

    /// Ends it; what it holds is gone.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn curl(args: &[&str]) -> Result<String, String> {
    let output = Command::new("curl")
        .args(["-sS", "--fail", "--noproxy", "*", "--max-time", "60"])
        .args(args)
        .output()
        .map_err(|e| format!("curl: {e}"))?;
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
