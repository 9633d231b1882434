//! Real servers from a real registry, used over the overlay by name.

use std::net::SocketAddr;

use ipnet::Ipv4Net;
use swarm_images::Platform;
use swarm_images::archive::{Builder, Layer};
use swarm_integration_tests::registry::Registry;
use swarm_integration_tests::{Cluster, debian, eventually};

const PORT: u16 = 5000;

/// The registry's address must be known before the hosts boot, so the test chooses their LAN.
fn lan() -> Ipv4Net {
    let third = std::process::id() % 250;
    format!("10.122.{third}.0/24").parse().expect("a subnet")
}

fn cluster(test: &str) -> (Cluster, SocketAddr) {
    let lan = lan();
    let cluster = Cluster::with(test, |options| {
        options.subnet = Some(lan);
        let octets = lan.network().octets();
        options.insecure_registries =
            vec![format!("{}.{}.{}.254:{PORT}", octets[0], octets[1], octets[2])];
    });
    let address = SocketAddr::from((cluster.playground().gateway(), PORT));
    (cluster, address)
}

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn nginx_and_redis_come_from_a_registry_and_serve_by_name() {
    let (cluster, address) = cluster("registry");
    let mut registry = Registry::start(address);
    let host = registry.host().to_owned();
    registry.push("web/nginx", "1", &debian::nginx("a page of nginx\n"));
    let digest = registry.push("redis", "latest", &debian::redis());

    cluster.create_network("", "net");
    cluster.create_service("client", "--network net --replicas 3");
    cluster
        .ctl(&format!("service create --name nginx --network net --replicas 3 {host}/web/nginx:1"));
    cluster.ctl(&format!("service create --name redis --network net {host}/redis@{digest}"));
    let nodes: std::collections::BTreeSet<_> =
        cluster.tasks("nginx").into_iter().map(|task| task.node).collect();
    assert_eq!(nodes.len(), 3, "not every node pulled nginx");

    for client in cluster.tasks("client") {
        let page = cluster.exec(&client, "/whoami get http://nginx/index.html");
        assert_eq!(stdout(&page), "a page of nginx", "{page:?}");
    }
    // redis-cli of another task of the image, on the same network, by name.
    cluster.ctl(&format!(
        "service create --name cli --network net --replicas 3 --entrypoint redis-server {host}/redis:latest --port 7777"
    ));
    let clients = cluster.tasks("cli");
    let ask = |at: usize, line: &str| {
        let output = cluster.exec(&clients[at], &format!("redis-cli -h redis {line}"));
        assert!(output.status.success(), "{line}: {output:?}");
        stdout(&output)
    };
    assert_eq!(ask(0, "PING"), "PONG");
    assert_eq!(ask(1, "SET key value"), "OK");
    for at in 0..3 {
        assert_eq!(ask(at, "GET key"), "value");
    }

    registry.stop();
    cluster.ctl("service scale nginx=6");
    assert_eq!(cluster.tasks("nginx").len(), 6);
    let line = cluster.refused(&format!("service create --name late {host}/other"), 1);
    assert!(line.contains(&host) && line.contains("unreachable"), "{line}");
}

#[test]
fn what_the_registry_does_not_have_is_refused() {
    let (cluster, address) = cluster("nopull");
    let registry = Registry::start(address);
    let host = registry.host().to_owned();
    let foreign = if Platform::host().architecture == "arm64" { "amd64" } else { "arm64" };
    let layer = Layer::new().file("app", 0o755, b"x").expect("a file in memory");
    let image = Builder::new().platform(Platform::linux(foreign)).layer(layer).cmd(&["/app"]);
    registry.push("foreign", "latest", &image.build().expect("an image"));
    let zeros = "0".repeat(64);

    cluster.create_service("web", "--replicas 1");
    let before = (cluster.ctl("service ls -q"), cluster.ctl("task ls -q"));
    for (image, parts) in [
        (format!("{host}/missing"), ["missing", "not found"]),
        (format!("{host}/foreign:9"), ["foreign:9", "not found"]),
        (format!("{host}/foreign@sha256:{zeros}"), ["foreign@sha256:0000", "not found"]),
        (format!("{host}/foreign"), ["foreign", "linux/"]),
    ] {
        for line in [
            format!("service create --name x {image}"),
            format!("service update --image {image} web"),
        ] {
            let said = cluster.refused(&line, 1);
            assert!(parts.iter().all(|part| said.contains(part)), "{line}: {said}");
        }
    }
    assert_eq!((cluster.ctl("service ls -q"), cluster.ctl("task ls -q")), before);

    // A tag that appears later is found later.
    registry.push("missing", "latest", &debian::redis());
    cluster.ctl(&format!("service create --name x {host}/missing"));
    eventually("its task", || {
        let tasks = cluster.tasks("x");
        if tasks.len() == 1 { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
}
