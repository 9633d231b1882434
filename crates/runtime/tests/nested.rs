//! Containers where the daemon itself lives in namespaces: a pid namespace of its own, and a unified cgroup hierarchy.

mod common;

use std::process::Command;
use std::time::Duration;

use common::{World, alive};
use swarm_runtime::{ExecSpec, Runtime};
use tokio::io::AsyncReadExt;

/// Runs the test `name` of this file in new mount and pid namespaces after the shell command `setup`.
fn run_inside(setup: &str, name: &str) {
    let script = format!("set -e; {setup}; exec \"$0\" --exact {name} --ignored --nocapture");
    let unshare =
        ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script];
    let this = std::env::current_exe().unwrap();
    let output = Command::new("unshare").args(unshare).arg(this).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn live_a_whole_life(mut world: World) -> Vec<String> {
    let spec = world.sh("x", "cat /proc/self/cgroup; ls /sys/fs/cgroup; exec sleep 1000");
    // The monitor of a runtime that lived on would write down the end of what the next one removes.
    let started = world.start_by_earlier_daemon(&spec).await;
    assert!(alive(started.pid));
    world.runtime = Runtime::open(world.options()).unwrap();
    assert_eq!(world.runtime.adopt().await.unwrap().len(), 1);
    let args = ["sh", "-c", "mkdir /sys/fs/cgroup/x 2>/dev/null || echo read only; exit 3"]
        .map(str::to_owned)
        .into();
    let mut session =
        world.runtime.exec("x", ExecSpec { args, ..Default::default() }).await.unwrap();
    let mut said = String::new();
    session.stdout.take().unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!((said.as_str(), session.wait().await.unwrap()), ("read only\n", 3));
    assert!(!world.cgroups("x").is_empty());
    let exit = world.runtime.stop("x", Duration::ZERO).await.unwrap();
    assert_eq!(exit.code, 137);
    let lines = world.lines("x").await;
    world.runtime.delete("x").await.unwrap();
    assert!(world.cgroups("x").is_empty());
    lines
}

#[test]
fn in_a_pid_namespace() {
    run_inside("true", "inside_a_pid_namespace");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by in_a_pid_namespace"]
async fn inside_a_pid_namespace() {
    assert_eq!(std::process::id(), 1);
    live_a_whole_life(World::new()).await;
}

#[test]
fn on_the_unified_hierarchy() {
    // On a hybrid host the unified hierarchy has no controllers, but it is one.
    let setup = "[ -d /sys/fs/cgroup/unified ] && mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup || true";
    run_inside(setup, "inside_the_unified_hierarchy");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by on_the_unified_hierarchy"]
async fn inside_the_unified_hierarchy() {
    assert!(std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists());
    let world = World::new();
    // Without v1's devices controller nothing keeps device nodes from being opened, so none can be made.
    let mknod = world
        .output(&world.sh("mknod", "grep CapBnd /proc/self/status; mknod /tmp/null c 1 3 || exit"))
        .await;
    assert_eq!(mknod[0], "CapBnd:\t00000000a00425fb");
    assert_eq!(mknod.len(), 2, "{mknod:?}");
    world.runtime.delete("mknod").await.unwrap();
    let lines = live_a_whole_life(world).await;
    // A cgroup namespace of its own: it is the root of all it sees.
    assert!(lines.contains(&"0::/".to_owned()), "{lines:?}");
    assert!(lines.contains(&"cgroup.procs".to_owned()), "{lines:?}");
}
