//! Further processes in running containers, on the real kernel.

mod common;

use std::time::Duration;

use common::{World, alive, command_line, eventually, pids};
use swarm_runtime::{ContainerSpec, ExecError, ExecSession, ExecSpec, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn world() -> World {
    let world = World::new();
    let spec = ContainerSpec {
        env: vec!["A=1".into()],
        cwd: "/etc".into(),
        ..world.spec("x", &["sleep", "1000"])
    };
    world.runtime.start(&spec).await.unwrap();
    world
}

fn sh(script: &str) -> ExecSpec {
    ExecSpec { args: ["sh", "-c", script].map(str::to_owned).into(), ..Default::default() }
}

async fn finish(mut session: ExecSession) -> (String, String, i32) {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    session.stdin = None;
    session.stdout.take().unwrap().read_to_string(&mut stdout).await.unwrap();
    if let Some(mut reader) = session.stderr.take() {
        reader.read_to_string(&mut stderr).await.unwrap();
    }
    (stdout, stderr, session.wait().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_inside_with_the_containers_environment() {
    let world = world().await;
    let script = "echo $A $B $HOME; pwd; hostname; id -u; tr '\\0' ' ' < /proc/1/cmdline; echo; grep CapEff /proc/self/status; \
        cat /proc/self/cgroup | grep pids; echo err >&2; exit 5";
    let spec = ExecSpec { env: vec!["B=2".into()], ..sh(script) };
    let (stdout, stderr, code) = finish(world.runtime.exec("x", spec).await.unwrap()).await;
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[..5], ["1 2 /root", "/etc", "x", "0", "sleep 1000 "]);
    assert_eq!(lines[5], "CapEff:\t00000000a80425fb");
    assert!(lines[6].ends_with(&format!("/{}/x", world.name)), "{lines:?}");
    assert_eq!((stderr.as_str(), code), ("err\n", 5));

    let other = ExecSpec {
        user: "web".into(),
        cwd: "/tmp".into(),
        ..sh("id -u; id -G; pwd; echo $HOME; kill -9 $$")
    };
    let (stdout, _, code) = finish(world.runtime.exec("x", other).await.unwrap()).await;
    assert_eq!((stdout.as_str(), code), ("33\n34 4\n/tmp\n/var/www\n", 137));
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_connected_if_wanted() {
    let world = world().await;
    let cat = ExecSpec { args: vec!["cat".into()], stdin: true, ..Default::default() };
    let mut session = world.runtime.exec("x", cat.clone()).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let sent = vec![b'x'; 1 << 20];
    let expected = sent.len();
    let writer = tokio::spawn(async move { stdin.write_all(&sent).await });
    let (stdout, _, code) = finish(session).await;
    writer.await.unwrap().unwrap();
    assert_eq!((stdout.len(), code), (expected, 0));
    let (stdout, _, code) =
        finish(world.runtime.exec("x", ExecSpec { stdin: false, ..cat }).await.unwrap()).await;
    assert_eq!((stdout.as_str(), code), ("", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_a_terminal() {
    let world = world().await;
    let script = "tty; echo $TERM; stty size; read line; echo got $line; stty size; exec 3>/dev/tty && echo on tty >&3; exit 3";
    let spec = ExecSpec { tty: true, tty_size: Some((30, 90)), user: "web".into(), ..sh(script) };
    let mut session = world.runtime.exec("x", spec).await.unwrap();
    let mut output = session.stdout.take().unwrap();
    let mut text = String::new();
    while !text.contains("30 90") {
        let mut bytes = [0; 1000];
        let length = output.read(&mut bytes).await.unwrap();
        assert_ne!(length, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    session.resize(50, 120).unwrap();
    session.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    output.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("/dev/pts/0\r\nxterm\r\n30 90\r\n"), "{text:?}");
    assert!(text.ends_with("got hello\r\n50 120\r\non tty\r\n"), "{text:?}");
    assert_eq!(session.wait().await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_in_dockers_words() {
    let world = world().await;
    let command = |name: &str| ExecSpec { args: vec![name.into()], ..Default::default() };
    for (spec, code, words) in [
        (command("no-such"), 127, "exec: \"no-such\": executable file not found in $PATH"),
        (command("/etc/plain"), 126, "exec: \"/etc/plain\": permission denied"),
        (
            ExecSpec { user: "nobody".into(), ..sh("true") },
            128,
            "unable to find user nobody: no matching entries in passwd file",
        ),
        (
            ExecSpec { cwd: "/nowhere".into(), ..sh("true") },
            128,
            "chdir to cwd (\"/nowhere\") set in config.json failed: no such file or directory",
        ),
    ] {
        for tty in [false, true] {
            let error =
                world.runtime.exec("x", ExecSpec { tty, ..spec.clone() }).await.unwrap_err();
            assert_eq!((error.exit_code(), error.to_string().as_str()), (code, words));
        }
    }
    world.runtime.stop("x", Duration::ZERO).await.unwrap();
    assert!(matches!(world.runtime.exec("x", sh("true")).await, Err(ExecError::Runtime(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_session_kills_the_process() {
    let world = world().await;
    let marker = format!("sleep 4{}", std::process::id());
    let running = || {
        pids().find(|pid| alive(*pid) && command_line(*pid).is_some_and(|c| c.starts_with(&marker)))
    };
    let session =
        world.runtime.exec("x", sh(&format!("trap '' HUP TERM; exec {marker}"))).await.unwrap();
    eventually("it runs", || running().is_some()).await;
    drop(session);
    eventually("it is gone", || running().is_none()).await;
    // Only the container's own watcher is left, and no trace in the bundle.
    eventually("the helper is gone", || world.shims().len() == 1).await;
    let left = std::fs::read_dir(world.dir.path().join("run/x")).unwrap();
    assert!(
        left.map(|e| e.unwrap().file_name()).all(|n| !n.to_string_lossy().starts_with("exec-"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_container_ends_its_execs() {
    let world = world().await;
    let session = world.runtime.exec("x", sh("echo on; sleep 1000")).await.unwrap();
    world.runtime.stop("x", Duration::ZERO).await.unwrap();
    assert_eq!(finish(session).await.2, 137);
    world.runtime.delete("x").await.unwrap();
    assert!(world.cgroups("x").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_in_a_container_of_an_earlier_daemon() {
    let mut world = world().await;
    world.runtime = Runtime::open(world.options()).unwrap(); // the fixture's is the earlier one
    world.runtime.adopt().await.unwrap();
    for n in 0..3 {
        let (stdout, _, code) =
            finish(world.runtime.exec("x", sh(&format!("echo {n}"))).await.unwrap()).await;
        assert_eq!((stdout.trim(), code), (n.to_string().as_str(), 0));
    }
}
