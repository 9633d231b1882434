//! How long services take: `swarmctl` from its start to its end, which is when the result is in force on every node.

use std::time::Instant;

use anyhow::Result;

use super::Effort;
use super::figure::{Bar, Figure};
use super::swarm::{NETWORK, Swarm, number};

const NAME: &str = "web";

/// `service create --replicas 1|10|50`.
pub(super) fn create(swarm: &Swarm, effort: Effort) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (replicas, bar) in [(1, 0.3), (10, 1.0), (50, 3.0)] {
        let mut runs = Vec::new();
        for _ in 0..effort.runs(3) {
            let started = Instant::now();
            swarm.create_service(NAME, replicas)?;
            runs.push(started.elapsed().as_secs_f64());
            swarm.remove_service(NAME)?;
        }
        let name = format!("service create --replicas {replicas}");
        figures.push(Figure::median(name, "s", runs).bar(Bar::AtMost(bar)));
    }
    Ok(figures)
}

/// `service scale` up and down.
pub(super) fn scale(swarm: &Swarm, effort: Effort) -> Result<Vec<Figure>> {
    let steps = [(1, 20), (20, 50), (50, 1)];
    let mut runs = vec![Vec::new(); steps.len()];
    for _ in 0..effort.runs(3) {
        swarm.create_service(NAME, 1)?;
        for ((_, to), runs) in steps.iter().zip(&mut runs) {
            let started = Instant::now();
            swarm.ctl(&["service", "scale", &format!("{NAME}={to}")])?;
            runs.push(started.elapsed().as_secs_f64());
        }
        swarm.remove_service(NAME)?;
    }
    let name = |(from, to): (u32, u32)| format!("service scale {from} -> {to}");
    Ok(steps
        .into_iter()
        .zip(runs)
        .map(|(step, runs)| Figure::median(name(step), "s", runs))
        .collect())
}

/// A task's report `running` until every node has programmed its endpoint.
pub(super) fn endpoint(swarm: &Swarm, effort: Effort) -> Result<Vec<Figure>> {
    let changes = effort.count(100).to_string();
    let sockets = swarm.manager_sockets()?;
    let measured = swarm.load(&[
        "endpoint",
        "--socket",
        &sockets[0],
        "--network",
        NETWORK,
        "--changes",
        &changes,
    ])?;
    let at = |name: &str| number(&measured, &format!("/latency_ms/{name}"));
    Ok(vec![
        Figure::new("endpoint change in force, p50", "ms", at("p50")?),
        Figure::new("endpoint change in force, p99", "ms", at("p99")?).bar(Bar::AtMost(200.0)),
    ])
}

/// Acknowledged `CreateService` of services without replicas; each is on the disks of a majority of 3 managers.
pub(super) fn writes(swarm: &Swarm, effort: Effort) -> Result<Vec<Figure>> {
    let sockets = swarm.manager_sockets()?;
    let mut figures = Vec::new();
    let bars = [(1, Some(1000.0)), (10, None), (50, Some(5000.0))];
    for (clients, bar) in bars {
        let mut rates = Vec::new();
        let mut p99 = Vec::new();
        for _ in 0..effort.runs(3) {
            let measured = write(swarm, clients, &sockets[..1])?;
            rates.push(number(&measured, "/creates/rate")?);
            p99.push(number(&measured, "/creates/latency_ms/p99")?);
        }
        let figure = Figure::median(format!("writes, clients: {clients}"), "1/s", rates);
        figures.push(match bar {
            Some(bar) => figure.bar(Bar::AtLeast(bar)),
            None => figure,
        });
        figures.push(Figure::median(format!("write p99, clients: {clients}"), "ms", p99));
    }
    let spread = write(swarm, 50, &sockets)?;
    let name = "writes, clients: 50, over all managers";
    figures.push(Figure::new(name, "1/s", number(&spread, "/creates/rate")?));
    Ok(figures)
}

fn write(swarm: &Swarm, clients: u32, sockets: &[String]) -> Result<serde_json::Value> {
    let clients = clients.to_string();
    let mut words = vec!["writes", "--clients", &clients, "--seconds", "2", "--count", "10000"];
    for socket in sockets {
        words.extend(["--socket", socket]);
    }
    swarm.load(&words)
}
