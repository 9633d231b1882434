//! Pulls from a real registry, and from one whose answers are cut or wrong.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use support::registry::{Proxy, TestRegistry, insecure};
use support::{TestStore, file_layer, image, names, noise, read, reference};
use swarm_images::archive::{Builder, Compression};
use swarm_images::{Digest, Error, Options, Platform, PullPolicy};

use PullPolicy::{Always, IfMissing};

#[tokio::test]
async fn pulls_by_tag_and_by_digest() {
    let registry = TestRegistry::start().await;
    let built = image(
        "x",
        vec![
            file_layer("base", &noise(1, 300_000)),
            file_layer("a", b"gz").compressed(Compression::Gzip),
            file_layer("b", b"zstd").compressed(Compression::Zstd),
        ],
    );
    let digest = registry.push("team/app:1", &built).await;
    let tagged = reference(&format!("{}/team/app:1", registry.host));
    for name in [tagged.clone(), tagged.by_digest(digest), tagged.with_digest(digest)] {
        let test = TestStore::with(registry.options()).await;
        let pulled = test.store.pull(&name, &Platform::host(), IfMissing).await.unwrap();
        assert_eq!((pulled.id, pulled.layers.len()), (built.id(), 3));
        assert_eq!(std::fs::read(pulled.layers[0].join("base")).unwrap(), noise(1, 300_000));
        assert_eq!(
            (read(pulled.layers[1].join("a")), read(pulled.layers[2].join("b"))),
            ("gz".into(), "zstd".into())
        );
        assert_eq!(test.store.get(&name).await.unwrap(), pulled);
        assert_eq!(test.store.list()[0].digests, [tagged.by_digest(digest)]);
        assert_eq!(names(&test.dir.path().join("downloads")), Vec::<String>::new());
    }
    let test = TestStore::with(registry.options()).await;
    let resolved = test.store.resolve(&tagged, &Platform::host()).await.unwrap();
    assert_eq!(resolved, tagged.with_digest(digest));
    let foreign = test.store.resolve(&tagged, &Platform::linux("s390x")).await.unwrap_err();
    assert!(matches!(foreign, Error::NoVariant { .. }), "{foreign}");
    assert_eq!(test.store.list(), []);
}

