//! Servers that say who they are and whom they see, and clients that listen.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::lab::Task;

/// How often a waiting server looks whether it shall stop.
const TICK: Duration = Duration::from_millis(20);
/// How long a client waits for an answer: far longer than any that comes at all.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The address of the task that answered.
    pub(crate) from: Ipv4Addr,
    /// The port that it answered on.
    pub(crate) port: u16,
    /// The client's address as the server saw it.
    pub(crate) seen: Ipv4Addr,
}

/// A server in a task, stopped when dropped.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Greets each connection with a line, and repeats the line for each line received.
    pub(crate) fn tcp(task: &Task, port: u16) -> Self {
        let listener =
            task.ns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).expect("a listener");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let own = SocketAddrV4::new(task.addr, port);
        Self::start(move |stop| {
            let mut connections = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, peer)) => {
                        let stop = Arc::clone(stop);
                        // Errors end a connection, as they do in any server; the client's assertions tell.
                        connections
                            .push(thread::spawn(move || drop(serve(&stream, own, peer, &stop))));
                    }
                    Err(_) => thread::sleep(TICK / 10), // nobody has connected yet; a blocking accept would not see `stop`
                }
            }
            connections
                .into_iter()
                .for_each(|connection| connection.join().expect("a connection's thread"));
        })
    }

    /// Answers each datagram.
    pub(crate) fn udp(task: &Task, port: u16) -> Self {
        let socket =
            task.ns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))).expect("a socket");
        socket.set_read_timeout(Some(TICK)).expect("a time-out");
        let own = SocketAddrV4::new(task.addr, port);
        Self::start(move |stop| {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    // A client that is gone needs no answer.
                    let _ = socket.send_to(greeting(own, peer).as_bytes(), peer);
                }
            }
        })
    }

    fn start(work: impl FnOnce(&Arc<AtomicBool>) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        Self { stop, thread: Some(thread::spawn(move || work(&theirs))) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in the server was printed already; a second one here would abort the clean-up.
            let _ = thread.join();
        }
    }
}

fn greeting(own: SocketAddrV4, peer: SocketAddr) -> String {
    format!("{own} {}\n", peer.ip())
}

fn serve(
    mut stream: &TcpStream,
    own: SocketAddrV4,
    peer: SocketAddr,
    stop: &AtomicBool,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.write_all(greeting(own, peer).as_bytes())?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while !stop.load(Ordering::Relaxed) {
        match lines.read_line(&mut line) {
            Ok(0) => return Ok(()),
            Ok(_) => stream.write_all(greeting(own, peer).as_bytes())?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        line.clear();
    }
    Ok(())
}

/// Servers on a port of several tasks.
pub(crate) fn tcp_servers(tasks: &[&Task], port: u16) -> Vec<Server> {
    tasks.iter().map(|task| Server::tcp(task, port)).collect()
}

/// A client's TCP connection.
pub(crate) struct Call {
    lines: BufReader<TcpStream>,
}

impl Call {
    /// Connects from a task; also returns the greeting.
    pub(crate) fn open(task: &Task, vip: Ipv4Addr, port: u16) -> io::Result<(Self, Answer)> {
        let target = SocketAddrV4::new(vip, port).into();
        let stream = task.ns.enter(|| TcpStream::connect_timeout(&target, TIMEOUT))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut call = Self { lines: BufReader::new(stream) };
        let answer = call.listen()?;
        Ok((call, answer))
    }

    /// Says a line and listens for the answer.
    pub(crate) fn talk(&mut self) -> io::Result<Answer> {
        self.lines.get_ref().write_all(b"and you?\n")?;
        self.listen()
    }

    /// That the connection is ended at once: an answer that only fails to come would be a hang.
    #[track_caller]
    pub(crate) fn assert_ended(&mut self, why: &str) {
        let error = self.talk().expect_err(why);
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "{why}: at once, not after a time-out");
    }

    fn listen(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        parse(&line)
    }
}

/// One TCP connection, ended after the greeting.
pub(crate) fn ask(task: &Task, vip: Ipv4Addr, port: u16) -> io::Result<Answer> {
    Call::open(task, vip, port).map(|(_, answer)| answer)
}

/// A client's UDP socket: to connection tracking, one flow.
pub(crate) struct Flow {
    socket: UdpSocket,
}

impl Flow {
    pub(crate) fn open(task: &Task, vip: Ipv4Addr, port: u16) -> Self {
        let socket =
            task.ns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).expect("a socket");
        socket.set_read_timeout(Some(TIMEOUT)).expect("a time-out");
        socket.connect((vip, port)).expect("UDP connects without a packet");
        Self { socket }
    }

    /// Sends a datagram and waits for the answer.
    pub(crate) fn ask(&self) -> io::Result<Answer> {
        self.socket.send(b"and you?")?;
        let mut buffer = [0; 2048];
        let length = self.socket.recv(&mut buffer)?;
        parse(std::str::from_utf8(&buffer[..length]).expect("text"))
    }
}

fn parse(line: &str) -> io::Result<Answer> {
    let parsed = || {
        let (from, seen) = line.trim_end().split_once(' ')?;
        let from: SocketAddrV4 = from.parse().ok()?;
        Some(Answer { from: *from.ip(), port: from.port(), seen: seen.parse().ok()? })
    };
    parsed()
        .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("no answer: {line:?}")))
}
