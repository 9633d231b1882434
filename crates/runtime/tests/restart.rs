//! What becomes of containers when the daemon restarts or their shim is killed.

mod common;

use std::fs;
use std::path::Path;

use common::{World, alive, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use swarm_runtime::{ContainerSpec, ContainerState, Exit, Runtime};

async fn restart(world: &mut World) -> Vec<swarm_runtime::Adopted> {
    world.runtime = Runtime::open(world.options()).unwrap();
    world.runtime.adopt().await.unwrap()
}

fn exit(state: &ContainerState) -> &Exit {
    match state {
        ContainerState::Exited(exit) => exit,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_go_on_and_are_taken_over() {
    let mut world = World::new();
    let labels = [("task".to_owned(), "t1".to_owned())].into();
    let spec = ContainerSpec {
        labels,
        ..world.sh("x", "echo before; read line < /tmp/fifo; echo $line; exit 9")
    };
    nix::unistd::mkfifo(&world.layer().join("tmp/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let started = world.start_by_earlier_daemon(&spec).await;
    for note in ["first", "last"] {
        world.runtime.adopt().await.unwrap();
        world.runtime.note("x", note.into()).await.unwrap();
    }
    let adopted = restart(&mut world).await;
    assert_eq!(adopted.len(), 1);
    assert_eq!(world.runtime.noted("x").await.unwrap().as_deref(), Some(&b"last"[..]));
    assert_eq!((adopted[0].id.as_str(), &adopted[0].labels), ("x", &spec.labels));
    assert_eq!(adopted[0].state, ContainerState::Running(started));
    assert!(alive(started.pid));
    // Adopting again changes nothing.
    assert_eq!(world.runtime.adopt().await.unwrap().len(), 1);
    fs::write(format!("/proc/{}/root/tmp/fifo", started.pid), "after\n").unwrap();
    assert_eq!(world.runtime.wait("x").await.unwrap().code, 9);
    assert_eq!(world.lines("x").await, ["before", "after"]);
    world.runtime.delete("x").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_in_the_daemons_absence_is_known() {
    let world = World::new();
    let script = "echo last; echo > /tmp/said; exec sleep 1000";
    let started = world.start_by_earlier_daemon(&world.sh("x", script)).await;
    let said = format!("/proc/{}/root/tmp/said", started.pid);
    eventually("it has said its last word", || Path::new(&said).exists()).await;
    let shim = world.shim("x");
    kill(Pid::from_raw(started.pid), Signal::SIGKILL).unwrap();
    eventually("the shim has ended", || !alive(shim)).await;
    let adopted = world.runtime.adopt().await.unwrap();
    let end = exit(&adopted[0].state);
    assert_eq!((end.code, end.signal, &end.error), (137, Some(9), &None));
    assert_eq!(world.lines("x").await, ["last"]);
    world.runtime.delete("x").await.unwrap();
    assert!(world.cgroups("x").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_shim_is_killed_is_killed_and_reported() {
    let mut world = World::new();
    let first = world.runtime.start(&world.sh("a", "sleep 1000 & exec sleep 1000")).await.unwrap();
    kill(Pid::from_raw(world.shim("a")), Signal::SIGKILL).unwrap();
    let end = world.runtime.wait("a").await.unwrap();
    assert_eq!(
        (end.code, end.error.as_deref()),
        (137, Some("container lost: its shim was killed"))
    );
    assert!(!alive(first.pid));

    // The same while no daemon looks.
    let second = world.start_by_earlier_daemon(&world.sh("b", "exec sleep 1000")).await;
    let shim = world.shim("b");
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    eventually("the shim has ended", || !alive(shim)).await;
    let adopted = restart(&mut world).await;
    assert_eq!(adopted.len(), 2);
    for container in &adopted {
        assert_eq!(
            exit(&container.state).error.as_deref(),
            Some("container lost: its shim was killed")
        );
    }
    assert!(!alive(second.pid));
    for id in ["a", "b"] {
        world.runtime.delete(id).await.unwrap();
        assert!(world.cgroups(id).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restart_of_the_machine_leaves_is_reported_and_can_be_deleted() {
    let mut world = World::new();
    world.runtime.start(&world.sh("x", "echo kept")).await.unwrap();
    world.runtime.wait("x").await.unwrap();
    fs::remove_dir_all(world.dir.path().join("run/x")).unwrap();
    let adopted = restart(&mut world).await;
    assert_eq!(
        exit(&adopted[0].state).error.as_deref(),
        Some("container lost: the node was restarted")
    );
    assert_eq!(world.lines("x").await, ["kept"]);
    world.runtime.delete("x").await.unwrap();
    assert!(!world.dir.path().join("state/x").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_cut_short_is_reported() {
    let mut world = World::new();
    fs::create_dir_all(world.dir.path().join("run/half")).unwrap();
    fs::create_dir_all(world.dir.path().join("run/not an id")).unwrap();
    let adopted = restart(&mut world).await;
    assert_eq!(adopted.len(), 1);
    let end = exit(&adopted[0].state);
    assert_eq!(
        end.error.as_deref(),
        Some("container lost: the daemon ended while it was being started")
    );
    world.runtime.delete("half").await.unwrap();
    assert!(world.runtime.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_still_sets_up_when_its_daemon_is_gone_is_ended() {
    let mut world = World::new();
    let bundle = world.dir.path().join("run/half");
    fs::create_dir_all(&bundle).unwrap();
    // Stands for a shim: named in the lock file, and the lock is held.
    let mut shim = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", shim.id())).unwrap();
    let start_ticks = stat.split(' ').nth(21).unwrap();
    let lock = fs::File::create(bundle.join("lock")).unwrap();
    lock.lock().unwrap();
    fs::write(
        bundle.join("lock"),
        format!("{{\"pid\":{},\"start_ticks\":{start_ticks}}}", shim.id()),
    )
    .unwrap();
    let adopted = restart(&mut world).await;
    eventually("the shim is killed", || shim.try_wait().unwrap().is_some()).await;
    let end = exit(&adopted[0].state);
    assert_eq!(
        end.error.as_deref(),
        Some("container lost: the daemon ended while it was being started")
    );
    drop(lock);
    world.runtime.delete("half").await.unwrap();
}
