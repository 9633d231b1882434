//! As much of HTTP/1.1 (RFC 9112) as client and server here need: heads, bodies with a length, no chunks.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const MAX_HEAD: u64 = 16 * 1024;
/// Largest body that is kept in memory.
pub(crate) const MAX_BODY: u64 = 16 * 1024 * 1024;

/// First line and the headers that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) first_line: String,
    pub(crate) content_length: Option<u64>,
    pub(crate) close: bool,
    pub(crate) expects_continue: bool,
    pub(crate) chunked: bool,
}

/// Reads one head; `None` at a clean end of the connection.
pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut limited = reader.take(MAX_HEAD);
    let Some(first_line) = read_line(&mut limited)? else {
        return Ok(None);
    };
    let mut head = Head {
        close: first_line.ends_with("HTTP/1.0"),
        first_line,
        content_length: None,
        expects_continue: false,
        chunked: false,
    };
    loop {
        let line = read_line(&mut limited)?
            .ok_or_else(|| invalid("the connection ended within a head"))?;
        if line.is_empty() {
            return Ok(Some(head));
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| invalid("a header without a colon"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let length = value.parse().map_err(|_| invalid("a bad content-length"))?;
                head.content_length = Some(length);
            }
            "connection" => head.close = value.eq_ignore_ascii_case("close"),
            "expect" => head.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            "transfer-encoding" => head.chunked = true,
            _ => {}
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(invalid("the connection ended within a line, or the head is too long"));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map(Some).map_err(|_| invalid("a line that is no UTF-8"))
}

/// Reads a body of known length into memory.
pub(crate) fn read_body(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    if length > MAX_BODY {
        return Err(invalid("a body that is too large"));
    }
    let mut body = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    reader.take(length).read_to_end(&mut body)?;
    if (body.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

/// `count` bytes in which a loss, a swap or a repetition shows: the period, 251, is no power of two.
pub(crate) fn pattern(count: usize) -> Vec<u8> {
    (0..=250u8).cycle().take(count).collect()
}

pub(crate) fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// `http://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no URL of the form http://host[:port][/path]");
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
            None => (authority, 80),
        };
        if host.is_empty()
            || host.contains([' ', '/'])
            || rest.contains("://")
            || path.contains(' ')
        {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port, path: path.to_owned() })
    }
}

/// A client's connection.
pub(crate) struct Connection {
    reader: io::BufReader<TcpStream>,
    host: String,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, url: &Url, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { reader: io::BufReader::new(stream), host: url.host.clone() })
    }

    /// Sends a request; the answer's head, whose status is 200.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
        keep: bool,
    ) -> io::Result<Head> {
        let connection = if keep { "keep-alive" } else { "close" };
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.reader.get_mut().write_all(&request)?;
        let head = read_head(&mut self.reader)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed without an answer")
        })?;
        match head.first_line.split(' ').nth(1) {
            Some("200") => Ok(head),
            _ => Err(invalid(&head.first_line)),
        }
    }

    /// The body that follows `head`: of its length, else to the end of the connection.
    pub(crate) fn body(&mut self, head: &Head, deadline: Instant) -> io::Result<Vec<u8>> {
        if head.chunked {
            return Err(invalid("the answer is chunked, which is not understood here"));
        }
        let mut body = Vec::new();
        let length = head.content_length.unwrap_or(MAX_BODY);
        let mut buffer = [0u8; 16 * 1024];
        while (body.len() as u64) < length {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let wanted =
                usize::try_from(length - body.len() as u64).unwrap_or(usize::MAX).min(buffer.len());
            match self.reader.read(&mut buffer[..wanted])? {
                0 if head.content_length.is_some() => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                0 => break,
                n => body.extend_from_slice(&buffer[..n]),
            }
            if body.len() as u64 > MAX_BODY {
                return Err(invalid("the answer is too large"));
            }
        }
        Ok(body)
    }

    pub(crate) fn stream(&mut self) -> &mut impl Read {
        &mut self.reader
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let mut text: &[u8] =
            b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc";
        let head = read_head(&mut text).unwrap().unwrap();
        assert_eq!(head.first_line, "POST /echo HTTP/1.1");
        assert_eq!(head.content_length, Some(3));
        assert!(head.expects_continue && !head.close);
        assert_eq!(text, b"abc");
        assert!(read_head(&mut &b""[..]).unwrap().is_none());
        assert!(read_head(&mut &b"GET / HTTP/1.1\r\nHost"[..]).is_err());
        let endless = vec![b'a'; 64 * 1024];
        assert!(read_head(&mut endless.as_slice()).is_err());
    }

    #[test]
    fn urls() {
        let url: Url = "http://web:8080/slow?ms=1".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("web", 8080, "/slow?ms=1"));
        let url: Url = "web".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("web", 80, "/"));
        for bad in ["", "http://", "https://web", "web:http", "http:///x"] {
            assert!(bad.parse::<Url>().is_err(), "{bad:?}");
        }
    }
}
