//! Load for benchmarks: DNS queries a second, bytes a second.

use crate::args::{Args, Failure};
use crate::http::{Connection, Url};
use crate::lookup::Question;
use crate::stats::Stats;
use crate::{json, lookup, resolve};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const DEFAULT_DURATION: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_CONCURRENCY: usize = 512;

/// `whoami dns-load`: each worker asks one question after the other on a socket of its own.
pub(crate) fn dns(mut args: Args) -> Result<(), Failure> {
    let (concurrency, duration) = common(&mut args)?;
    let template = resolve::template(&mut args)?;
    let [name] = args.words("one NAME")?;
    let question = resolve::about(&template, &name);
    let end = Instant::now() + duration;
    let mut total = Stats::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..concurrency).map(|_| scope.spawn(|| ask_until(&question, end))).collect();
        for worker in workers {
            total.add(worker.join().expect("a worker does not panic"));
        }
    });
    let failed = total.failed();
    println!("{}", total.summary());
    if failed == 0 { Ok(()) } else { Err(Failure::failed(format!("{failed} queries failed"))) }
}

fn common(args: &mut Args) -> Result<(usize, Duration), Failure> {
    let concurrency = args.option::<usize>("-c")?.unwrap_or(1).clamp(1, MAX_CONCURRENCY);
    Ok((concurrency, args.seconds("--duration")?.unwrap_or(DEFAULT_DURATION)))
}

fn ask_until(question: &Question, end: Instant) -> Stats {
    let mut stats = Stats::new();
    let connect = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(question.server)?;
        Ok(socket)
    };
    let socket = match connect() {
        Ok(socket) => socket,
        Err(error) => {
            stats.failure(&error);
            return stats;
        }
    };
    while Instant::now() < end {
        let started = Instant::now();
        match question.ask_on(&socket) {
            Ok(answer) if answer.rcode() == "NOERROR" => stats.success(started.elapsed(), None),
            Ok(answer) => stats.failure(&answer.rcode()),
            Err(error) => stats.failure(&error),
        }
    }
    stats
}

/// `whoami tcp-load`: downloads on some connections for some time.
pub(crate) fn tcp(mut args: Args) -> Result<(), Failure> {
    let (concurrency, duration) = common(&mut args)?;
    let [url] = args.words("one URL")?;
    let url: Url = url.parse().map_err(Failure::Usage)?;
    let address =
        SocketAddr::from((lookup::address(&url.host).map_err(Failure::failed)?, url.port));
    let started = Instant::now();
    let end = started + duration;
    let mut bytes = 0;
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..concurrency).map(|_| scope.spawn(|| download(address, &url, end))).collect();
        for worker in workers {
            bytes += worker.join().expect("a worker does not panic").map_err(Failure::failed)?;
        }
        Ok(())
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let summary = json::object([
        ("bytes", bytes.to_string()),
        ("seconds", format!("{seconds:.3}")),
        ("gbit_per_s", format!("{:.3}", bytes as f64 * 8.0 / seconds / 1e9)),
    ]);
    println!("{summary}");
    Ok(())
}

/// Reads an endless download until `end`; gives its bytes.
fn download(address: SocketAddr, url: &Url, end: Instant) -> io::Result<u64> {
    let mut connection = Connection::open(address, url, TIMEOUT)?;
    connection.request("GET", "/bytes?n=1000000000000000", b"", false)?;
    let mut buffer = vec![0u8; 256 * 1024];
    let mut bytes = 0;
    while Instant::now() < end {
        match connection.stream().read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes += n as u64,
        }
    }
    Ok(bytes)
}
