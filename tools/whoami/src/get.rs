//! `whoami get`: HTTP calls, one or many, and who answered them.

use crate::args::{Args, Failure};
use crate::http::{Connection, Url};
use crate::stats::Stats;
use crate::{identity, lookup};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_CONCURRENCY: usize = 512;

struct Plan {
    url: Url,
    timeout: Duration,
    interval: Duration,
    keep_alive: bool,
    /// Where to connect; `None`: the name is resolved for each call.
    address: Option<Ipv4Addr>,
    /// Calls that may still be begun.
    left: AtomicU64,
    end: Option<Instant>,
}

pub(crate) fn run(mut args: Args) -> Result<(), Failure> {
    let duration = args.seconds("--duration")?;
    let count = args.option::<u64>("-n")?;
    let concurrency = args.option::<usize>("-c")?.unwrap_or(1).clamp(1, MAX_CONCURRENCY);
    let timeout = args.seconds("--timeout")?.unwrap_or(DEFAULT_TIMEOUT);
    let interval = Duration::from_millis(args.option::<u64>("--interval")?.unwrap_or(0));
    let keep_alive = args.flag("--keep-alive");
    let resolve_once = args.flag("--resolve-once");
    let count = count.unwrap_or(if duration.is_some() { u64::MAX } else { 1 });
    let summary = args.flag("--summary") || count > 1;
    let [url] = args.words("one URL")?;
    let url: Url = url.parse().map_err(Failure::Usage)?;
    let address = if resolve_once {
        Some(lookup::address(&url.host).map_err(Failure::failed)?)
    } else {
        None
    };
    let plan = Plan {
        url,
        timeout,
        interval,
        keep_alive,
        address,
        left: AtomicU64::new(count),
        end: duration.map(|duration| Instant::now() + duration),
    };
    if summary { run_many(&plan, concurrency) } else { run_once(&plan) }
}

fn run_once(plan: &Plan) -> Result<(), Failure> {
    let body = plan.call(&mut None).map_err(Failure::failed)?;
    io::stdout().write_all(&body).map_err(Failure::failed)
}

fn run_many(plan: &Plan, concurrency: usize) -> Result<(), Failure> {
    let mut total = Stats::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..concurrency).map(|_| scope.spawn(|| plan.work())).collect();
        for worker in workers {
            total.add(worker.join().expect("a worker does not panic"));
        }
    });
    let failed = total.failed();
    println!("{}", total.summary());
    if failed == 0 { Ok(()) } else { Err(Failure::failed(format!("{failed} calls failed"))) }
}

impl Plan {
    fn work(&self) -> Stats {
        let mut stats = Stats::new();
        let mut connection = None;
        while self.take_one() {
            let started = Instant::now();
            match self.call(&mut connection) {
                Ok(body) => stats.success(started.elapsed(), identity::parse_http(&body)),
                Err(error) => stats.failure(&error),
            }
            // The pace that was asked for.
            std::thread::sleep(self.interval);
        }
        stats
    }

    fn take_one(&self) -> bool {
        let in_time = self.end.is_none_or(|end| Instant::now() < end);
        let less = |left: u64| left.checked_sub(1);
        in_time && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// One call, on a new connection unless there is one to keep.
    fn call(&self, kept: &mut Option<Connection>) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.timeout;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let head = connection.request("GET", &self.url.path, b"", self.keep_alive)?;
        let body = connection.body(&head, deadline)?;
        if self.keep_alive && !head.close {
            *kept = Some(connection);
        }
        Ok(body)
    }

    fn connect(&self) -> io::Result<Connection> {
        let address = match self.address {
            Some(address) => address,
            None => lookup::address(&self.url.host)?,
        };
        Connection::open(SocketAddr::from((address, self.url.port)), &self.url, self.timeout)
    }
}
