//! How long starting and deleting containers takes, and what a shim weighs:
//! `cargo run --release -p swarm-runtime --example measure -- 50` (as root, with /bin/busybox static).

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use swarm_runtime::{ContainerSpec, Options, Runtime, shim};

fn main() -> ExitCode {
    if shim::requested() {
        return shim::main();
    }
    let count = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(50);
    let dir = std::env::temp_dir().join(format!("swarm-measure-{}", std::process::id()));
    let netns = format!("swarm-measure-{}", std::process::id());
    let result = prepare(&dir, &netns).and_then(|()| {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(run(&dir, &netns, count))
    });
    // Removal is best effort: the result matters more.
    let _ = Command::new("ip").args(["netns", "del", &netns]).status();
    let _ = fs::remove_dir_all(&dir);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("measure: {e}");
            ExitCode::FAILURE
        }
    }
}

fn prepare(dir: &Path, netns: &str) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir.join("layer/bin"))?;
    fs::copy("/bin/busybox", dir.join("layer/bin/busybox"))?;
    let status = Command::new("ip").args(["netns", "add", netns]).status()?;
    if status.success() { Ok(()) } else { Err("ip netns add failed".into()) }
}

async fn run(dir: &Path, netns: &str, count: usize) -> Result<(), Box<dyn Error>> {
    let parent = format!("/{netns}");
    let runtime =
        Runtime::open(Options::new(dir.join("state"), Path::new("/dev/shm").join(netns), parent))?;
    let clock = Instant::now();
    let starts = (0..count).map(|n| {
        let spec = ContainerSpec {
            id: format!("c{n}"),
            layers: vec![dir.join("layer")],
            args: ["busybox", "sleep", "1000"].map(str::to_owned).into(),
            netns: Path::new("/run/netns").join(netns),
            ..Default::default()
        };
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.start(&spec).await.map(|_| ()) })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await??;
    }
    println!("start {count} at once: {:?}", clock.elapsed());
    weigh(&Path::new("/dev/shm").join(netns))?;

    let clock = Instant::now();
    let deletes = (0..count).map(|n| {
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.delete(&format!("c{n}")).await })
    });
    for delete in deletes.collect::<Vec<_>>() {
        delete.await??;
    }
    println!("delete {count} at once: {:?}", clock.elapsed());
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    let cpu = Duration::from_secs_f64(seconds(used.user_time()) + seconds(used.system_time()));
    println!("CPU of shims and containers: {cpu:?}, {:?} each", cpu / count as u32);
    runtime.remove_cgroup_parent();
    fs::remove_dir_all(Path::new("/dev/shm").join(netns))?;
    Ok(())
}

/// Prints the memory of one shim.
fn weigh(run_dir: &Path) -> Result<(), Box<dyn Error>> {
    let lock = fs::read_to_string(run_dir.join("c0/lock"))?;
    let pid = lock.split(|c: char| !c.is_ascii_digit()).find(|s| !s.is_empty()).unwrap_or_default();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    for name in ["Rss:", "Pss:", "Private_Dirty:"] {
        println!("shim {}", rollup.lines().find(|l| l.starts_with(name)).unwrap_or_default());
    }
    Ok(())
}
