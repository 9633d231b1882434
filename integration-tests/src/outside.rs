//! What lies outside the swarm: an HTTP server and a DNS server of this test, on the machine's address on a playground's LAN.

use crate::Cluster;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

/// Host name that [`http`] answers with.
pub const HOSTNAME: &str = "outside";

/// Serves HTTP until the test ends, with answers as the sample image gives them; gives the address.
///
/// # Panics
/// When it cannot listen.
#[must_use]
pub fn http(cluster: &Cluster) -> SocketAddr {
    let listener = TcpListener::bind((cluster.playground().gateway(), 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is its own affair.
            let _ = answer(stream);
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = [0; 4096];
    let mut length = 0;
    while length < request.len() && !request[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut request[length..])? {
            0 => break,
            count => length += count,
        }
    }
    let (own, client) = (stream.local_addr()?, stream.peer_addr()?);
    let body =
        format!("{{\"hostname\":\"{HOSTNAME}\",\"address\":\"{own}\",\"client\":\"{client}\"}}\n");
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Serves DNS on port 53 until the test ends: every name is `address`. The nodes' daemons are restarted to use it.
///
/// # Panics
/// When it cannot listen, or a node not be told.
pub fn dns(cluster: &Cluster, address: Ipv4Addr) {
    let server = cluster.playground().gateway();
    let socket = UdpSocket::bind((server, 53)).expect("port 53");
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            // Answers that cannot be sent are lost, as datagrams are.
            let _ = socket.send_to(&dns_answer(&query[..length], address), client);
        }
    });
    for node in cluster.nodes() {
        // The file that a host has as /etc/resolv.conf.
        let script = format!("echo nameserver {server} > /run/playground/resolv.conf");
        node.run(["sh", "-c", &script]).unwrap_or_else(|e| panic!("{e}"));
        node.restart_daemon().unwrap_or_else(|e| panic!("{e}"));
    }
}

/// The query as an answer with one A record (RFC 1035, 4.1): header, question, and a pointer to the name.
fn dns_answer(query: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let end_of_name = query.iter().skip(12).position(|byte| *byte == 0).unwrap_or(0) + 12;
    let question = query.get(12..end_of_name + 5).unwrap_or_default();
    let mut answer = query.get(..2).unwrap_or_default().to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend(question);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
    answer.extend(address.octets());
    answer
}
