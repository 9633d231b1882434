//! `whoami serve`: the HTTP server. One thread a connection, with a small stack; ends when asked to, after requests in flight.

use crate::args::{Args, Failure};
use crate::http::{self, Head, MAX_BODY, read_body, read_head};
use crate::{identity, sys, udp};
use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Threads here touch little of their stack; 50 copies of the server run on one machine.
pub(crate) const STACK: usize = 128 * 1024;
/// More are answered with 503.
const MAX_CONNECTIONS: usize = 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_SLOW: Duration = Duration::from_secs(60);
/// How long requests in flight are waited for: the longest there can be. The grace period of a task is the swarm's affair.
const DRAIN_TIMEOUT: Duration = MAX_SLOW;
/// How long a kept connection may take, at the end, to send one request more; that one is answered as its last.
const LAST_REQUEST: Duration = Duration::from_millis(500);
const CHUNK: usize = 16 * 1024;

pub(crate) fn run(mut args: Args) -> Result<(), Failure> {
    let port = args.option::<u16>("--port")?.unwrap_or(80);
    let after = args.seconds("--after")?;
    args.words::<0>("no further words")?;
    let signals = sys::EndSignals::block().map_err(Failure::failed)?;
    if let Some(after) = after {
        eprintln!("listening in {after:?}");
    }
    if after.is_some_and(|after| signals.wait_for(after)) {
        return Ok(());
    }
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let busy = |e| Failure::failed(format!("cannot listen on {address}: {e}"));
    let listener = TcpListener::bind(address).map_err(busy)?;
    // Port 0 is for tests: UDP takes the port that TCP was given.
    let address = listener.local_addr().map_err(busy)?;
    let socket = std::net::UdpSocket::bind(address).map_err(busy)?;
    eprintln!("listening on {address}");
    let work = Arc::new(Work::default());
    let http = Arc::clone(&work);
    spawn("http", move || accept_forever(&listener, &http)).map_err(Failure::failed)?;
    spawn("udp", move || udp::serve_forever(&socket)).map_err(Failure::failed)?;
    signals.wait();
    work.drain();
    Ok(())
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.stack_size(STACK).spawn(body).map(drop)
}

/// Requests in flight. A connection counts from its arrival until its first answer, and during each later request.
#[derive(Default)]
struct Work {
    now: Mutex<Now>,
    changed: Condvar,
    ending: AtomicBool,
}

#[derive(Default)]
struct Now {
    in_flight: usize,
    connections: usize,
}

impl Work {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>) -> InFlight {
        self.now().in_flight += 1;
        InFlight(Arc::clone(self))
    }

    /// Counts a connection; with how many there were before.
    fn connect(self: &Arc<Self>) -> (Open, usize) {
        let mut now = self.now();
        now.connections += 1;
        (Open(Arc::clone(self)), now.connections - 1)
    }

    /// A client may be sending on a connection that seems idle: it is not cut off in the middle of that.
    fn drain(&self) {
        self.ending.store(true, Ordering::Release);
        drop(self.wait_while(LAST_REQUEST, |now| now.connections > 0));
        let left = self.wait_while(DRAIN_TIMEOUT, |now| now.in_flight > 0).in_flight;
        if left > 0 {
            eprintln!("ending with {left} requests in flight");
        }
    }

    fn wait_while(&self, most: Duration, is_so: impl Fn(&Now) -> bool) -> MutexGuard<'_, Now> {
        let waited = self.changed.wait_timeout_while(self.now(), most, |now| is_so(now));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

struct InFlight(Arc<Work>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.now().in_flight -= 1;
        self.0.changed.notify_all();
    }
}

/// An open connection.
struct Open(Arc<Work>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.now().connections -= 1;
        self.0.changed.notify_all();
    }
}

