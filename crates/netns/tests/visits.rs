//! Visits to real namespaces. Needs root.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use swarm_netns::{Namespace, in_new};

/// The interfaces of the calling thread's namespace.
fn interfaces() -> Vec<String> {
    let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = devices.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// A new namespace whose loopback is up, kept by the open file alone.
async fn new() -> Namespace {
    let prepare = || {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success());
        Namespace::own().unwrap()
    };
    in_new(prepare).await.unwrap()
}

#[tokio::test]
async fn work_is_done_inside_and_nobody_else_moves() {
    let (own, other) = (Namespace::own().unwrap(), new().await);
    assert_ne!(own.identity(), other.identity());
    let inside = || (Namespace::own().unwrap().identity(), interfaces());
    let expected = (other.identity(), vec!["lo".to_owned()]);
    assert_eq!(other.run(inside).await.unwrap(), expected);
    assert_eq!(other.run_blocking(inside).unwrap(), expected);
    assert_eq!(Namespace::own().unwrap().identity(), own.identity());
}

#[tokio::test]
async fn sockets_keep_the_namespace_and_have_the_runtime() {
    let other = new().await;
    let listen = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    let listener = other.run(listen).await.unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err(), "it listens in the other namespace");
    let dial = move || std::net::TcpStream::connect(address).is_ok();
    assert!(other.run(dial).await.unwrap());
}

#[tokio::test]
async fn a_panic_is_an_error_or_passed_on() {
    let other = new().await;
    let error = other.run(|| panic!("as meant by the test")).await.unwrap_err();
    assert!(error.to_string().ends_with("the thread panicked"), "{error}");
    let blocking = || other.run_blocking(|| panic!("as meant by the test"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(blocking)).is_err());
}

#[test]
fn what_is_no_namespace_is_told_from_one() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    assert!(Namespace::open(&missing).unwrap_err().is_missing());
    assert!(Namespace::find(&missing).unwrap().is_none());

    let plain = folder.path().join("plain");
    File::create(&plain).unwrap();
    let error = Namespace::open(&plain).unwrap_err();
    let text =
        format!("cannot open network namespace {}: it is not a namespace file", plain.display());
    assert_eq!(error.to_string(), text);
    assert!(Namespace::find(&plain).unwrap().is_none());

    assert!(Namespace::find(Path::new("/proc/self/ns/net")).unwrap().is_some());
}
