//! What is kept over restarts, and what is noticed when it is not.
#![allow(missing_docs)]

mod support;

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use bytes::Bytes;
use support::{Node, cluster, disk_usage, eventually, leader, options};
use swarm_raft::{Options, StartError};
use tempfile::tempdir;

async fn refused(options: Options) -> String {
    let started = Node::try_start(options, "127.0.0.1:0").await;
    let Err(error) = started else { panic!("it starts") };
    assert!(matches!(error, StartError::Storage(_)), "{error:?}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_everything() {
    let dir = tempdir().unwrap();
    let mut node = cluster(dir.path(), 1, |options| {
        options.snapshot_every = 50;
        options.keep_entries = 10;
    })
    .await
    .pop()
    .unwrap();
    let mut expected = Vec::new();
    for round in 0..4 {
        for i in 0..35 {
            let command = format!("round {round} command {i}");
            node.propose(&command).await;
            expected.push(Bytes::from(command));
        }
        let term = node.status().term;
        node = node.restart().await;
        node.wait("leadership", |status| status.role == swarm_raft::Role::Leader).await;
        assert!(node.status().term > term);
        node.raft.read_barrier().await.unwrap();
        assert_eq!(node.journal.commands(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_use_is_refused() {
    let dir = tempdir().unwrap();
    let _node = Node::start(options(1, dir.path())).await;
    let text = refused(options(1, dir.path())).await;
    assert!(text.contains("manager-1/log/0/db"), "{text}");
}

async fn written(dir: &Path, count: usize) -> Options {
    let node = cluster(dir, 1, |_| {}).await.pop().unwrap();
    for i in 0..count {
        node.propose(format!("command {i} {}", "x".repeat(100))).await;
    }
    node.stop().await.0
}

/// Where the log entry `index` is in the database file.
fn place_of(options: &Options, index: u64) -> usize {
    let folder = options.dir.join("log/0");
    let copy = tempdir().unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let db = sled::Config::new().path(copy.path()).segment_size(128 * 1024).open().unwrap();
    let key = [&b"l"[..], &index.to_be_bytes(), &[0, 0]].concat();
    let sealed = db.get(key).unwrap().expect("the entry");
    let content = std::fs::read(folder.join("db")).unwrap();
    content.windows(sealed.len()).position(|window| window == &sealed[..]).unwrap()
}

/// Whether any file in a folder, or below it, has this text.
fn found(dir: &Path, text: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return found(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_on_the_disk_can_be_read_without_the_key() {
    let dir = tempdir().unwrap();
    let secret = "correct horse battery staple";
    let adjust = |options: &mut Options| {
        options.snapshot_every = 20;
        options.keep_entries = 5;
    };
    let mut nodes = cluster(dir.path(), 3, adjust).await;
    // A manager that gets a snapshot seals it with its own key.
    let (behind, addr) = nodes.pop().unwrap().stop().await;
    for i in 0..60 {
        nodes[0].propose(format!("command {i} {secret} {}", "x".repeat(3000))).await;
    }
    nodes.push(Node::try_start(behind, &addr).await.unwrap());
    eventually("all commands", || {
        nodes.iter().all(|node| {
            let snapshot = node.options.dir.join("snapshot").exists();
            snapshot && node.journal.commands() == nodes[0].journal.commands()
        })
    })
    .await;
    assert!(!found(dir.path(), secret) && !found(dir.path(), "command 5"));
    let last = nodes.pop().unwrap();
    let (options, _) = last.stop().await;
    assert!(!found(dir.path(), secret));

    let wrong = refused(Options { key: support::key(1), ..options.clone() }).await;
    let parts = ["manager-3/snapshot cannot be decrypted", "the key of manager 1"];
    assert!(parts.iter().all(|part| wrong.contains(part)) && wrong.lines().count() == 1, "{wrong}");
    std::fs::remove_file(options.dir.join("snapshot")).unwrap();
    let wrong = refused(Options { key: support::key(1), ..options }).await;
    let parts = ["manager-3/log/0/db cannot be decrypted", "the key of manager 1"];
    assert!(parts.iter().all(|part| wrong.contains(part)), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_anywhere_in_the_log_is_noticed() {
    let dir = tempdir().unwrap();
    let options = written(dir.path(), 200).await;
    let path = options.dir.join("log/0/db");
    let at = place_of(&options, 150);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"damaged", at as u64).unwrap();
    let text = refused(options).await;
    assert!(text.contains("log/0/db"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tail_is_noticed() {
    let dir = tempdir().unwrap();
    let options = written(dir.path(), 200).await;
    let path = options.dir.join("log/0/db");
    let at = place_of(&options, 190);
    let length = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
    // As a file system leaves it that had not written the last blocks.
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0; length - at], at as u64).unwrap();
    // sled's own index, which it rewrites at start.
    for entry in std::fs::read_dir(options.dir.join("log/0")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let text = refused(options).await;
    assert!(text.contains("log/0/db"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_set_back_is_noticed() {
    let dir = tempdir().unwrap();
    let options = written(dir.path(), 20).await;
    let old = dir.path().join("old");
    let copy = |from: &Path, to: &Path| {
        assert!(
            std::process::Command::new("cp")
                .arg("-a")
                .arg(from)
                .arg(to)
                .status()
                .unwrap()
                .success()
        );
    };
    copy(&options.dir.join("log"), &old);
    let node = Node::try_start(options.clone(), "127.0.0.1:0").await.unwrap();
    node.wait("leadership", |status| status.role == swarm_raft::Role::Leader).await;
    node.propose("later").await;
    node.stop().await;
    std::fs::rename(options.dir.join("log/acknowledged"), old.join("acknowledged")).unwrap();
    std::fs::remove_dir_all(options.dir.join("log")).unwrap();
    copy(&old, &options.dir.join("log"));
    let text = refused(options).await;
    assert!(
        text.contains("log/0/db") && text.contains("was acknowledged: its tail is lost"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_noticed() {
    let dir = tempdir().unwrap();
    let node = cluster(dir.path(), 1, |options| options.snapshot_every = 20).await.pop().unwrap();
    for i in 0..50 {
        node.propose(format!("command {i}")).await;
    }
    let path = node.options.dir.join("snapshot");
    eventually("a snapshot", || path.exists()).await;
    let (options, _) = node.stop().await;
    let len = std::fs::metadata(&path).unwrap().len();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, len / 2).unwrap();
    file.write_all_at(&[!byte[0]], len / 2).unwrap();
    let text = refused(options.clone()).await;
    assert!(text.contains("manager-1/snapshot") && text.contains("is corrupt"), "{text}");
    file.set_len(len / 3).unwrap();
    let text = refused(options).await;
    assert!(text.contains("manager-1/snapshot") && text.contains("is corrupt"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_snapshot_is_cleared_away() {
    let dir = tempdir().unwrap();
    let options = written(dir.path(), 5).await;
    let left = options.dir.join("snapshot.tmp-3");
    std::fs::write(&left, b"half").unwrap();
    let node = Node::try_start(options, "127.0.0.1:0").await.unwrap();
    assert!(!left.exists());
    node.wait("leadership", |status| status.role == swarm_raft::Role::Leader).await;
    node.raft.read_barrier().await.unwrap();
    assert_eq!(node.journal.commands().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_is_far_behind_gets_a_snapshot() {
    let dir = tempdir().unwrap();
    let adjust = |options: &mut Options| {
        options.snapshot_every = 100;
        options.keep_entries = 10;
    };
    let mut nodes = cluster(dir.path(), 3, adjust).await;
    let (options, addr) = nodes.pop().unwrap().stop().await;
    let payload = "y".repeat(2000);
    for i in 0..400 {
        nodes[0].propose(format!("command {i} {payload}")).await;
    }
    let back = Node::try_start(options, &addr).await.unwrap();
    eventually("all commands", || back.journal.commands() == nodes[0].journal.commands()).await;
    assert!(back.options.dir.join("snapshot").exists());

    let mut options = support::options(4, dir.path());
    adjust(&mut options);
    let new = Node::start(options).await;
    let place = leader(&nodes).await;
    nodes[place].raft.add_voter(4, new.addr.clone()).await.unwrap();
    eventually("all commands", || new.journal.commands() == nodes[0].journal.commands()).await;
    let new = new.restart().await;
    nodes[place].propose("one more").await;
    eventually("one more", || new.journal.contains(b"one more")).await;
    assert_eq!(new.journal.commands().len(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_does_not_grow_without_end() {
    let dir = tempdir().unwrap();
    let node = cluster(dir.path(), 1, |options| {
        options.snapshot_every = 500;
        options.keep_entries = 100;
    })
    .await
    .pop()
    .unwrap();
    let payload = "z".repeat(4000);
    let round = async |node: &Node, round: u64| {
        let writes =
            (0..1500).map(|i| node.raft.propose(Bytes::from(format!("{round} {i} {payload}"))));
        for result in futures::future::join_all(writes).await {
            result.unwrap();
        }
        disk_usage(&node.options.dir.join("log"))
    };
    let mut sizes = Vec::new();
    for i in 0..30 {
        sizes.push(round(&node, i).await);
        // The state stays small, and so its snapshots are quick.
        node.journal.0.lock().unwrap().clear();
    }
    // Without compaction it is 140 MB.
    assert!(sizes.iter().all(|size| *size < 60_000_000), "log sizes {sizes:?}");
    node.propose("last").await;
    let node = node.restart().await;
    node.wait("leadership", |status| status.role == swarm_raft::Role::Leader).await;
    node.raft.read_barrier().await.unwrap();
    assert!(node.journal.contains(b"last"));
}
