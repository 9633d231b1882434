//! Acknowledged writes per second on three managers in this process, over gRPC on loopback, with
//! every write synced to the disk that holds the folder given (default: the current one).

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use support::cluster;
use swarm_raft::{Options, Raft};

const FOR: Duration = Duration::from_secs(4);
const COMMAND: usize = 256;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(root).expect("a folder to write to");
    let nodes = cluster(dir.path(), 3, |options| {
        *options = Options::new(options.id, options.dir.clone(), options.key.clone())
    })
    .await;
    // The commands themselves are not of interest, and would fill the memory.
    for node in &nodes {
        let journal = node.journal.clone();
        tokio::spawn(async move {
            loop {
                journal.0.lock().expect("no holder panics").clear();
                tokio::time::sleep(Duration::from_millis(20)).await; // before the journal is emptied again
            }
        });
    }
    println!("idle: {} KiB resident for three managers", resident());
    for clients in [1, 10, 50] {
        let (writes, latencies) = measure(&nodes[0].raft, clients).await;
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        println!(
            "{clients:3} clients: {:6.0} writes/s, p50 {:?}, p99 {:?}; {} KiB resident",
            writes as f64 / FOR.as_secs_f64(),
            at(0.5),
            at(0.99),
            resident(),
        );
    }
    for node in nodes {
        node.stop().await;
    }
}

async fn measure(raft: &Raft, clients: usize) -> (usize, Vec<Duration>) {
    let end = Instant::now() + FOR;
    let client = |raft: Raft| async move {
        let command = Bytes::from(vec![b'w'; COMMAND]);
        let mut latencies = Vec::new();
        while Instant::now() < end {
            let start = Instant::now();
            raft.propose(command.clone()).await.expect("a write is acknowledged");
            latencies.push(start.elapsed());
        }
        latencies
    };
    let tasks: Vec<_> = (0..clients).map(|_| tokio::spawn(client(raft.clone()))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a client does not panic"));
    }
    latencies.sort_unstable();
    (latencies.len(), latencies)
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
