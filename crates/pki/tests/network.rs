//! Peers that are absent, silent, slow, or something else altogether.

mod common;

use common::*;
use std::time::{Duration, Instant};
use swarm_pki::{
    AcceptorOptions, ConnectError, Connector, ConnectorOptions, ExpectedPeer, Role, fetch_root,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

async fn unanswered() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}

#[tokio::test]
async fn nobody_listens() {
    let (listener, addr) = unanswered().await;
    drop(listener);
    let ca = ca("blue");
    let error = refusal(&credentials(&ca, None), &addr, ExpectedPeer::Any).await;
    assert_eq!(error.to_string(), format!("cannot connect to {addr}: connection refused"));
    assert_eq!(fetch_root(&addr, &token(&ca), PATIENCE).await.unwrap_err(), error);
}

#[tokio::test]
async fn a_silent_server_costs_no_more_than_the_time_out() {
    let (_listener, addr) = unanswered().await;
    let ca = ca("blue");
    let after = Duration::from_millis(150);
    let connector =
        Connector::new(credentials(&ca, None), ConnectorOptions { connect_timeout: after });
    let expected = ConnectError::Timeout { addr: addr.clone(), awaited: "TLS handshake", after };
    assert_eq!(connector.connect(&addr, ExpectedPeer::Any).await.unwrap_err(), expected);
    assert_eq!(fetch_root(&addr, &token(&ca), after).await.unwrap_err(), expected);
    assert_eq!(
        expected.to_string(),
        format!("cannot connect to {addr}: no TLS handshake within 150ms")
    );
}

#[tokio::test]
async fn a_server_that_hangs_up_or_speaks_something_else() {
    let (listener, addr) = unanswered().await;
    let ca = ca("blue");
    let client = credentials(&ca, None);
    let hang_up = async { drop(listener.accept().await.unwrap()) };
    let (error, ()) = tokio::join!(refusal(&client, &addr, ExpectedPeer::Any), hang_up);
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error}");
    let http = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tcp
    };
    let (error, _tcp) = tokio::join!(refusal(&client, &addr, ExpectedPeer::Any), http);
    assert_eq!(error.to_string(), format!("{addr} is not a swarm node: it does not speak TLS"));
}

#[tokio::test]
async fn bad_addresses() {
    let ca = ca("blue");
    for addr in [
        "",
        "host",
        "host:",
        ":2377",
        "host:0",
        "host:65536",
        "host:x",
        "a b:1",
        "http://h:1",
        "h/p:1",
        "::1:1",
    ] {
        let error = refusal(&credentials(&ca, None), addr, ExpectedPeer::Any).await;
        assert_eq!(error.to_string(), format!("invalid address {addr:?}: want HOST:PORT"));
    }
}

#[tokio::test]
async fn stuck_handshakes_do_not_block_others() {
    let ca = ca("blue");
    let server_credentials = credentials(&ca, Some(identity(&ca, "m1", Role::Manager)));
    // Stuck clients are never timed out here: others get in beside them, and beyond the bound in
    // place of the oldest.
    let options = AcceptorOptions {
        handshake_timeout: Duration::from_secs(3600),
        max_handshakes: 4,
        ..Default::default()
    };
    let server = serve_with(&server_credentials, options).await;
    let client = connector(&credentials(&ca, Some(identity(&ca, "w1", Role::Worker))));
    let mut stuck = Vec::new();
    for _ in 0..10 {
        let mut tcp = TcpStream::connect(&server.addr).await.unwrap();
        // The start of a TLS record that never ends.
        tcp.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        stuck.push(tcp);
        let connected =
            timeout(PATIENCE, client.connect(&server.addr, ExpectedPeer::Manager)).await.unwrap();
        assert_eq!(whoami(&connected.unwrap()).await.unwrap(), "worker w1");
    }
    // The oldest was dropped, the newest is still waited for.
    let mut byte = [0];
    let oldest = timeout(PATIENCE, stuck[0].read(&mut byte)).await.unwrap();
    assert!(!matches!(oldest, Ok(1..)), "{oldest:?}");
    let newest = stuck[9].try_read(&mut byte).unwrap_err();
    assert_eq!(newest.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_stuck_handshake_times_out() {
    let ca = ca("blue");
    let server_credentials = credentials(&ca, Some(identity(&ca, "m1", Role::Manager)));
    let options =
        AcceptorOptions { handshake_timeout: Duration::from_millis(100), ..Default::default() };
    let server = serve_with(&server_credentials, options).await;
    let mut tcp = TcpStream::connect(&server.addr).await.unwrap();
    assert_eq!(timeout(PATIENCE, tcp.read(&mut [0])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn clients_without_certificate_are_few_and_short() {
    let ca = ca("blue");
    let server_credentials = credentials(&ca, Some(identity(&ca, "m1", Role::Manager)));
    let options = AcceptorOptions {
        max_anonymous: 1,
        anonymous_session: Duration::from_secs(2),
        ..Default::default()
    };
    let server = serve_with(&server_credentials, options).await;
    let nobody = credentials(&ca, None);
    let node = credentials(&ca, Some(identity(&ca, "w1", Role::Worker)));
    let first = connector(&nobody).connect(&server.addr, ExpectedPeer::Any).await.unwrap();
    let error = refusal(&nobody, &server.addr, ExpectedPeer::Any).await;
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error}");
    let channel = connector(&node).connect(&server.addr, ExpectedPeer::Any).await.unwrap();
    let socket = call(&channel, "/test.Whoami/Addr").await.unwrap();

    // The first keeps its channel but not its place: that is over after its time.
    let start = Instant::now();
    while connector(&nobody).connect(&server.addr, ExpectedPeer::Any).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "the first client never leaves");
    }
    drop(first);
    assert_eq!(
        call(&channel, "/test.Whoami/Addr").await.unwrap(),
        socket,
        "a node was limited too"
    );
}

#[tokio::test]
async fn rubbish_harms_nobody() {
    let ca = ca("blue");
    let server = serve(&credentials(&ca, Some(identity(&ca, "m1", Role::Manager)))).await;
    let mut tcp = TcpStream::connect(&server.addr).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Whether an alert or a reset comes back does not matter, as long as the connection ends.
    drop(timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.unwrap());
    let channel =
        connector(&credentials(&ca, None)).connect(&server.addr, ExpectedPeer::Any).await.unwrap();
    assert_eq!(whoami(&channel).await.unwrap(), "nobody");
}
