//! Who answered whom: what the server says over HTTP and UDP, and how the client reads it.

use crate::{json, sys};
use std::net::SocketAddr;

/// The HTTP body.
pub(crate) fn http_body(own: SocketAddr, client: SocketAddr) -> String {
    let mut body = json::object([
        ("hostname", json::string(&sys::hostname())),
        ("address", json::string(&own.to_string())),
        ("client", json::string(&client.to_string())),
    ]);
    body.push('\n');
    body
}

/// The UDP answer.
pub(crate) fn udp_line(own: SocketAddr, client: SocketAddr) -> String {
    format!("{} {own} {client}\n", sys::hostname())
}

/// Hostname and client address (without port) out of an HTTP body; `None` when it is another server's.
pub(crate) fn parse_http(body: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(body).ok()?;
    let client: SocketAddr = json::string_field(text, "client")?.parse().ok()?;
    Some((json::string_field(text, "hostname")?.to_owned(), client.ip().to_string()))
}

/// The same out of a UDP answer.
pub(crate) fn parse_udp(answer: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(answer).ok()?;
    let mut words = text.split_whitespace();
    let hostname = words.next()?.to_owned();
    let client: SocketAddr = words.nth(1)?.parse().ok()?;
    Some((hostname, client.ip().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_answers_are_read_back() {
        let (own, client) = ("10.0.0.2:80".parse().unwrap(), "10.0.0.9:4711".parse().unwrap());
        let expected = Some((sys::hostname(), "10.0.0.9".to_owned()));
        assert_eq!(parse_http(http_body(own, client).as_bytes()), expected);
        assert_eq!(parse_udp(udp_line(own, client).as_bytes()), expected);
        assert_eq!(parse_http(b"<html>"), None);
        assert_eq!(parse_udp(b"x"), None);
    }
}
