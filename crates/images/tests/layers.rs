//! Layers of strangers: what tries to get out is refused, and what is sound looks right through a real overlay.

mod support;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use support::{Mounted, TestStore, file_layer, image, names, read, stat};
use swarm_images::archive::Layer;
use swarm_images::{Limits, Options};

/// A header whose names are written as they are: the `tar` crate refuses to store malicious ones.
fn raw(kind: u8, path: &str, link: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_entry_type(tar::EntryType::new(kind));
    let bytes = header.as_mut_bytes();
    bytes[..path.len()].copy_from_slice(path.as_bytes());
    bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    header
}

fn layer(entries: &[(u8, &str, &str)]) -> Layer {
    entries.iter().fold(Layer::new(), |layer, (kind, path, link)| {
        let content: &[u8] = if *kind == b'0' { b"evil" } else { b"" };
        layer.entry(&raw(*kind, path, link, content.len() as u64), content).expect("add an entry")
    })
}

/// Entries (type, path, link target), the path that must be named, and part of the reason.
type Case<'a> = (Vec<(u8, &'a str, &'a str)>, &'a str, &'a str);

#[tokio::test]
async fn malicious_entries_are_refused_by_name() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let (out, victim_path) = (outside.path().to_str().unwrap(), victim.to_str().unwrap());
    let through = format!("esc/{}", "victim");
    let climb = format!("../../../../../../../../../..{out}");
    let root_link = "x/victim";
    let table: Vec<Case<'_>> = vec![
        (vec![(b'0', "../victim", "")], "../victim", "\"..\" component"),
        (vec![(b'0', "a/../../victim", "")], "a/../../victim", "\"..\" component"),
        (vec![(b'5', "..", "")], "..", "\"..\" component"),
        (vec![(b'2', "esc", out), (b'0', &through, "")], &through, "through a symbolic link"),
        (vec![(b'2', "esc", &climb), (b'0', &through, "")], &through, "through a symbolic link"),
        (vec![(b'2', "esc", "/"), (b'5', "esc/new", "")], "esc/new", "through a symbolic link"),
        (
            vec![
                (b'5', "d", ""),
                (b'2', "d/up", ".."),
                (b'2', "x", "d/up/.."),
                (b'0', root_link, ""),
            ],
            root_link,
            "through a symbolic link",
        ),
        (
            vec![(b'2', "esc", "/proc/self/root"), (b'0', "esc/tmp/x", "")],
            "esc/tmp/x",
            "through a symbolic link",
        ),
        (vec![(b'2', "loop", "loop"), (b'0', "loop/x", "")], "loop/x", "symbolic link"),
        (
            vec![(b'2', "esc", out), (b'0', "esc/.wh.victim", "")],
            "esc/.wh.victim",
            "through a symbolic link",
        ),
        (
            vec![(b'2', "esc", out), (b'0', "esc/.wh..wh..opq", "")],
            "esc/.wh..wh..opq",
            "through a symbolic link",
        ),
        // An absolute target means the layer's root, where there is no such file.
        (vec![(b'1', "h", victim_path)], "h", "is not in the layer"),
        (vec![(b'1', "h", "../../../../../../etc/passwd")], "h", "leaves its root"),
        (vec![(b'2', "esc", out), (b'1', "h", "esc/victim")], "h", "leaves its root"),
        (vec![(b'1', "h", "missing")], "h", "is not in the layer"),
        (vec![(b'5', "d", ""), (b'1', "h", "d")], "h", "is not in the layer"),
        (vec![(b'3', "../victim", "")], "../victim", "\"..\" component"),
        (vec![(b'2', "esc", out), (b'4', &through, "")], &through, "through a symbolic link"),
        (vec![(b'3', "null", ""), (b'1', "h", "dev/null")], "h", "is not in the layer"),
        (vec![(b'0', "f", ""), (b'0', "f/x", "")], "f/x", "parent of it is not a directory"),
        (
            vec![(b'2', "dangling", "nowhere"), (b'0', "dangling/x", "")],
            "dangling/x",
            "parent of it is not a directory",
        ),
        (vec![(b'0', ".wh.", "")], ".wh.", "malformed whiteout"),
        (vec![(b'0', "d/.wh...", "")], "d/.wh...", "malformed whiteout"),
        (vec![(b'V', "label", "")], "label", "unknown entry type 'V'"),
    ];
    let test = TestStore::new().await;
    for (entries, path, reason) in table {
        let text = test.refusal(vec![file_layer("sound", b"x"), layer(&entries)]).await;
        assert!(text.starts_with("layer sha256:"), "{text}");
        assert!(text.contains(&format!("entry {path:?}: ")), "{path}: {text}");
        assert!(text.contains(reason), "{path}: {text}");
        test.assert_empty();
        assert_eq!(
            (read(&victim), names(outside.path())),
            ("untouched".into(), vec!["victim".into()])
        );
    }
}

