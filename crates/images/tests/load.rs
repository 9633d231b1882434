//! Archives: what is loaded, listed and removed, and what a damaged archive leaves behind (nothing).

mod support;

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use support::{TestStore, docker, file_layer, image, oci, read, reference, stat};
use swarm_images::archive::{Builder, Compression, Layer, write_oci_archive};
use swarm_images::{Error, ImageStore, Options, Platform};

fn sample() -> Builder {
    let base = Layer::new()
        .directory("bin", 0o755)
        .and_then(|layer| layer.file("bin/app", 0o4755, b"program"))
        .and_then(|layer| layer.hard_link("bin/app2", "bin/app"))
        .and_then(|layer| layer.symlink("bin/link", "/bin/app"))
        .expect("make a layer");
    Builder::new()
        .name("sample:1")
        .name("host:5000/sample:2")
        .created("2024-05-06T07:08:09Z")
        .entrypoint(&["/bin/app"])
        .cmd(&["serve"])
        .env(&["A=1", "B=2"])
        .working_dir("/srv")
        .user("1000:1000")
        .expose("80/tcp")
        .layer(base)
        .layer(file_layer("etc/conf", b"x=1").compressed(Compression::Gzip))
        .layer(file_layer("etc/conf2", b"y=2").compressed(Compression::Zstd))
}

#[tokio::test]
async fn both_kinds_of_archive_give_the_same_image() {
    let built = sample().build().unwrap();
    let mut gzipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzipped.write_all(&docker(&built)).unwrap();
    for archive in [oci(&built), docker(&built), gzipped.finish().unwrap()] {
        let test = TestStore::new().await;
        let loaded = test.load(archive).await.unwrap();
        assert_eq!((loaded.len(), loaded[0].names.len()), (1, 2));
        let image = test.store.get(&reference("sample:1")).await.unwrap();
        assert_eq!(image, {
            let mut same = test.store.get(&reference("host:5000/sample:2")).await.unwrap();
            same.reference = image.reference.clone();
            same
        });
        assert_eq!(image.id, built.id());
        assert_eq!(image.config.entrypoint, ["/bin/app"]);
        assert_eq!(
            (image.config.cmd.as_slice(), image.config.env.len()),
            (["serve".to_owned()].as_slice(), 2)
        );
        assert_eq!(
            (image.config.user.as_str(), image.config.working_dir.as_str()),
            ("1000:1000", "/srv")
        );
        assert!(image.config.exposed_ports.contains("80/tcp"));
        assert_eq!(image.layers.len(), 3);
        let bin = image.layers[0].join("bin");
        assert_eq!(read(bin.join("app")), "program");
        assert_eq!(stat(bin.join("app")), (0o104755, 0, 0));
        let inode = |name: &str| std::fs::symlink_metadata(bin.join(name)).unwrap().ino();
        assert_eq!(inode("app"), inode("app2"));
        assert_eq!(std::fs::read_link(bin.join("link")).unwrap().to_str(), Some("/bin/app"));
        assert_eq!(read(image.layers[1].join("etc/conf")), "x=1");
        assert_eq!(read(image.layers[2].join("etc/conf2")), "y=2");
    }
}