fn accept_forever(listener: &TcpListener, work: &Arc<Work>) {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors or memory: wait for a connection to end rather than spin.
                eprintln!("cannot accept: {error}");
                std::thread::sleep(Duration::from_millis(100)); // until a connection has ended
                continue;
            }
        };
        let first = work.begin();
        let work = Arc::clone(work);
        let connection = move || {
            // Dropped last: the answer has been written and the connection shut down by then.
            let (_open, others) = work.connect();
            let served = serve(&stream, &work, first, others >= MAX_CONNECTIONS);
            drop(stream);
            if let Err(error) = served.or_else(ignore_client_errors) {
                eprintln!("connection: {error}");
            }
        };
        if let Err(error) = spawn("connection", connection) {
            eprintln!("cannot start a thread: {error}");
        }
    }
}

/// A client that goes away or stays silent is its own affair.
fn ignore_client_errors(error: io::Error) -> io::Result<()> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    match error.kind() {
        BrokenPipe | ConnectionReset | TimedOut | UnexpectedEof | WouldBlock => Ok(()),
        _ => Err(error),
    }
}

fn serve(
    stream: &TcpStream,
    work: &Arc<Work>,
    first: InFlight,
    overloaded: bool,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    let mut reader = BufReader::with_capacity(CHUNK, stream);
    let mut first = Some(first);
    while let Some(head) = read_head(&mut reader)? {
        let _in_flight = first.take().unwrap_or_else(|| work.begin());
        let close = head.close || overloaded || work.ending.load(Ordering::Acquire);
        let mut exchange = Exchange { stream, reader: &mut reader, close };
        if overloaded {
            return exchange.answer(
                "503 Service Unavailable",
                "text/plain",
                b"too many connections\n",
            );
        }
        exchange.handle(&head)?;
        if exchange.close {
            return Ok(());
        }
    }
    Ok(())
}

/// One request and its answer.
struct Exchange<'a, 'b> {
    stream: &'a TcpStream,
    reader: &'b mut BufReader<&'a TcpStream>,
    close: bool,
}

impl Exchange<'_, '_> {
    fn handle(&mut self, head: &Head) -> io::Result<()> {
        let mut words = head.first_line.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let length = head.content_length.unwrap_or(0);
        if head.chunked || length > MAX_BODY {
            self.close = true;
            return self.answer(
                "413 Content Too Large",
                "text/plain",
                b"at most 16 MiB, not chunked\n",
            );
        }
        if head.expects_continue {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = read_body(self.reader, length)?;
        match (method, path) {
            ("GET" | "HEAD", "/") => self.identify(),
            ("GET", "/slow") => {
                let ms = number(query, "ms").unwrap_or(1000);
                // The delay is what was asked for.
                std::thread::sleep(Duration::from_millis(ms).min(MAX_SLOW));
                self.identify()
            }
            ("GET", "/bytes") => self.bytes(number(query, "n").unwrap_or(1_000_000)),
            ("POST" | "PUT", "/echo") => self.answer("200 OK", "application/octet-stream", &body),
            _ => self.answer(
                "404 Not Found",
                "text/plain",
                b"there is /, /slow?ms=, /bytes?n= and POST /echo\n",
            ),
        }
    }

    fn identify(&mut self) -> io::Result<()> {
        let body = identity::http_body(self.stream.local_addr()?, self.stream.peer_addr()?);
        self.answer("200 OK", "application/json", body.as_bytes())
    }

    fn answer(&mut self, status: &str, kind: &str, body: &[u8]) -> io::Result<()> {
        let mut answer = self.head(status, kind, body.len() as u64).into_bytes();
        answer.extend_from_slice(body);
        self.stream.write_all(&answer)
    }

    fn head(&self, status: &str, kind: &str, length: u64) -> String {
        let connection = if self.close { "close" } else { "keep-alive" };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n"
        )
    }

    /// `count` bytes of [`http::pattern`].
    fn bytes(&mut self, count: u64) -> io::Result<()> {
        let head = self.head("200 OK", "application/octet-stream", count);
        self.stream.write_all(head.as_bytes())?;
        let chunk = http::pattern(64 * 1024);
        let mut left = count;
        while left > 0 {
            let size = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.stream.write_all(&chunk[..size])?;
            left -= size as u64;
        }
        Ok(())
    }
}

/// The number of `name=NUMBER` in a query.
fn number(query: &str, name: &str) -> Option<u64> {
    let values = query.split('&').filter_map(|pair| pair.split_once('='));
    values.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok())
}