#[tokio::test]
async fn a_link_in_one_layer_does_not_redirect_the_next() {
    let outside = tempfile::tempdir().unwrap();
    let link = layer(&[(b'2', "esc", outside.path().to_str().unwrap())]);
    let test = TestStore::new().await;
    let loaded = test
        .load_image(&image("test", vec![link, layer(&[(b'0', "esc/victim", "")])]))
        .await
        .unwrap();
    assert_eq!(names(outside.path()), Vec::<String>::new());
    let mounted = Mounted::new(&loaded);
    assert!(std::fs::symlink_metadata(mounted.root.join("esc")).unwrap().is_dir());
    assert_eq!(read(mounted.root.join("esc/victim")), "evil");
}

#[tokio::test]
async fn harmless_oddities_stay_inside() {
    // Absolute names mean the image's root; a relative link inside it may be written through.
    let entries = layer(&[
        (b'0', "/abs/file", ""),
        (b'5', "usr/lib", ""),
        (b'2', "lib", "usr/lib"),
        (b'0', "lib/so", ""),
        (b'2', "passwd", "/etc/passwd"),
        (b'2', "up", "../../../../etc/shadow"),
    ]);
    let test = TestStore::new().await;
    let loaded = test.load_image(&image("test", vec![entries])).await.unwrap();
    let root = &loaded.layers[0];
    assert_eq!(read(root.join("abs/file")), "evil");
    assert_eq!(read(root.join("usr/lib/so")), "evil");
    assert_eq!(stat(root.join("abs")), (0o040755, 0, 0));
    let target = |name: &str| std::fs::read_link(root.join(name)).unwrap();
    assert_eq!(
        (target("passwd"), target("up")),
        ("/etc/passwd".into(), "../../../../etc/shadow".into())
    );
}

#[tokio::test]
async fn absolute_hard_links_stay_inside() {
    let entries = layer(&[
        (b'0', "etc/hosts", ""),
        (b'1', "etc/again", "/etc/hosts"),
        (b'1', "once-more", "//etc/./again"),
    ]);
    let test = TestStore::new().await;
    let loaded = test.load_image(&image("test", vec![entries])).await.unwrap();
    let root = &loaded.layers[0];
    let inode = |name: &str| std::fs::metadata(root.join(name)).unwrap().ino();
    assert_eq!(read(root.join("once-more")), "evil");
    assert_eq!([inode("etc/again"), inode("once-more")], [inode("etc/hosts"); 2]);
}

