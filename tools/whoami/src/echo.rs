//! `whoami echo`: sends bytes there and back and compares them.

use crate::args::{Args, Failure};
use crate::http::{Connection, MAX_BODY, Url, pattern};
use crate::lookup;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn run(mut args: Args) -> Result<(), Failure> {
    let count = args.option::<u64>("-n")?.unwrap_or(1);
    let timeout = args.seconds("--timeout")?.unwrap_or(DEFAULT_TIMEOUT);
    let [url, size] = args.words("URL BYTES")?;
    let url: Url = url.parse().map_err(Failure::Usage)?;
    let size =
        size.parse::<usize>().ok().filter(|size| *size as u64 <= MAX_BODY).ok_or_else(|| {
            Failure::Usage(format!("{size:?} is no number of bytes up to {MAX_BODY}"))
        })?;
    let sent = pattern(size);
    for _ in 0..count {
        let received = echo(&url, &sent, timeout).map_err(Failure::failed)?;
        if let Some(difference) = difference(&sent, &received) {
            return Err(Failure::failed(difference));
        }
    }
    println!("{size} bytes there and back, {count} times, intact");
    Ok(())
}

fn echo(url: &Url, sent: &[u8], timeout: Duration) -> io::Result<Vec<u8>> {
    let address = SocketAddr::from((lookup::address(&url.host)?, url.port));
    let mut connection = Connection::open(address, url, timeout)?;
    let path = format!("{}/echo", url.path.trim_end_matches('/').trim_end_matches("/echo"));
    let head = connection.request("POST", &path, sent, false)?;
    connection.body(&head, Instant::now() + timeout)
}

/// Where two byte strings part, in words.
fn difference(sent: &[u8], received: &[u8]) -> Option<String> {
    if sent == received {
        return None;
    }
    let at = sent.iter().zip(received).position(|(a, b)| a != b);
    Some(match at {
        Some(at) => format!("byte {at} of {} came back different", sent.len()),
        None => format!("{} of {} bytes came back", received.len(), sent.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_located() {
        assert_eq!(difference(b"abc", b"abc"), None);
        assert_eq!(difference(b"abc", b"abd").unwrap(), "byte 2 of 3 came back different");
        assert_eq!(difference(b"abc", b"ab").unwrap(), "2 of 3 bytes came back");
    }
}
