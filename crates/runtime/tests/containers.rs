//! What a container sees and how it ends, on the real kernel.

mod common;

use std::time::Duration;

use common::{World, alive, eventually};
use swarm_runtime::{ContainerSpec, ContainerState, RuntimeError, StartError};

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_the_commands_own() {
    let world = World::new();
    for code in [0, 3, 255] {
        let spec = world.sh(&format!("exit-{code}"), &format!("exit {code}"));
        world.runtime.start(&spec).await.unwrap();
        let exit = world.runtime.wait(&spec.id).await.unwrap();
        assert_eq!(
            (exit.code, exit.signal, exit.oom_killed, exit.error),
            (code, None, false, None)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_it_with_128_and_their_number() {
    let world = World::new();
    for (id, signal) in [("kill", 9), ("realtime", 40)] {
        let started = world.runtime.start(&world.spec(id, &["sleep", "1000"])).await.unwrap();
        assert!(alive(started.pid));
        // To its first process a signal without a handler is nothing, unless it comes from outside: SIGKILL does.
        world.runtime.kill(id, signal).unwrap();
        if signal != 9 {
            assert!(alive(started.pid), "the kernel protects a pid namespace's init");
            world.runtime.kill(id, 9).unwrap();
        }
        let exit = world.runtime.wait(id).await.unwrap();
        assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), false));
        assert!(matches!(world.runtime.kill(id, 9), Err(RuntimeError::NotRunning(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_cannot_run_are_explained_and_leave_nothing() {
    let world = World::new();
    for (command, code, words) in [
        ("no-such", 127, "exec: \"no-such\": executable file not found in $PATH"),
        ("/no/such", 127, "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/etc/plain", 126, "exec: \"/etc/plain\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
        ("broken", 128, "exec /bin/broken: exec format error"),
    ] {
        let error = world.runtime.start(&world.spec("x", &[command])).await.unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (code, words));
        assert!(world.runtime.list().is_empty());
    }
    assert_eq!(world.cgroups("x"), Vec::<std::path::PathBuf>::new());
    assert!(!world.dir.path().join("run/x").exists() && !world.dir.path().join("state/x").exists());
    eventually("the shims have ended", || world.shims().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_errors_name_what_is_wrong() {
    let world = World::new();
    let good = world.sh("x", "true");
    let cases = [
        (ContainerSpec { user: "nobody".into(), ..good.clone() }, "unable to find user nobody"),
        (
            ContainerSpec { layers: vec!["/no/layer".into()], ..good.clone() },
            "layer /no/layer is not a directory",
        ),
        (
            ContainerSpec { netns: "/run/netns/no-such".into(), ..good.clone() },
            "open network namespace /run/netns/no-such: No such file",
        ),
        (ContainerSpec { cwd: "/etc/passwd/x".into(), ..good.clone() }, "working directory"),
    ];
    for (spec, words) in cases {
        let error = world.runtime.start(&spec).await.unwrap_err();
        assert!(matches!(error, StartError::Setup(_)), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    world.runtime.start(&world.sh("x", "sleep 1000")).await.unwrap();
    assert!(matches!(world.runtime.start(&good).await, Err(StartError::Exists(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_directory_user_and_host_name() {
    let world = World::new();
    let script = "env; pwd; id -u; id -g; id -G; hostname; cat /proc/self/status | grep -E '^(SigIgn|SigBlk|Groups)'";
    let spec = ContainerSpec {
        env: vec!["A=1 2".into(), "B=".into()],
        cwd: "/made/for/it".into(),
        user: "web".into(),
        hostname: "web-1".into(),
        ..world.sh("look", script)
    };
    let lines = world.output(&spec).await;
    for expected in [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=web-1",
        "HOME=/var/www",
        "A=1 2",
        "B=",
        "/made/for/it",
        "33",
        "34",
        "34 4",
        "web-1",
        "SigIgn:\t0000000000000000",
        "SigBlk:\t0000000000000000",
    ] {
        assert!(lines.iter().any(|l| l == expected), "{expected:?} in {lines:?}");
    }
    let numbers = ContainerSpec {
        user: "1000:1001".into(),
        ..world.sh("numbers", "id -u; id -g; id -G; pwd")
    };
    assert_eq!(world.output(&numbers).await, ["1000", "1001", "1001", "/"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_mounts_and_devices_are_dockers() {
    let world = World::new();
    let hosts =
        world.output(&world.sh("hosts", "cat /etc/hosts /etc/resolv.conf /etc/hostname")).await;
    assert_eq!(
        hosts,
        [
            "127.0.0.1 localhost",
            "10.0.0.9 self",
            "nameserver 127.0.0.11",
            "options ndots:0",
            "hosts"
        ]
    );
    let script = "cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; (echo 1 > /proc/sys/kernel/domainname) 2>/dev/null && echo bad; \
        touch /sys/x 2>/dev/null && echo bad; mkdir /sys/fs/cgroup/x 2>/dev/null && echo bad; \
        mkdir /sys/fs/cgroup/memory/x 2>/dev/null && echo bad; \
        for d in null zero full random urandom tty ptmx pts shm mqueue fd stdin stdout stderr; do [ -e /dev/$d ] || echo no $d; done; \
        dd if=/dev/zero of=/dev/shm/big bs=1M count=65 2>/dev/null || echo full; touch /file && ls /file; \
        ls -1 /proc/self/fd | wc -l; echo via > /dev/stdout; ps > /ps; wc -l < /ps";
    let spec = world.sh("look", script);
    let lines = world.output(&spec).await;
    // ls has descriptors 0, 1, 2 and the directory; ps shows its header, the shell and itself.
    assert_eq!(lines, ["0", "0", "full", "/file", "4", "via", "3"]);
    let net = world
        .sh("net", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj");
    assert_eq!(world.output(&net).await, ["0", "0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_dockers() {
    let world = World::new();
    let script = "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status; mount -t tmpfs none /tmp 2>/dev/null || echo no";
    // a80425fb is what `docker run` shows too.
    let expected = |active: &str| {
        [
            "CapInh:\t0000000000000000".to_owned(),
            format!("CapPrm:\t{active}"),
            format!("CapEff:\t{active}"),
            "CapBnd:\t00000000a80425fb".into(),
            "CapAmb:\t0000000000000000".into(),
            "NoNewPrivs:\t0".into(),
            "no".into(),
        ]
    };
    assert_eq!(world.output(&world.sh("root", script)).await, expected("00000000a80425fb"));
    let web = ContainerSpec { user: "web".into(), ..world.sh("web", script) };
    assert_eq!(world.output(&web).await, expected("0000000000000000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_the_host_cannot_be_opened() {
    let world = World::new();
    // 8:0 and 254:0 are disks; 1:3 is the null device, which may be.
    let script = "mknod /tmp/null c 1 3 && cat /tmp/null; mknod /tmp/disk b 254 0; cat /tmp/disk 2>/dev/null | head -c 1 | wc -c";
    assert_eq!(world.output(&world.sh("disk", script)).await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_and_oom_is_told() {
    let world = World::new();
    let spec = ContainerSpec {
        memory_limit: Some(20 << 20),
        cpu_limit: Some(500_000_000),
        pids_limit: Some(50),
        ..world.sh(
            "eater",
            "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/pids/pids.max; tail /dev/zero",
        )
    };
    world.runtime.start(&spec).await.unwrap();
    let exit = world.runtime.wait("eater").await.unwrap();
    assert!(exit.oom_killed && exit.code != 0, "{exit:?}");
    assert_eq!(world.lines("eater").await[..2], ["50000", "50"]);

    world.runtime.start(&world.spec("idle", &["sleep", "1000"])).await.unwrap();
    let stats = world.runtime.stats("idle").unwrap();
    assert_eq!(stats.pids, Some(1));
    assert!(stats.memory.is_some_and(|m| m < 20 << 20), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_asks_first_and_kills_then() {
    let world = World::new();
    let trap = |signal: &str| {
        format!("trap 'echo got; exit 7' {signal}; echo ready; while :; do sleep 0.01; done")
    };
    let polite = world.sh("polite", &trap("TERM"));
    let own =
        ContainerSpec { stop_signal: Some("SIGUSR1".into()), ..world.sh("own", &trap("USR1")) };
    for spec in [polite, own] {
        world.runtime.start(&spec).await.unwrap();
        wait_for_line(&world, &spec.id, "ready").await;
        let exit = world.runtime.stop(&spec.id, Duration::from_secs(10)).await.unwrap();
        assert_eq!(exit.code, 7);
        assert_eq!(world.lines(&spec.id).await, ["ready", "got"]);
    }
    world
        .runtime
        .start(&world.sh("deaf", "trap '' TERM; echo ready; while :; do sleep 0.01; done"))
        .await
        .unwrap();
    wait_for_line(&world, "deaf", "ready").await;
    let exit = world.runtime.stop("deaf", Duration::from_millis(50)).await.unwrap();
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    // Once more: it has ended already.
    assert_eq!(world.runtime.stop("deaf", Duration::ZERO).await.unwrap(), exit);
}

async fn wait_for_line(world: &World, id: &str, text: &str) {
    let options = swarm_runtime::LogOptions { follow: true, ..Default::default() };
    let mut logs = world.runtime.logs(id, options).await.unwrap();
    while let Some(line) = logs.next().await {
        if line.unwrap().line == text.as_bytes() {
            return;
        }
    }
    panic!("{id} never said {text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_leaves_nothing() {
    let world = World::new();
    let started = world.runtime.start(&world.sh("x", "sleep 1000 & sleep 1000")).await.unwrap();
    assert!(!world.cgroups("x").is_empty());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !mounts.contains(world.dir.path().to_str().unwrap()),
        "the root is mounted in the container only"
    );
    world.runtime.delete("x").await.unwrap();
    assert!(!alive(started.pid));
    assert_eq!(world.cgroups("x"), Vec::<std::path::PathBuf>::new());
    assert!(world.runtime.list().is_empty());
    for dir in ["run/x", "state/x"] {
        assert!(!world.dir.path().join(dir).exists(), "{dir}");
    }
    eventually("the shim has ended", || world.shims().is_empty()).await;
    assert!(matches!(world.runtime.delete("x").await, Err(RuntimeError::NotFound(_))));
    world.runtime.remove_cgroup_parent();
    assert_eq!(world.cgroups(""), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_layers_and_dangling_links() {
    let world = World::new();
    let mut layers = vec![world.layer()];
    for n in 0..120 {
        let layer = world.dir.path().join(format!("layer:{n},with odd\\name"));
        std::fs::create_dir_all(layer.join("n")).unwrap();
        std::fs::write(layer.join("top"), format!("{n}\n")).unwrap();
        std::fs::write(layer.join(format!("n/{n}")), "").unwrap();
        layers.push(layer);
    }
    std::fs::create_dir(layers[120].join("etc")).unwrap();
    std::os::unix::fs::symlink("../run/systemd/stub", layers[120].join("etc/resolv.conf")).unwrap();
    let spec = ContainerSpec {
        layers,
        ..world.sh("x", "cat /top; ls /n | wc -l; head -n 1 /etc/resolv.conf")
    };
    assert_eq!(world.output(&spec).await, ["119", "120", "nameserver 127.0.0.11"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once() {
    let world = World::new();
    let ids: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let starts = ids.iter().map(|id| {
        let (runtime, spec) =
            (world.runtime.clone(), world.sh(id, "echo $HOSTNAME; exec sleep 1000"));
        tokio::spawn(async move { runtime.start(&spec).await })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
    let running = |c: &swarm_runtime::Adopted| matches!(c.state, ContainerState::Running(_));
    assert_eq!(world.runtime.list().iter().filter(|c| running(c)).count(), 20);
    let deletes = ids.into_iter().map(|id| {
        let runtime = world.runtime.clone();
        tokio::spawn(async move { runtime.delete(&id).await })
    });
    for delete in deletes.collect::<Vec<_>>() {
        delete.await.unwrap().unwrap();
    }
    assert!(world.shims().is_empty());
}