/// A tar as tar(1) writes it, of what a shell script makes in an empty directory.
fn real_tar(script: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("{script}; tar --sort=name -c .");
    let mut shell = std::process::Command::new("sh");
    let output = shell.args(["-ec", &script]).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn device_nodes_are_left_out() {
    let base = real_tar(
        "mkdir dev etc; mknod dev/console c 5 1; mknod dev/sda b 8 0; mknod dev/tty0 c 4 0; \
         mkfifo -m 640 dev/initctl; ln dev/initctl pipe; echo name >etc/hostname; ln etc/hostname name",
    );
    let test = TestStore::new().await;
    let loaded =
        test.load_image(&image("test", vec![Layer::from_tar(base.clone())])).await.unwrap();
    let root = &loaded.layers[0];
    assert_eq!(names(root), ["dev", "etc", "name", "pipe"]);
    assert_eq!(names(&root.join("dev")), ["initctl"]);
    assert_eq!(stat(root.join("dev/initctl")).0, 0o010640);
    assert_eq!(read(root.join("name")), "name\n");

    // The layers above may speak of what is not there: take it away, put something else there.
    let above = Layer::new()
        .whiteout("dev/console")
        .and_then(|l| l.file("dev/sda", 0o644, b"a file now"))
        .and_then(|l| l.file("dev/tty0/console", 0o644, b"a directory now"))
        .unwrap();
    let loaded =
        test.load_image(&image("above", vec![Layer::from_tar(base), above])).await.unwrap();
    let mounted = Mounted::new(&loaded);
    assert_eq!(names(&mounted.root.join("dev")), ["initctl", "sda", "tty0"]);
    assert_eq!(read(mounted.root.join("dev/sda")), "a file now");
    assert_eq!(names(&mounted.root.join("dev/tty0")), ["console"]);
}

#[tokio::test]
async fn a_device_node_takes_the_place_of_what_its_layer_had_there() {
    let entries = layer(&[
        (b'0', "file", ""),
        (b'3', "file", ""),
        (b'0', "d/inside", ""),
        (b'4', "d", ""),
        // Links to it (BSD's tar writes such) are known by any way to it, and so are links to these.
        (b'2', "here", "."),
        (b'1', "link", "here/file"),
        (b'0', "second", ""),
        (b'1', "second", "/link"),
        // Later ones replace it, and are real.
        (b'3', "n", ""),
        (b'0', "n", ""),
        (b'1', "real", "n"),
        // A whiteout speaks of lower layers: the name is still that of the device node.
        (b'0', ".wh.file", ""),
        (b'1', "third", "file"),
    ]);
    let test = TestStore::new().await;
    let below = file_layer("file", b"below").file("second", 0o644, b"below").unwrap();
    let loaded = test.load_image(&image("test", vec![below, entries])).await.unwrap();
    let mounted = Mounted::new(&loaded);
    // A lower layer's file of that name is seen: no whiteout is made, as one in a directory that only this layer has
    // would be listed there.
    let seen: Vec<_> =
        names(&mounted.root).into_iter().filter(|n| !n.starts_with(".wh.")).collect();
    assert_eq!(seen, ["here", "n", "real", "second"]);
    assert_eq!(read(mounted.root.join("second")), "below");
    assert_eq!(read(mounted.root.join("real")), "evil");
}

#[tokio::test]
async fn device_nodes_are_bounded() {
    let nodes = |count: usize| {
        (0..count).fold(Layer::new(), |layer, n| {
            layer.entry(&raw(b'3', &format!("dev/{n}"), "", 0), b"").unwrap()
        })
    };
    let test = TestStore::new().await;
    let loaded = test.load_image(&image("test", vec![nodes(65_536)])).await.unwrap();
    assert_eq!(names(&loaded.layers[0].join("dev")), Vec::<String>::new());
    let text = test.refusal(vec![nodes(65_537)]).await;
    assert!(text.contains("more than 65536 device nodes"), "{text}");
}

#[tokio::test]
async fn later_entries_replace_earlier_ones() {
    let entries = Layer::new()
        .file("a", 0o600, b"first")
        .and_then(|l| l.hard_link("other", "a"))
        .and_then(|l| l.file("a", 0o644, b"second"))
        .and_then(|l| l.directory("d", 0o700))
        .and_then(|l| l.file("d/kept", 0o644, b"kept"))
        .and_then(|l| l.directory("d", 0o1777))
        .and_then(|l| l.file("e/deep/er/file", 0o644, b"gone"))
        .and_then(|l| l.symlink("e", "d"))
        .and_then(|l| l.file("e/new", 0o644, b"through"))
        .and_then(|l| l.symlink("f", "d"))
        .and_then(|l| l.directory("f", 0o755))
        .and_then(|l| l.file("f/own", 0o644, b"own"))
        .and_then(|l| l.hard_link("a", "a"))
        .unwrap();
    let test = TestStore::new().await;
    let loaded = test.load_image(&image("test", vec![entries])).await.unwrap();
    let root = &loaded.layers[0];
    assert_eq!((read(root.join("a")), read(root.join("other"))), ("second".into(), "first".into()));
    assert_eq!(stat(root.join("d")).0, 0o041777);
    assert_eq!(names(&root.join("d")), ["kept", "new"]);
    assert_eq!(names(&root.join("f")), ["own"]);
    assert_eq!(std::fs::read_link(root.join("e")).unwrap(), Path::new("d"));
}

#[tokio::test]
async fn metadata_survives() {
    let mut owned = raw(b'0', "owned", "", 4);
    owned.set_mode(0o6755);
    owned.set_uid(1234);
    owned.set_gid(3_000_000);
    owned.set_mtime(1_600_000_000);
    owned.set_cksum();
    let mut directory = raw(b'5', "dir", "", 0);
    directory.set_mode(0o1777);
    directory.set_mtime(1_500_000_000);
    directory.set_cksum();
    let capability: &[u8] = b"\x01\0\0\x02\x00\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let entries = Layer::new()
        .entry(&directory, b"")
        .and_then(|l| l.entry(&owned, b"evil"))
        .and_then(|l| {
            l.xattrs([
                ("security.capability", capability),
                ("user.note", b"hello"),
                ("trusted.overlay.redirect", b"/etc"),
                ("user.overlay.opaque", b"y"),
            ])
        })
        .and_then(|l| l.file("dir/tool", 0o755, b"x"))
        .and_then(|l| l.entry(&raw(b'6', "pipe", "", 0), b""))
        .unwrap();
    let test = TestStore::new().await;
    let loaded = test.load_image(&image("test", vec![entries])).await.unwrap();
    let root = &loaded.layers[0];
    assert_eq!(stat(root.join("owned")), (0o106755, 1234, 3_000_000));
    assert_eq!(stat(root.join("dir")).0, 0o041777);
    assert_eq!(stat(root.join("pipe")).0, 0o010644);
    let mtime = |name: &str| std::fs::metadata(root.join(name)).unwrap().mtime();
    assert_eq!((mtime("owned"), mtime("dir")), (1_600_000_000, 1_500_000_000));
    let tool = root.join("dir/tool");
    let attribute = |name: &str| {
        let mut value = vec![0; 256];
        rustix::fs::getxattr(&tool, name, &mut value[..])
            .map(|length| value[..length].to_vec())
            .ok()
    };
    assert_eq!(attribute("security.capability").as_deref(), Some(capability));
    assert_eq!(attribute("user.note").as_deref(), Some(b"hello".as_slice()));
    assert_eq!(
        (attribute("trusted.overlay.redirect"), attribute("user.overlay.opaque")),
        (None, None)
    );
}

#[tokio::test]
async fn whiteouts_hide_what_lies_below() {
    let base = Layer::new()
        .file("gone", 0o644, b"1")
        .and_then(|l| l.file("stays", 0o644, b"1"))
        .and_then(|l| l.file("dir/gone", 0o644, b"1"))
        .and_then(|l| l.file("dir/stays", 0o644, b"1"))
        .and_then(|l| l.file("opaque/old", 0o644, b"1"))
        .and_then(|l| l.file("reborn/old", 0o644, b"1"))
        .and_then(|l| l.file("reborn2/old", 0o644, b"1"))
        .and_then(|l| l.file("reborn3/old", 0o644, b"1"))
        .and_then(|l| l.file("replaced", 0o644, b"old"))
        .unwrap();
    let top = Layer::new()
        .whiteout("gone")
        .and_then(|l| l.whiteout("dir/gone"))
        .and_then(|l| l.opaque("opaque"))
        .and_then(|l| l.file("opaque/new", 0o644, b"2"))
        // In either order, a whiteout beside the name itself replaces what is below.
        .and_then(|l| l.whiteout("reborn"))
        .and_then(|l| l.directory("reborn", 0o755))
        .and_then(|l| l.file("reborn2/new", 0o644, b"2"))
        .and_then(|l| l.whiteout("reborn2"))
        .and_then(|l| l.whiteout("reborn3"))
        .and_then(|l| l.file("reborn3/new", 0o644, b"2"))
        .and_then(|l| l.whiteout("replaced"))
        .and_then(|l| l.file("replaced", 0o644, b"new"))
        .and_then(|l| l.whiteout("never-was"))
        .and_then(|l| l.file(".wh..wh.plnk/1.2", 0o644, b"aufs"))
        .unwrap();
    let test = TestStore::new().await;
    let loaded = test.load_image(&image("test", vec![base, top])).await.unwrap();
    let mounted = Mounted::new(&loaded);
    let root = &mounted.root;
    let listed: Vec<_> = names(root).into_iter().filter(|name| !name.starts_with(".wh.")).collect();
    assert_eq!(listed, ["dir", "opaque", "reborn", "reborn2", "reborn3", "replaced", "stays"]);
    assert_eq!(names(&root.join("dir")), ["stays"]);
    assert_eq!(names(&root.join("opaque")), ["new"]);
    assert_eq!(names(&root.join("reborn")), Vec::<String>::new());
    assert_eq!(names(&root.join("reborn2")), ["new"]);
    assert_eq!(names(&root.join("reborn3")), ["new"]);
    assert_eq!(read(root.join("replaced")), "new");
}

#[tokio::test]
async fn long_and_strange_names_work() {
    let long = "long-directory-name/".repeat(20) + "file";
    let strange = "sp ace/new\nline/ünï/\u{7f}";
    let entries = file_layer(&long, b"deep").file(strange, 0o644, b"odd").unwrap();
    let test = TestStore::new().await;
    let loaded = test.load_image(&image("test", vec![entries])).await.unwrap();
    assert_eq!(read(loaded.layers[0].join(&long)), "deep");
    assert_eq!(read(loaded.layers[0].join(strange)), "odd");
    let text = test.refusal(vec![file_layer(&format!("{}x", "a/".repeat(2100)), b"")]).await;
    assert!(text.contains("too long"), "{text}");
    let non_utf8 = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let mut header = raw(b'0', "x", "", 0);
    header.as_mut_bytes()[..4].copy_from_slice(non_utf8.as_bytes());
    header.set_cksum();
    let loaded = test
        .load_image(&image("test", vec![Layer::new().entry(&header, b"").unwrap()]))
        .await
        .unwrap();
    assert!(loaded.layers[0].join(non_utf8).exists());
}

#[tokio::test]
async fn sparse_files_keep_their_holes() {
    let mut header = raw(b'S', "sparse", "", 512);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(100 << 20);
    gnu.sparse[0].set_offset(50 << 20);
    gnu.sparse[0].set_length(512);
    header.set_cksum();
    let test = TestStore::new().await;
    let entries = Layer::new().entry(&header, &[7; 512]).unwrap();
    let loaded = test.load_image(&image("test", vec![entries])).await.unwrap();
    let metadata = std::fs::metadata(loaded.layers[0].join("sparse")).unwrap();
    assert_eq!(metadata.size(), 100 << 20);
    assert!(metadata.blocks() < 1000, "the holes were written");
}

#[tokio::test]
async fn bombs_are_stopped() {
    let limits = Limits { max_bytes: 1 << 20, max_entries: 50, max_ratio: 20, ratio_from: 1 << 16 };
    let test = TestStore::with(Options {
        limits: Limits { max_bytes: 8 << 20, ..limits },
        ..Options::default()
    })
    .await;
    let zeros = |size: usize, how| file_layer("zeros", &vec![0; size]).compressed(how);
    for how in [swarm_images::archive::Compression::Gzip, swarm_images::archive::Compression::Zstd]
    {
        let text = test.refusal(vec![zeros(2 << 20, how)]).await;
        assert!(text.contains("it unpacks to more than"), "{text}");
        test.assert_empty();
    }
    let many =
        (0..60).fold(Layer::new(), |layer, n| layer.directory(&format!("d{n}"), 0o755).unwrap());
    let text = test.refusal(vec![many]).await;
    assert!(text.contains("it has more than 50 entries"), "{text}");
    let mut sparse = raw(b'S', "sparse", "", 0);
    sparse.as_gnu_mut().unwrap().set_real_size(1 << 40);
    sparse.set_cksum();
    let text = test.refusal(vec![Layer::new().entry(&sparse, b"").unwrap()]).await;
    assert!(text.contains("it unpacks to more than 8388608 bytes"), "{text}");
    test.assert_empty();
}

#[tokio::test]
async fn a_repeated_layer_and_an_opaque_root_mount() {
    let repeated =
        || Layer::new().file("f", 0o644, b"repeated").and_then(|l| l.whiteout("hidden")).unwrap();
    let between = Layer::new()
        .file("f", 0o644, b"between")
        .and_then(|l| l.file("hidden", 0o644, b"x"))
        .unwrap();
    let layers =
        vec![file_layer("below", b"1"), repeated(), between, repeated(), file_layer("top", b"1")];
    let test = TestStore::new().await;
    let loaded = test.load_image(&image("test", layers)).await.unwrap();
    assert_eq!(loaded.layers.len(), 4);
    let mounted = Mounted::new(&loaded);
    assert_eq!(names(&mounted.root), ["below", "f", "top"]);
    assert_eq!(read(mounted.root.join("f")), "repeated");

    let opaque = file_layer(".wh..wh..opq", b"").file("new", 0o644, b"1").unwrap();
    let layers = vec![file_layer("below", b"1"), opaque, file_layer("top", b"1")];
    let mounted = Mounted::new(&test.load_image(&image("opaque", layers)).await.unwrap());
    assert_eq!(names(&mounted.root), ["new", "top"]);
}

#[tokio::test]
async fn an_owner_that_means_nobody_is_refused() {
    let mut header = raw(b'0', "f", "", 0);
    header.set_uid(u32::MAX.into());
    header.set_cksum();
    let test = TestStore::new().await;
    let text = test.refusal(vec![Layer::new().entry(&header, b"").unwrap()]).await;
    assert!(text.contains("owner is out of range"), "{text}");
}
