//! What tasks see of the network: DNS, and a service's virtual address (VIP) against the task's own address, a VXLAN
//! made by hand, and the hosts' own network. The same program is client and server on every path, and the paths take
//! turns, so that what else the machine does falls on all of them alike.

use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use swarm_playground::{Node, wait_until};

use super::Effort;
use super::figure::{Bar, Figure, median};
use super::swarm::{CLIENT, Swarm, Task, json, number};
use crate::interrupt;

const SERVER: &str = "server";
/// Not 80, which tasks have to themselves, and hosts may not.
const HOST_PORT: &str = "8077";
/// Addresses of the network made by hand, on no other network of the playground.
const BY_HAND: [&str; 2] = ["172.31.77.1", "172.31.77.2"];

/// Queries a second and their latency inside a task.
pub(super) fn dns(swarm: &Swarm, effort: Effort) -> Result<Vec<Figure>> {
    let tasks = swarm.tasks(CLIENT)?;
    let task = tasks.first().context("no client task runs")?;
    let (mut rates, mut p50, mut p99) = (vec![], vec![], vec![]);
    for _ in 0..effort.runs(3) {
        let busy = swarm.whoami(task, &["dns-load", "-c", "16", "--duration", "2", CLIENT])?;
        rates.push(number(&busy, "/rate")?);
        let one = swarm.whoami(task, &["dns-load", "-c", "1", "--duration", "2", CLIENT])?;
        p50.push(number(&one, "/latency_us/p50")?);
        p99.push(number(&one, "/latency_us/p99")?);
    }
    Ok(vec![
        Figure::median("DNS queries, 16 at once", "1/s", rates),
        Figure::median("DNS latency p50, 1 at once", "us", p50),
        Figure::median("DNS latency p99, 1 at once", "us", p99),
    ])
}

/// Throughput, new connections and latency on every path.
pub(super) fn paths(swarm: &Swarm, effort: Effort) -> Result<Vec<Figure>> {
    swarm.create_service(SERVER, 1)?;
    let measured = measure(swarm, effort);
    let removed = swarm.remove_service(SERVER);
    let figures = measured?;
    removed?;
    Ok(figures)
}

/// A way from a client on one host to a server on another.
struct Path<'a> {
    name: &'static str,
    client: Client<'a>,
    url: String,
}

