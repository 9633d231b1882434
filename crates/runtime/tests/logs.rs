//! Logs of real containers.

mod common;

use std::io::Write;
use std::time::{Duration, SystemTime};

use common::{World, collect};
use swarm_runtime::{LogOptions, Runtime, RuntimeError, Stream};

fn follow() -> LogOptions {
    LogOptions { follow: true, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_are_kept_apart_and_in_order() {
    let world = World::new();
    let spec = world.sh("x", "echo out 1; echo err 1 >&2; printf 'no newline'");
    let before = SystemTime::now();
    world.output(&spec).await;
    let mut logs = world.runtime.logs("x", LogOptions::default()).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = logs.next().await {
        lines.push(line.unwrap());
    }
    let of = |stream| {
        lines
            .iter()
            .filter(|l| l.stream == stream)
            .map(|l| (l.line.as_slice(), l.partial))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(Stream::Stdout), [(&b"out 1"[..], false), (b"no newline", true)]);
    assert_eq!(of(Stream::Stderr), [(&b"err 1"[..], false)]);
    assert!(lines.iter().all(|l| l.time >= before && l.time <= SystemTime::now()));
    let errors = LogOptions { stdout: false, ..Default::default() };
    assert_eq!(collect(world.runtime.logs("x", errors).await.unwrap()).await, ["err 1"]);
    let later = LogOptions { since: Some(SystemTime::now()), ..Default::default() };
    assert!(collect(world.runtime.logs("x", later).await.unwrap()).await.is_empty());
    let last = LogOptions { tail: Some(1), stderr: false, ..Default::default() };
    assert_eq!(collect(world.runtime.logs("x", last).await.unwrap()).await, ["no newline"]);
    assert!(matches!(world.runtime.logs("y", follow()).await, Err(RuntimeError::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn following_sees_lines_as_they_come_and_ends_with_the_container() {
    let world = World::new();
    nix::unistd::mkfifo(&world.layer().join("tmp/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let started = world
        .runtime
        .start(&world.sh("x", "echo first; read line < /tmp/fifo; echo $line"))
        .await
        .unwrap();
    let mut logs = world.runtime.logs("x", follow()).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap().line, b"first");
    let mut only_new =
        world.runtime.logs("x", LogOptions { tail: Some(0), ..follow() }).await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(50), logs.next()).await.is_err(),
        "nothing more yet"
    );
    std::fs::write(format!("/proc/{}/root/tmp/fifo", started.pid), "second\n").unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap().line, b"second");
    assert!(logs.next().await.is_none());
    assert_eq!(only_new.next().await.unwrap().unwrap().line, b"second");
    assert!(only_new.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_ends_followers() {
    let world = World::new();
    world.runtime.start(&world.sh("x", "echo on; exec sleep 1000")).await.unwrap();
    let mut logs = world.runtime.logs("x", follow()).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap().line, b"on");
    world.runtime.delete("x").await.unwrap();
    assert!(logs.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_bounds_the_log_and_a_follower_loses_nothing_it_can_keep_up_with() {
    let mut world = World::new();
    world.runtime = Runtime::open(swarm_runtime::Options {
        log_file_size: 200_000,
        log_files: 50,
        ..world.options()
    })
    .unwrap();
    world.runtime.start(&world.sh("x", "seq 1 50000")).await.unwrap();
    let lines = collect(world.runtime.logs("x", follow()).await.unwrap()).await;
    assert_eq!(lines.len(), 50_000);
    assert!(lines.iter().enumerate().all(|(n, line)| *line == (n + 1).to_string()));

    world.runtime = Runtime::open(swarm_runtime::Options {
        log_file_size: 200_000,
        log_files: 3,
        ..world.options()
    })
    .unwrap();
    world.runtime.start(&world.sh("y", "seq 1 50000")).await.unwrap();
    // A reader that does not read holds up nobody.
    let slow = world.runtime.logs("y", follow()).await.unwrap();
    world.runtime.wait("y").await.unwrap();
    let files: Vec<u64> = std::fs::read_dir(world.dir.path().join("state/y/logs"))
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .collect();
    assert!(files.len() == 3 && files.iter().all(|size| *size <= 200_000), "{files:?}");
    assert_eq!(collect(slow).await.last().unwrap(), "50000");
    let tail = LogOptions { tail: Some(3), ..Default::default() };
    assert_eq!(
        collect(world.runtime.logs("y", tail).await.unwrap()).await,
        ["49998", "49999", "50000"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_does_not_stop_the_container() {
    let world = World::new();
    let state = world.dir.path().join("state");
    let nothing = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &state, Some("tmpfs"), nothing, Some("size=256k")).unwrap();
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).ok();
        }
    }
    let _unmount = Unmount(state.clone());
    let line = "x".repeat(99);
    let script =
        format!("read go < /tmp/1; yes {line} | head -n 2500; read go < /tmp/2; echo end; exit 4");
    for fifo in ["tmp/1", "tmp/2"] {
        nix::unistd::mkfifo(&world.layer().join(fifo), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let started = world.runtime.start(&world.sh("x", &script)).await.unwrap();
    // Opening one waits until the container reads from it.
    let open = |name: &str| {
        let fifo = format!("/proc/{}/root/tmp/{name}", started.pid);
        tokio::task::spawn_blocking(move || {
            std::fs::File::options().write(true).open(fifo).unwrap()
        })
    };
    let mut go = open("1").await.unwrap();
    let filler = state.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    go.write_all(b"go\n").unwrap();
    drop(go);
    // 250 KB printed, of which a pipe holds 64: the shim has been at the full disk.
    let mut go = open("2").await.unwrap();
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    go.write_all(b"go\n").unwrap();
    assert_eq!(world.runtime.wait("x").await.unwrap().code, 4);
    let lines = world.lines("x").await;
    assert!(
        lines.iter().any(|l| l.contains("lines lost: the log could not be written")),
        "{lines:?}"
    );
    assert_eq!(lines.last().unwrap(), "end");
}
