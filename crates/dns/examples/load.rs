//! How fast the server answers inside a task's namespace, and what a sandbox costs in memory. Needs root.
//!
//! `cargo run --release -p swarm-dns --example load [seconds] [clients] [sandboxes]`
//!
//! Each client asks one query after the other over UDP, as a program that resolves a name does.

use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RecordType};
use swarm_dns::{Answer, DnsServer, LISTEN_ADDRESS, NetworkNames, Options, Scope};
use swarm_netns::Namespace;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// A network namespace, deleted when dropped.
struct Netns(String);

impl Netns {
    fn new(number: usize) -> Result<Self> {
        let name = format!("dns-load-{}-{number}", std::process::id());
        ip(&["netns", "add", &name])?;
        let netns = Self(name);
        ip(&["-n", &netns.0, "link", "set", "lo", "up"])?;
        Ok(netns)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.0]) {
            eprintln!("{error}");
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {status}", arguments.join(" ")).into())
}

fn main() -> Result<()> {
    let seconds = argument(1, 3)?;
    let clients = argument(2, 4)?;
    let sandboxes = argument(3, 100)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let netns: Vec<Netns> = (0..sandboxes.max(1)).map(Netns::new).collect::<Result<_>>()?;
    let server = DnsServer::new(Options::default());
    server.publish_network("net", Arc::new(names()?));

    // The first one pays for what all share.
    runtime.block_on(attach(&server, &netns[..1]))?;
    let before = resident_kib()?;
    let started = Instant::now();
    runtime.block_on(attach(&server, &netns[1..]))?;
    let (attached, took) = (netns.len() - 1, started.elapsed());
    let grown = resident_kib()?.saturating_sub(before);
    println!("{attached} sandboxes attached in {took:.1?}: RSS {before} KiB + {grown} KiB");

    for (name, kind) in
        [("web", RecordType::A), ("web", RecordType::AAAA), ("tasks.web", RecordType::A)]
    {
        let message = query(name, kind)?;
        let mut latencies =
            load(&netns[0], &message, clients, Duration::from_secs(seconds as u64))?;
        latencies.sort();
        let rate = latencies.len() / seconds.max(1);
        let at = |quantile: f64| latencies[(latencies.len() as f64 * quantile) as usize];
        println!(
            "{name:10} {kind:5} {clients} clients: {rate:7} queries/s, p50 {:.1?}, p99 {:.1?}",
            at(0.5),
            at(0.99)
        );
    }
    Ok(())
}

fn argument(position: usize, default: usize) -> Result<usize> {
    std::env::args().nth(position).map_or(Ok(default), |text| Ok(text.parse()?))
}

/// 200 services; `web` has 50 tasks.
fn names() -> Result<NetworkNames> {
    let mut names = NetworkNames::new();
    let tasks = (0..50).map(|host| [10, 0, 1, host].into()).collect();
    names.insert("tasks.web", Answer::Addresses(tasks))?;
    names.insert("web", Answer::Vip([10, 0, 0, 2].into()))?;
    for number in 0..199 {
        let vip = Answer::Vip([10, 0, 2, number].into());
        names.insert(&format!("service-{number}"), vip)?;
    }
    Ok(names)
}

async fn attach(server: &DnsServer, netns: &[Netns]) -> Result<()> {
    for netns in netns {
        let scope = Scope { networks: vec!["net".into()], relay: true };
        server.attach(&netns.0, &netns.path(), scope).await?;
    }
    Ok(())
}

fn query(name: &str, kind: RecordType) -> Result<Vec<u8>> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_str(name)?, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    Ok(message.to_vec()?)
}

/// The time of each exchange of all clients.
fn load(netns: &Netns, query: &[u8], clients: usize, time: Duration) -> Result<Vec<Duration>> {
    let client = || -> Result<Vec<Duration>> {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let socket = Namespace::open(&netns.path())?.run_blocking(bind)??;
        socket.connect(LISTEN_ADDRESS)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let (mut latencies, mut reply) = (Vec::new(), [0; 4096]);
        let end = Instant::now() + time;
        while Instant::now() < end {
            let asked = Instant::now();
            socket.send(query)?;
            socket.recv(&mut reply)?;
            latencies.push(asked.elapsed());
        }
        Ok(latencies)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| "a client panicked")??);
        }
        Ok(all)
    })
}

fn resident_kib() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmRSS in /proc/self/status")?.parse()?)
}
