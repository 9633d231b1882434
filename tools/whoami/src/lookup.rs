//! Asking a DNS server, and finding a host's address as the C library would: /etc/hosts, then resolv.conf(5).

use crate::dns::{Answer, Kind, query};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// How one question is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) edns: Option<u16>,
    pub(crate) server: SocketAddr,
    pub(crate) timeout: Duration,
}

impl Question {
    fn encode(&self) -> io::Result<(u16, Vec<u8>)> {
        let id = random();
        let message = query(id, &self.name, self.kind, self.edns);
        Ok((id, message.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?))
    }

    /// Over UDP; a lost packet is sent again once.
    pub(crate) fn ask_udp(&self) -> io::Result<Answer> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(self.server)?;
        self.ask_on(&socket)
    }

    /// Over a UDP socket that is connected to the server.
    pub(crate) fn ask_on(&self, socket: &UdpSocket) -> io::Result<Answer> {
        let (id, message) = self.encode()?;
        socket.set_read_timeout(Some(self.timeout))?;
        let mut buffer = vec![0u8; usize::from(self.edns.unwrap_or(0)).max(4096)];
        for _ in 0..ATTEMPTS {
            socket.send(&message)?;
            match receive(socket, &mut buffer, id) {
                Ok(length) => return decode(&buffer[..length], id),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {}", self.server)))
    }

    /// Over TCP (RFC 7766): length, then message.
    pub(crate) fn ask_tcp(&self) -> io::Result<Answer> {
        let (id, message) = self.encode()?;
        let mut stream = TcpStream::connect_timeout(&self.server, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        let length = u16::try_from(message.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), message.as_slice()].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        decode(&answer, id)
    }
}

/// The next packet with our id; late answers to earlier questions are not ours.
fn receive(socket: &UdpSocket, buffer: &mut [u8], id: u16) -> io::Result<usize> {
    loop {
        let length = socket.recv(buffer)?;
        if buffer[..length].starts_with(&id.to_be_bytes()) {
            return Ok(length);
        }
    }
}

fn decode(message: &[u8], id: u16) -> io::Result<Answer> {
    Answer::decode(message, id).map_err(|e| crate::http::invalid(&e))
}

/// Unpredictable enough to tell answers apart: the standard library seeds each hasher with random keys.
fn random() -> u16 {
    (RandomState::new().build_hasher().finish() & 0xffff) as u16
}

/// The resolver's configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl Config {
    pub(crate) fn load() -> io::Result<Self> {
        let text = std::fs::read_to_string("/etc/resolv.conf")
            .map_err(|e| io::Error::new(e.kind(), format!("cannot read /etc/resolv.conf: {e}")))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut config = Self { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    config.servers.extend(address.map(|a| SocketAddr::new(a, 53)));
                }
                Some("search" | "domain") => config.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    config.ndots = ndots.unwrap_or(config.ndots);
                }
                _ => {}
            }
        }
        config
    }

    /// The names to try, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut names: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let as_is = if name.matches('.').count() >= self.ndots { 0 } else { names.len() };
        names.insert(as_is, name.to_owned());
        names
    }

    pub(crate) fn first_server(&self) -> io::Result<SocketAddr> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "/etc/resolv.conf names no server");
        self.servers.first().copied().ok_or_else(none)
    }
}

/// The IPv4 address of a host: the first of the answer.
pub(crate) fn address(host: &str) -> io::Result<Ipv4Addr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    if let Some(address) =
        std::fs::read_to_string("/etc/hosts").ok().and_then(|text| find_host(&text, host))
    {
        return Ok(address);
    }
    let config = Config::load()?;
    let server = config.first_server()?;
    let mut last = String::new();
    for name in config.candidates(host) {
        let question = Question { name, kind: Kind::A, edns: None, server, timeout: TIMEOUT };
        let answer = question.ask_udp()?;
        let answer = if answer.truncated() { question.ask_tcp()? } else { answer };
        if let Some(address) = answer.addresses().next() {
            return Ok(address);
        }
        last = answer.rcode().to_owned();
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address ({last})")))
}

fn find_host(hosts: &str, host: &str) -> Option<Ipv4Addr> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_follows_ndots() {
        let config = Config::parse(
            "nameserver 127.0.0.11\nsearch a.example b.example\noptions ndots:0 edns0\n",
        );
        assert_eq!(config.servers, ["127.0.0.11:53".parse().unwrap()]);
        assert_eq!(config.candidates("web"), ["web", "web.a.example", "web.b.example"]);
        let config = Config::parse("search a.example");
        assert_eq!(config.candidates("web"), ["web.a.example", "web"]);
        assert_eq!(config.candidates("tasks.web"), ["tasks.web", "tasks.web.a.example"]);
        assert_eq!(config.candidates("web."), ["web."]);
    }

    #[test]
    fn hosts_file() {
        let text = "127.0.0.1 localhost\n::1 web\n10.0.0.2 Web.example web # mine\n";
        assert_eq!(find_host(text, "web"), Some(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(find_host(text, "mine"), None);
    }
}
