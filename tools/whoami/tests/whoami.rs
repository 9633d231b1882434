//! The program as a user runs it: server and tools against each other on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const WHOAMI: &str = env!("CARGO_BIN_EXE_swarm-whoami");

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let mut child =
            Command::new(WHOAMI).args(["--port", "0"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, as some tests want it to.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn whoami(args: &[&str]) -> Output {
    Command::new(WHOAMI).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

#[test]
fn it_says_who_answered_whom() {
    let server = Server::start();
    let body = stdout(&whoami(&["get", &server.url("/")]));
    let expected = format!(
        "{{\"hostname\":\"{}\",\"address\":\"{}\",\"client\":\"127.0.0.1:",
        hostname(),
        server.address
    );
    assert!(body.starts_with(&expected), "{body}");
    let line = stdout(&whoami(&["udp", &server.address.to_string()]));
    assert!(line.starts_with(&format!("{} {} 127.0.0.1:", hostname(), server.address)), "{line}");
}

#[test]
fn many_calls_are_summed_up() {
    let server = Server::start();
    let text = stdout(&whoami(&["get", "-n", "30", "-c", "3", &server.url("/")]));
    assert!(text.contains("\"calls\":30,\"failed\":0"), "{text}");
    assert!(
        text.contains(&format!(
            "\"hosts\":{{\"{}\":30}},\"clients\":{{\"127.0.0.1\":30}}",
            hostname()
        )),
        "{text}"
    );
    let text = stdout(&whoami(&[
        "get",
        "--duration",
        "0.2",
        "--keep-alive",
        "--resolve-once",
        &server.url("/"),
    ]));
    assert!(text.contains("\"failed\":0"), "{text}");
    let text = stdout(&whoami(&["udp", "-n", "5", &server.address.to_string()]));
    assert!(text.contains(&format!("\"hosts\":{{\"{}\":5}}", hostname())), "{text}");

    let failing = whoami(&["get", "-n", "2", "http://127.0.0.1:1/"]);
    assert_eq!(failing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failing.stdout).contains("\"calls\":2,\"failed\":2"));
}

#[test]
fn a_megabyte_comes_back_intact() {
    let server = Server::start();
    let text = stdout(&whoami(&["echo", "-n", "3", &server.url(""), "1000000"]));
    assert_eq!(text, "1000000 bytes there and back, 3 times, intact\n");
    let bytes = whoami(&["get", &server.url("/bytes?n=300000")]).stdout;
    assert_eq!(bytes.len(), 300_000);
    assert_eq!((bytes[0], bytes[250], bytes[251]), (0, 250, 0));
    let text = stdout(&whoami(&["tcp-load", "-c", "2", "--duration", "0.2", &server.url("")]));
    assert!(text.starts_with("{\"bytes\":") && !text.contains("\"bytes\":0,"), "{text}");
}

#[test]
fn it_ends_after_the_request_in_flight_and_does_not_wait_for_the_idle() {
    let mut server = Server::start();
    let mut idle = TcpStream::connect(server.address).unwrap();
    write!(idle, "GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");

    let mut slow = TcpStream::connect(server.address).unwrap();
    write!(slow, "GET /slow?ms=500 HTTP/1.1\r\n\r\n").unwrap();
    // A later call is answered only when the one before has been accepted.
    stdout(&whoami(&["get", &server.url("/")]));
    server.terminate();
    let started = Instant::now();
    let mut text = String::new();
    slow.read_to_string(&mut text).unwrap();
    assert!(text.contains("\"hostname\""), "{text}");
    assert!(server.child.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_kept_connection_gets_a_last_answer() {
    let mut server = Server::start();
    let mut kept = TcpStream::connect(server.address).unwrap();
    write!(kept, "GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    kept.read_exact(&mut answer).unwrap();
    server.terminate();
    // Long enough for it to have heard of its end, if it were to take that at once.
    std::thread::sleep(Duration::from_millis(100));
    write!(kept, "GET /slow?ms=0 HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    kept.read_to_string(&mut text).unwrap();
    assert!(text.contains("Connection: close"), "{text}");
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn a_late_server_listens_later_and_ends_at_once() {
    let line = ["serve", "--port", "0", "--after", "1000"];
    let mut late = Command::new(WHOAMI).args(line).stderr(Stdio::piped()).spawn().unwrap();
    let pid = late.id().to_string();
    let started = Instant::now();
    // A signal that comes before the program keeps signals back ends it as well, if less gracefully.
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    late.wait().unwrap();
    assert!(started.elapsed() < Duration::from_secs(100));
    let line = ["serve", "--port", "0", "--after", "0.1"];
    let started = Instant::now();
    let mut late = Command::new(WHOAMI).args(line).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(late.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(said.next().as_deref(), Some("listening in 100ms"));
    assert!(said.next().is_some_and(|line| line.starts_with("listening on")));
    assert!(started.elapsed() >= Duration::from_millis(100), "it listened at once");
    late.kill().unwrap();
    late.wait().unwrap();
}

#[test]
fn bad_requests_do_no_harm() {
    let server = Server::start();
    for request in [
        "GET /nothing HTTP/1.1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "\r\n\r\n",
        "nonsense\n\n",
    ] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer}");
    }
    stdout(&whoami(&["get", &server.url("/")]));
}

#[test]
fn loopback_answers_a_ping() {
    let text = stdout(&whoami(&["ping", "-n", "2", "127.0.0.1"]));
    assert!(text.starts_with("56 bytes from 127.0.0.1: seq=1 time="), "{text}");
}

/// A server that answers over UDP with the TC flag and no record, over TCP with one address.
fn truncating_server() -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut query) {
            (query[2], query[3]) = (0x87, 0x80);
            udp.send_to(&query[..length], from).unwrap();
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).unwrap();
            (message[2], message[3], message[7]) = (0x85, 0x80, 1);
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 2]);
            let length = u16::try_from(message.len()).unwrap();
            stream.write_all(&length.to_be_bytes()).unwrap();
            stream.write_all(&message).unwrap();
        }
    });
    address
}

#[test]
fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let server = truncating_server().to_string();
    let text = stdout(&whoami(&["resolve", "--server", &server, "tasks.web"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            ";; tasks.web A NOERROR udp flags: qr aa tc rd ra; 0 answers, 27 bytes",
            ";; tasks.web A NOERROR tcp flags: qr aa rd ra; 1 answers, 43 bytes",
            "tasks.web. 5 A 10.0.0.2",
        ]
    );
    assert_eq!(stdout(&whoami(&["resolve", "--server", &server, "--short", "web"])), "10.0.0.2\n");
    let text = stdout(&whoami(&["resolve", "--server", &server, "--no-tcp", "web"]));
    assert!(text.contains(" tc ") && text.lines().count() == 1, "{text}");
    let text = stdout(&whoami(&["dns-load", "--duration", "0.1", "--server", &server, "web"]));
    assert!(text.contains("\"failed\":0"), "{text}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &["what"][..],
        &["get"],
        &["get", "--what", "x"],
        &["echo", "http://x", "many"],
        &["udp", "host"],
        &["--port", "99999"],
        &["serve", "now"],
    ] {
        let output = whoami(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{args:?}: {said}");
    }
}