#[tokio::test]
async fn docker_25_archives_hold_both_layouts() {
    let built = sample().build().unwrap();
    let layers: Vec<_> =
        built.layers.iter().map(|layer| format!("blobs/sha256/{}", layer.digest.hex())).collect();
    let config = format!("blobs/sha256/{}", built.id().hex());
    let manifest =
        serde_json::json!([{ "Config": config, "RepoTags": ["sample:1"], "Layers": layers }])
            .to_string();
    let mut archive = tar::Builder::new(Vec::new());
    let mut inner = tar::Archive::new(std::io::Cursor::new(oci(&built)));
    for entry in inner.entries().unwrap() {
        let entry = entry.unwrap();
        archive.append(&entry.header().clone(), entry).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(manifest.len() as u64);
    archive.append_data(&mut header, "manifest.json", manifest.as_bytes()).unwrap();
    let test = TestStore::new().await;
    let loaded = test.load(archive.into_inner().unwrap()).await.unwrap();
    assert_eq!((loaded.len(), loaded[0].id), (1, built.id()));
    assert_eq!(loaded[0].names, [reference("sample:1")]);
}

#[tokio::test]
async fn the_list_shows_names_sizes_and_newest_first() {
    let test = TestStore::new().await;
    let old = Builder::new()
        .name("old")
        .created("2020-01-01T00:00:00Z")
        .layer(file_layer("a", &[1; 100]));
    let new = Builder::new()
        .name("new")
        .created("2025-01-01T00:00:00Z")
        .layer(file_layer("b", &[2; 250]));
    for image in [old, new] {
        test.load(oci(&image.build().unwrap())).await.unwrap();
    }
    let list = test.store.list();
    let shown: Vec<_> = list.iter().map(|image| (image.tags[0].familiar(), image.size)).collect();
    assert_eq!(shown, [("new:latest".to_owned(), 250), ("old:latest".to_owned(), 100)]);
    assert_eq!(list[0].platform, Platform::host().to_string());
}

#[tokio::test]
async fn a_name_moves_to_the_image_loaded_last() {
    let test = TestStore::new().await;
    let first = test.load_image(&image("app", vec![file_layer("v", b"1")])).await.unwrap().id;
    let second = test.load_image(&image("app", vec![file_layer("v", b"2")])).await.unwrap().id;
    assert_eq!(test.store.get(&reference("app")).await.unwrap().id, second);
    let nameless = test.store.list().into_iter().find(|image| image.id == first).unwrap();
    assert!(nameless.tags.is_empty());
}

#[tokio::test]
async fn the_variant_for_this_platform_is_chosen() {
    let (mine, other) = (Platform::host(), Platform::linux("s390x"));
    let of = |platform: &Platform| {
        let layer = file_layer("arch", platform.architecture.as_bytes());
        Builder::new().name("multi").platform(platform.clone()).layer(layer).build().unwrap()
    };
    let archive = |images: &[_]| {
        let mut archive = Vec::new();
        write_oci_archive(images, &mut archive).unwrap();
        archive
    };
    let test = TestStore::new().await;
    test.load(archive(&[of(&other), of(&mine)])).await.unwrap();
    let image = test.store.get(&reference("multi")).await.unwrap();
    assert_eq!(read(image.layers[0].join("arch")), mine.architecture);

    let test = TestStore::new().await;
    let wanted = format!("has no variant for {mine} (it has linux/s390x)");
    for archive in [archive(&[of(&other)]), docker(&of(&other))] {
        let error = test.load(archive).await.unwrap_err();
        assert!(error.to_string().ends_with(&wanted), "{error}");
        test.assert_empty();
    }
}

#[tokio::test]
async fn a_truncated_archive_is_refused_wherever_it_is_cut() {
    let built = sample().build().unwrap();
    for whole in [oci(&built), docker(&built)] {
        let test = TestStore::new().await;
        // The two empty blocks at the end say nothing; everything before them counts.
        let content = whole.len() - 1024;
        for length in (0..content).step_by(content / 37).chain([content - 1, content - 512]) {
            let error = test
                .load(whole[..length].to_vec())
                .await
                .expect_err(&format!("{length} of {content} bytes"));
            assert!(error.to_string().starts_with("image archive: "), "{error}");
            test.assert_empty();
        }
        test.load(whole).await.unwrap();
    }
}

#[tokio::test]
async fn damaged_archives_say_what_is_wrong_and_leave_nothing() {
    let built =
        image("app", vec![file_layer("first", b"sound"), file_layer("file", b"MARKER-IN-LAYER")]);
    let damage = |mut archive: Vec<u8>, needle: &[u8]| {
        let at = archive
            .windows(needle.len())
            .position(|window| window == needle)
            .expect("find the needle");
        archive[at] ^= 1;
        archive
    };
    let noise = support::noise(7, 5000);
    let member = |name: &str, content: &[u8]| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
        tar.into_inner().unwrap()
    };
    let table = [
        (damage(oci(&built), b"MARKER"), "its content has digest sha256:"),
        (damage(docker(&built), b"MARKER"), "its content has digest sha256:"),
        (damage(oci(&built), b"rootfs"), "is corrupt: its content has digest"),
        (damage(docker(&built), b"rootfs"), "is corrupt: its content has digest"),
        (noise, "not a tar archive"),
        (Vec::new(), "neither manifest.json nor index.json"),
        (member("readme", b"hello"), "neither manifest.json nor index.json"),
        (member("manifest.json", b"{"), "manifest.json is malformed"),
        (member("manifest.json", b"[]"), "it holds no image"),
        (member("index.json", b"{\"manifests\":[]}"), "it holds no image"),
        (member("manifest.json", br#"[{"Config":"c.json","Layers":[]}]"#), "c.json is missing"),
        (
            member("manifest.json", br#"[{"Config":"../../etc/passwd","Layers":[]}]"#),
            "../../etc/passwd is missing",
        ),
    ];
    let test = TestStore::new().await;
    for (archive, reason) in table {
        let error = test.load(archive).await.expect_err(reason).to_string();
        assert!(error.contains(reason) && !error.contains('\n'), "{error}");
        test.assert_empty();
    }
}

#[tokio::test]
async fn removal_keeps_shared_layers_and_used_images() {
    let test = TestStore::new().await;
    let base = || file_layer("base", b"shared");
    let first =
        test.load_image(&image("first:1", vec![base(), file_layer("a", b"1")])).await.unwrap();
    let second =
        test.load_image(&image("second:1", vec![base(), file_layer("b", b"2")])).await.unwrap();
    assert_eq!((test.layer_count(), first.layers[0] == second.layers[0]), (3, true));

    let error = test.store.remove("first:1", |_| false).await.unwrap_err();
    assert!(matches!(error, Error::InUse(id) if id == first.id), "an Image value lives: {error}");
    let (id, path) = (first.id, first.layers[1].clone());
    drop(first);
    let error = test.store.remove("first:1", move |used| *used == id).await.unwrap_err();
    assert_eq!(error.to_string(), format!("image {id} is in use"));
    assert!(path.exists());

    let removed = test.store.remove("first:1", |_| false).await.unwrap();
    assert_eq!(
        (removed.deleted, removed.untagged),
        (Some(id), vec!["docker.io/library/first:1".to_owned()])
    );
    assert!(!path.exists() && second.layers[0].exists());
    assert_eq!(test.layer_count(), 2);
    let short = second.id.short();
    drop(second);
    test.store.remove(&short, |_| false).await.unwrap();
    test.assert_empty();
    let error = test.store.remove("second:1", |_| false).await.unwrap_err();
    assert_eq!(error.to_string(), "image not found: second:1");
}

#[tokio::test]
async fn removing_one_of_two_names_keeps_the_image() {
    let test = TestStore::new().await;
    let built = sample().build().unwrap();
    test.load(docker(&built)).await.unwrap();
    let removed = test.store.remove("sample:1", |_| true).await.unwrap();
    assert_eq!(removed.deleted, None);
    assert!(test.store.get(&reference("host:5000/sample:2")).await.is_ok());
    assert!(matches!(test.store.get(&reference("sample:1")).await, Err(Error::NotFound(_))));
    test.load(docker(&built)).await.unwrap();
    let removed = test.store.remove(&built.id().to_string(), |_| false).await.unwrap();
    assert_eq!((removed.deleted, removed.untagged.len()), (Some(built.id()), 2));
    test.assert_empty();
}

#[tokio::test]
async fn a_store_is_found_again_and_cleans_up_after_a_crash() {
    let test = TestStore::new().await;
    let built = sample().build().unwrap();
    test.load(docker(&built)).await.unwrap();
    let dir = test.dir;
    let error = ImageStore::open(dir.path(), Options::default()).await.unwrap_err();
    assert!(matches!(error, Error::Locked(_)), "{error}");
    drop(test.store);
    // What a killed process may leave: an unpacked layer nobody knows yet, and half of one.
    let orphan = dir.path().join("layers").join("0".repeat(64));
    std::fs::create_dir_all(orphan.join("diff")).unwrap();
    std::fs::create_dir_all(dir.path().join("tmp/17/diff/etc")).unwrap();
    let store = ImageStore::open(dir.path(), Options::default()).await.unwrap();
    assert!(!orphan.exists());
    support::wait_until_empty(&dir.path().join("tmp"));
    let image = store.get(&reference("sample:1")).await.unwrap();
    assert_eq!(read(image.layers[1].join("etc/conf")), "x=1");
}

#[tokio::test]
async fn old_docker_archives_link_to_layers_they_have_already() {
    let built = image("app", vec![file_layer("f", b"content")]);
    let manifest = r#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["two/layer.tar"]}]"#;
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data).unwrap();
    };
    add("c.json", &built.config);
    add("./one/layer.tar", &built.layers[0].data);
    add("manifest.json", manifest.as_bytes());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "two/layer.tar", "../one/layer.tar").unwrap();
    let test = TestStore::new().await;
    test.load(tar.into_inner().unwrap()).await.unwrap();
    let image = test.store.get(&reference("app:1")).await.unwrap();
    assert_eq!(read(image.layers[0].join("f")), "content");
}