/// Where the client runs.
enum Client<'a> {
    Task(&'a Swarm, Task),
    Host(&'a Swarm, Node),
    ByHand(&'a Swarm, Node),
}

impl Path<'_> {
    /// Runs the sample tool with `words` and the path's URL.
    fn call(&self, words: &[&str]) -> Result<Value> {
        interrupt::check()?;
        let words = [words, &[&self.url]].concat();
        match &self.client {
            Client::Task(swarm, task) => swarm.whoami(task, &words),
            Client::Host(swarm, node) => {
                let program = swarm.binaries.whoami.display().to_string();
                json(&node.run([&[program.as_str()], &words[..]].concat())?)
            }
            Client::ByHand(swarm, node) => {
                let program = swarm.binaries.whoami.display().to_string();
                json(&node.run(
                    [&["ip", "netns", "exec", "by-hand-task", &program], &words[..]].concat(),
                )?)
            }
        }
    }
}

/// A server outside a container; it ends when this is dropped.
struct Server(Child);

impl Server {
    fn start(swarm: &Swarm, node: &Node, before: &[&str]) -> Result<Server> {
        let program = swarm.binaries.whoami.display().to_string();
        let words = [before, &[&program, "serve", "--port", HOST_PORT]].concat();
        let mut command = node.command(words[0])?;
        command
            .args(&words[1..])
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        Ok(Server(command.spawn().context("cannot start a server")?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, and what it started ends with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(swarm: &Swarm, effort: Effort) -> Result<Vec<Figure>> {
    let servers = swarm.tasks(SERVER)?;
    let server = servers.first().context("no server task runs")?;
    let mut clients = swarm.tasks(CLIENT)?;
    clients.retain(|task| task.node != server.node);
    let client = clients.first().context("no client task runs on another node")?;
    let (near, far) = (swarm.node(&client.node)?, swarm.node(&server.node)?);
    make_vxlan(&near, &far, BY_HAND)?;
    make_vxlan(&far, &near, [BY_HAND[1], BY_HAND[0]])?;
    let _host = Server::start(swarm, &far, &[])?;
    let _by_hand = Server::start(swarm, &far, &["ip", "netns", "exec", "by-hand-task"])?;
    let in_task = || Client::Task(swarm, client.clone());
    let paths = [
        Path { name: "VIP", client: in_task(), url: format!("http://{SERVER}/") },
        Path {
            name: "task address",
            client: in_task(),
            url: format!("http://{}/", swarm.address(server)?),
        },
        Path {
            name: "VXLAN by hand",
            client: Client::ByHand(swarm, near.clone()),
            url: format!("http://{}:{HOST_PORT}/", BY_HAND[1]),
        },
        Path {
            name: "plain veth",
            client: Client::Host(swarm, near.clone()),
            url: format!("http://{}:{HOST_PORT}/", far.address()),
        },
    ];
    for path in &paths {
        wait_until("a server's answer", Duration::from_secs(10), || {
            path.call(&["get", "--summary"]).map_err(|e| format!("{}: {e:#}", path.name))
        })?;
    }
    compare(&paths, effort)
}

fn compare(paths: &[Path<'_>], effort: Effort) -> Result<Vec<Figure>> {
    let rounds = effort.runs(7);
    let throughput = in_turns(paths, rounds, &["tcp-load", "--duration", "1.5"], "/gbit_per_s")?;
    let connections = ["get", "-c", "4", "--duration", "1", "--resolve-once", "--summary"];
    let connections = in_turns(paths, rounds, &connections, "/rate")?;
    let latency = ["get", "--duration", "0.5", "--keep-alive", "--resolve-once", "--summary"];
    let latency = in_turns(paths, rounds, &latency, "/latency_us/p50")?;
    let ratio = |over: usize, under: usize| {
        throughput[over].iter().zip(&throughput[under]).map(|(a, b)| a / b).collect::<Vec<_>>()
    };
    let mut figures = Vec::new();
    let kinds = [
        ("throughput", "Gbit/s", &throughput),
        ("new connections", "1/s", &connections),
        ("request p50", "us", &latency),
    ];
    for (what, unit, runs) in kinds {
        for (path, runs) in paths.iter().zip(runs) {
            figures.push(Figure::median(format!("{what}, {}", path.name), unit, runs.clone()));
        }
    }
    figures.push(
        Figure::median("throughput, VIP / task address", "", ratio(0, 1)).bar(Bar::AtLeast(0.95)),
    );
    figures.push(
        Figure::median("throughput, overlay / VXLAN by hand", "", ratio(1, 2))
            .bar(Bar::AtLeast(1.0)),
    );
    figures.push(Figure::new("throughput, overlay / plain veth", "", median(&ratio(1, 3))));
    Ok(figures)
}

/// What each path gives in each round; every other round goes backwards.
fn in_turns(
    paths: &[Path<'_>],
    rounds: usize,
    words: &[&str],
    pointer: &str,
) -> Result<Vec<Vec<f64>>> {
    let mut measured = vec![Vec::with_capacity(rounds); paths.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..paths.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            measured[at].push(number(&paths[at].call(words)?, pointer)?);
        }
    }
    Ok(measured)
}

/// One end of an overlay as a person makes it with `ip`: a bridge with a VXLAN device and a veth to a namespace. It
/// goes with the host. Addresses: this end's, the other's.
fn make_vxlan(node: &Node, other: &Node, addresses: [&str; 2]) -> Result<()> {
    let [own, _] = addresses;
    let script = format!(
        "set -e
        for n in by-hand-net by-hand-task; do ip netns add $n; ip -n $n link set lo up; done
        mtu=$(($(cat /sys/class/net/eth0/mtu) - 50))
        ip link add vx-by-hand type vxlan id 77 dstport 4790 local {local} remote {remote} nolearning
        ip link set vx-by-hand netns by-hand-net
        ip -n by-hand-net link add br0 type bridge
        ip -n by-hand-net link add port type veth peer name eth0 netns by-hand-task
        ip -n by-hand-net link set br0 up
        ip -n by-hand-net link set vx-by-hand master br0 mtu $mtu up
        ip -n by-hand-net link set port master br0 mtu $mtu up
        ip -n by-hand-task addr add {own}/24 dev eth0
        ip -n by-hand-task link set eth0 mtu $mtu up",
        local = node.address(),
        remote = other.address(),
    );
    node.run(["sh", "-c", &script])?;
    Ok(())
}
