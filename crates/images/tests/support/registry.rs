//! A real registry (Debian's `docker-registry`) on a loopback port, and a proxy before it that counts and cuts.

use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oci_client::client::{ClientConfig, ClientProtocol};
use swarm_images::archive::{Built, index_of};
use swarm_images::{Digest, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The registry; ended, by its process, when dropped.
pub(crate) struct TestRegistry {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) host: String,
    process: Child,
}

impl TestRegistry {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("make a temporary directory");
        let host = StdListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("find a port")
            .to_string();
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
            storage.display()
        );
        std::fs::write(&config, text).expect("write the registry's configuration");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry (Debian package docker-registry)");
        let registry = Self { dir, host, process };
        registry.wait().await;
        registry
    }

    async fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&self.host).await.is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen on {}", self.host);
            tokio::time::sleep(Duration::from_millis(20)).await; // before the next try to connect
        }
    }

    pub(crate) fn options(&self) -> Options {
        insecure(&self.host)
    }

    /// Pushes an image as `<host>/<name>`; gives the manifest's digest.
    pub(crate) async fn push(&self, name: &str, image: &Built) -> Digest {
        let target = self.target(name);
        self.push_blobs(&target, image).await;
        self.push_manifest(&target, &image.manifest, "application/vnd.oci.image.manifest.v1+json")
            .await
    }

    /// Pushes one index of several images.
    pub(crate) async fn push_index(&self, name: &str, images: &[Built]) -> Digest {
        let target = self.target(name);
        for image in images {
            self.push_blobs(&target, image).await;
            let by_digest = target.clone_with_digest(Digest::of(&image.manifest).to_string());
            self.push_manifest(
                &by_digest,
                &image.manifest,
                "application/vnd.oci.image.manifest.v1+json",
            )
            .await;
        }
        let index = index_of(images).to_string().into_bytes();
        self.push_manifest(&target, &index, "application/vnd.oci.image.index.v1+json").await
    }

    /// Where the registry keeps a blob.
    pub(crate) fn blob_path(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir
            .path()
            .join("storage/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }

    fn target(&self, name: &str) -> oci_client::Reference {
        format!("{}/{name}", self.host).parse().expect("parse a reference")
    }

    fn client(&self) -> oci_client::Client {
        drop(rustls::crypto::ring::default_provider().install_default());
        let protocol = ClientProtocol::HttpsExcept(vec![self.host.clone()]);
        oci_client::Client::try_from(ClientConfig { protocol, ..ClientConfig::default() })
            .expect("make a client")
    }

    async fn push_blobs(&self, target: &oci_client::Reference, image: &Built) {
        let client = self.client();
        let layers = image.layers.iter().map(|layer| layer.data.clone());
        for blob in layers.chain([image.config.clone()]) {
            let digest = Digest::of(&blob).to_string();
            client.push_blob(target, blob, &digest).await.expect("push a blob");
        }
    }

    async fn push_manifest(
        &self,
        target: &oci_client::Reference,
        manifest: &[u8],
        media_type: &str,
    ) -> Digest {
        let media_type = media_type.parse().expect("parse a media type");
        self.client()
            .push_manifest_raw(target, manifest.to_vec(), media_type)
            .await
            .expect("push a manifest");
        Digest::of(manifest)
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        // It may be dead already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub(crate) fn insecure(host: &str) -> Options {
    Options { insecure_registries: vec![host.to_owned()], ..Options::default() }
}

/// Passes connections on to the registry, noting requests; the first few may be cut after some bytes of response, or all
/// may be held there.
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) requests: Arc<Mutex<Vec<u8>>>,
    pub(crate) returned: Arc<AtomicUsize>,
    /// While true, no connection gets more than the first bytes of its response.
    pub(crate) held: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Cuts `cuts` connections, each after `after` bytes.
    pub(crate) async fn start(registry: &TestRegistry, cuts: usize, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let host = listener.local_addr().expect("own address").to_string();
        let (requests, returned) =
            (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let shared =
            (Arc::clone(&requests), Arc::clone(&returned), Arc::new(AtomicUsize::new(cuts)));
        let upstream = registry.host.clone();
        let (held, holding) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (requests, returned, cuts) = shared.clone();
                let (upstream, mut holding) = (upstream.clone(), holding.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(upstream).await.expect("reach the registry");
                    let limits = Limits { cuts: &cuts, holding: &mut holding, after };
                    pass(client, server, &requests, &returned, limits).await;
                });
            }
        });
        Self { host, requests, returned, held, task }
    }

    /// How often this was asked for.
    pub(crate) fn count(&self, needle: &str) -> usize {
        let requests = self.requests.lock().expect("requests");
        String::from_utf8_lossy(&requests).matches(needle).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What happens to a response after its first bytes.
struct Limits<'a> {
    cuts: &'a AtomicUsize,
    holding: &'a mut watch::Receiver<bool>,
    after: usize,
}

/// Until either side closes, or the response is cut.
async fn pass(
    client: TcpStream,
    server: TcpStream,
    requests: &Mutex<Vec<u8>>,
    returned: &AtomicUsize,
    limits: Limits<'_>,
) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            requests.lock().expect("requests").extend_from_slice(&buffer[..read]);
            if to_server.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let (mut buffer, mut passed) = (vec![0; 16 * 1024], 0);
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            passed += read;
            returned.fetch_add(read, Ordering::SeqCst);
            if passed > limits.after && limits.holding.wait_for(|held| !held).await.is_err() {
                break;
            }
            let take_one = |left: usize| left.checked_sub(1);
            let broken = to_client.write_all(&buffer[..read]).await.is_err();
            if broken
                || passed > limits.after
                    && limits
                        .cuts
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one)
                        .is_ok()
            {
                break;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}