#[tokio::test]
async fn what_is_here_needs_no_registry_unless_asked() {
    let registry = TestRegistry::start().await;
    let (name, platform) = (reference(&format!("{}/app", registry.host)), Platform::host());
    let (old, new) =
        (image("x", vec![file_layer("v", b"1")]), image("x", vec![file_layer("v", b"2")]));
    registry.push("app", &old).await;
    let test = TestStore::with(registry.options()).await;
    test.store.pull(&name, &platform, IfMissing).await.unwrap();
    registry.push("app", &new).await;
    assert_eq!(test.store.pull(&name, &platform, IfMissing).await.unwrap().id, old.id());
    assert_eq!(test.store.pull(&name, &platform, Always).await.unwrap().id, new.id());
    drop(registry);
    assert_eq!(test.store.pull(&name, &platform, IfMissing).await.unwrap().id, new.id());
    let error = test.store.pull(&name, &platform, Always).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(
        error.to_string().contains("onnection refused") && !error.to_string().contains('\n'),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_missing_is_said_so() {
    let registry = TestRegistry::start().await;
    registry.push("app:1", &image("x", vec![])).await;
    let test = TestStore::with(registry.options()).await;
    for name in ["app:2", "nothing", &format!("app@{}", Digest::of(b"?"))] {
        let name = format!("{}/{name}", registry.host);
        let error =
            test.store.pull(&reference(&name), &Platform::host(), IfMissing).await.unwrap_err();
        assert_eq!(error.to_string(), format!("image not found: {}", reference(&name).familiar()));
    }
    test.assert_empty();
}

#[tokio::test]
async fn the_index_gives_the_variant_or_names_the_others() {
    let registry = TestRegistry::start().await;
    let of = |architecture: &str| {
        let layer = file_layer("arch", architecture.as_bytes());
        Builder::new().platform(Platform::linux(architecture)).layer(layer).build().unwrap()
    };
    let digest = registry.push_index("multi", &[of("arm64"), of("amd64")]).await;
    registry.push("single", &of("arm64")).await;
    let test = TestStore::with(registry.options()).await;
    let multi = reference(&format!("{}/multi", registry.host));
    for architecture in ["amd64", "arm64"] {
        let pulled =
            test.store.pull(&multi, &Platform::linux(architecture), IfMissing).await.unwrap();
        assert_eq!(read(pulled.layers[0].join("arch")), architecture);
        assert_eq!(test.store.get(&multi.by_digest(digest)).await.unwrap().id, pulled.id);
    }
    let error = test.store.pull(&multi, &Platform::linux("riscv64"), IfMissing).await.unwrap_err();
    let text = format!(
        "image {} has no variant for linux/riscv64 (it has linux/arm64, linux/amd64)",
        multi.familiar()
    );
    assert_eq!(error.to_string(), text);
    let single = reference(&format!("{}/single", registry.host));
    let error = test.store.pull(&single, &Platform::linux("amd64"), IfMissing).await.unwrap_err();
    let text =
        format!("image {} has no variant for linux/amd64 (it has linux/arm64)", single.familiar());
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn corrupt_blobs_are_noticed() {
    let registry = TestRegistry::start().await;
    let built = image("x", vec![file_layer("f", &noise(2, 50_000))]);
    registry.push("app", &built).await;
    let blob = registry.blob_path(built.layers[0].digest);
    let sound = std::fs::read(&blob).unwrap();
    let mut damaged = sound.clone();
    damaged[30_000] ^= 1;
    let longer = [sound.as_slice(), b"more"].concat();
    let name = reference(&format!("{}/app", registry.host));
    let test = TestStore::with(registry.options()).await;
    for (content, reason) in
        [(damaged, "is corrupt: its content has digest"), (longer, "is corrupt: it is longer than")]
    {
        std::fs::write(&blob, content).unwrap();
        let error = test.store.pull(&name, &Platform::host(), IfMissing).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.to_string().contains(&built.layers[0].digest.to_string()), "{error}");
        test.assert_not_visible(&name).await;
        assert!(!test.dir.path().join("downloads").join(built.layers[0].digest.hex()).exists());
    }
    std::fs::write(&blob, sound).unwrap();
    test.store.pull(&name, &Platform::host(), IfMissing).await.unwrap();
    let config = registry.blob_path(built.id());
    let text = read(&config).replace("linux", "Linux");
    std::fs::write(&config, text).unwrap();
    let test = TestStore::with(registry.options()).await;
    let error = test.store.pull(&name, &Platform::host(), IfMissing).await.unwrap_err();
    assert!(
        matches!(error, Error::BlobDigest { expected, .. } if expected == built.id()),
        "{error}"
    );
}

#[tokio::test]
async fn broken_connections_are_resumed() {
    let registry = TestRegistry::start().await;
    let size = 2_000_000;
    let built = image("x", vec![file_layer("big", &noise(3, size))]);
    registry.push("app", &built).await;
    let proxy = Proxy::start(&registry, 3, 400_000).await;
    let test = TestStore::with(insecure(&proxy.host)).await;
    let name = reference(&format!("{}/app", proxy.host));
    let pulled = test.store.pull(&name, &Platform::host(), IfMissing).await.unwrap();
    assert_eq!(std::fs::read(pulled.layers[0].join("big")).unwrap(), noise(3, size));
    let blob = format!("GET /v2/app/blobs/{}", built.layers[0].digest);
    assert_eq!(proxy.count(&blob), 4);
    let returned = proxy.returned.load(Ordering::SeqCst);
    assert!(returned < size + 3 * 100_000, "{returned} bytes: the download started afresh");
}

#[tokio::test]
async fn a_download_goes_on_after_a_restart() {
    let registry = TestRegistry::start().await;
    let size = 2_000_000;
    let built = image("x", vec![file_layer("big", &noise(4, size))]);
    registry.push("app", &built).await;
    let blob = &built.layers[0];
    let proxy = Proxy::start(&registry, 0, 0).await;
    let name = reference(&format!("{}/app", proxy.host));
    for damaged in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let partial = dir.path().join("downloads").join(blob.digest.hex());
        std::fs::create_dir(partial.parent().unwrap()).unwrap();
        let mut half = blob.data[..size / 2].to_vec();
        half[1000] ^= u8::from(damaged);
        std::fs::write(&partial, half).unwrap();
        let before = proxy.returned.load(Ordering::SeqCst);
        let store =
            swarm_images::ImageStore::open(dir.path(), insecure(&proxy.host)).await.unwrap();
        let pulled = store.pull(&name, &Platform::host(), IfMissing).await.unwrap();
        assert_eq!(std::fs::read(pulled.layers[0].join("big")).unwrap(), noise(4, size));
        let returned = proxy.returned.load(Ordering::SeqCst) - before;
        // Sound: only the second half. Damaged: that, then all of it once more.
        let (least, most) =
            if damaged { (3 * size / 2, 2 * size) } else { (size / 2, size * 3 / 4) };
        assert!((least..most).contains(&returned), "{returned} bytes, damaged: {damaged}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_at_once_download_once() {
    let registry = TestRegistry::start().await;
    let base = || file_layer("base", &noise(5, 1_000_000));
    let one = image("x", vec![base(), file_layer("a", b"1")]);
    let two = image("x", vec![base(), file_layer("b", b"2")]);
    registry.push("one", &one).await;
    registry.push("two", &two).await;
    let proxy = Proxy::start(&registry, 0, 0).await;
    let test = TestStore::with(insecure(&proxy.host)).await;
    let pulls = (0..12).map(|n| {
        let (store, host) = (test.store.clone(), proxy.host.clone());
        tokio::spawn(async move {
            let name = reference(&format!("{host}/{}", if n % 2 == 0 { "one" } else { "two" }));
            store.pull(&name, &Platform::host(), IfMissing).await.expect("pull").id
        })
    });
    for (n, pull) in futures::future::join_all(pulls).await.into_iter().enumerate() {
        assert_eq!(pull.unwrap(), if n % 2 == 0 { one.id() } else { two.id() });
    }
    assert_eq!(proxy.count(&format!("blobs/{}", one.layers[0].digest)), 1);
    assert_eq!(proxy.count("/manifests/"), 2);
    assert_eq!(test.layer_count(), 3);
}

#[tokio::test]
async fn a_pull_given_up_leaves_nothing_visible() {
    let registry = TestRegistry::start().await;
    let built = image("x", vec![file_layer("a", b"1"), file_layer("big", &noise(6, 4_000_000))]);
    registry.push("app", &built).await;
    // The big layer is held back, so no pull is complete at the moment it is given up.
    let proxy = Proxy::start(&registry, 0, 1_000_000).await;
    proxy.held.send_replace(true);
    let name = reference(&format!("{}/app", proxy.host));
    let test = TestStore::with(insecure(&proxy.host)).await;
    for wait in [1, 5, 20, 40, 200] {
        let platform = Platform::host();
        let pull = test.store.pull(&name, &platform, IfMissing);
        let given_up = tokio::time::timeout(Duration::from_millis(wait), pull).await;
        assert!(given_up.is_err(), "the pull came to an end: {given_up:?}");
        test.assert_not_visible(&name).await;
    }
    proxy.held.send_replace(false);
    test.store.pull(&name, &Platform::host(), IfMissing).await.unwrap();
}

#[tokio::test]
async fn malicious_layers_from_a_registry_are_refused_too() {
    let registry = TestRegistry::start().await;
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_path("shadow").unwrap();
    header.set_link_name("/etc/shadow").unwrap();
    header.set_size(0);
    header.set_cksum();
    let layer = swarm_images::archive::Layer::new().entry(&header, b"").unwrap();
    registry.push("evil", &image("x", vec![layer])).await;
    let test = TestStore::with(registry.options()).await;
    let name = reference(&format!("{}/evil", registry.host));
    let error = test.store.pull(&name, &Platform::host(), IfMissing).await.unwrap_err().to_string();
    assert!(error.contains(r#"entry "shadow": hard link target "/etc/shadow""#), "{error}");
    test.assert_empty();
}

#[tokio::test]
async fn registries_that_do_not_answer_or_speak_no_tls_are_said_so() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = silent.local_addr().unwrap().to_string();
    let options = Options { read_timeout: Duration::from_millis(200), ..insecure(&host) };
    let test = TestStore::with(options).await;
    let name = reference(&format!("{host}/app"));
    let error = test.store.pull(&name, &Platform::host(), IfMissing).await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }) && error.to_string().contains("timed out"),
        "{error}"
    );

    let registry = TestRegistry::start().await;
    let test = TestStore::new().await;
    let name = reference(&format!("{}/app", registry.host));
    let error = test.store.pull(&name, &Platform::host(), IfMissing).await.unwrap_err();
    assert!(error.to_string().contains("plain HTTP needs --insecure-registry"), "{error}");
}
