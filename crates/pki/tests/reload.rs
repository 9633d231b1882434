//! Certificates and trust change under running connections.

mod common;

use common::*;
use std::time::{Duration, Instant};
use swarm_pki::{ConnectError, ExpectedPeer, Role};

const ADDR: &str = "/test.Whoami/Addr";

#[tokio::test]
async fn a_new_server_certificate_drops_no_session() {
    let ca = ca("blue");
    let server_credentials = credentials(&ca, Some(identity(&ca, "m1", Role::Manager)));
    let server = serve(&server_credentials).await;
    let client = connector(&credentials(&ca, Some(identity(&ca, "w1", Role::Worker))));
    let old = client.connect(&server.addr, ExpectedPeer::Node("m1".into())).await.unwrap();
    let socket = call(&old, ADDR).await.unwrap();

    server_credentials.set_identity(identity(&ca, "m2", Role::Manager));
    let new = client.connect(&server.addr, ExpectedPeer::Node("m2".into())).await.unwrap();
    assert_ne!(call(&new, ADDR).await.unwrap(), socket);
    assert_eq!(call(&old, ADDR).await.unwrap(), socket, "the old session was replaced");
    let error = client.connect(&server.addr, ExpectedPeer::Node("m1".into())).await.unwrap_err();
    assert!(matches!(error, ConnectError::WrongPeer { .. }), "{error}");
}

#[tokio::test]
async fn a_new_client_certificate_is_presented_next_time() {
    let ca = ca("blue");
    let server = serve(&credentials(&ca, Some(identity(&ca, "m1", Role::Manager)))).await;
    let client_credentials = credentials(&ca, Some(identity(&ca, "n1", Role::Worker)));
    let client = connector(&client_credentials);
    let old = client.connect(&server.addr, ExpectedPeer::Any).await.unwrap();
    assert_eq!(whoami(&old).await.unwrap(), "worker n1");

    client_credentials.set_identity(identity(&ca, "n1", Role::Manager));
    let new = client.connect(&server.addr, ExpectedPeer::Any).await.unwrap();
    assert_eq!(whoami(&new).await.unwrap(), "manager n1");
    assert_eq!(whoami(&old).await.unwrap(), "worker n1");
}

#[tokio::test]
async fn the_ca_can_be_replaced_step_by_step() {
    let (first, second) = (ca("blue"), ca("blue"));
    let both = [first.cert().clone(), second.cert().clone()];
    let server_credentials = credentials(&first, Some(identity(&first, "m1", Role::Manager)));
    let server = serve(&server_credentials).await;
    let early = trusting(&both, Some(identity(&first, "w1", Role::Worker)));
    let late = trusting(&both, Some(identity(&second, "w2", Role::Worker)));

    let running = connector(&early).connect(&server.addr, ExpectedPeer::Any).await.unwrap();
    assert_eq!(whoami(&running).await.unwrap(), "worker w1");
    assert!(matches!(
        refusal(&late, &server.addr, ExpectedPeer::Any).await,
        ConnectError::Refused { .. }
    ));

    server_credentials.set_roots(&both).unwrap();
    server_credentials.set_identity(identity(&second, "m1", Role::Manager));
    for (credentials, name) in [(&early, "worker w1"), (&late, "worker w2")] {
        let channel =
            connector(credentials).connect(&server.addr, ExpectedPeer::Any).await.unwrap();
        assert_eq!(whoami(&channel).await.unwrap(), name);
    }

    server_credentials.set_roots(&both[1..]).unwrap();
    assert!(matches!(
        refusal(&early, &server.addr, ExpectedPeer::Any).await,
        ConnectError::Refused { .. }
    ));
    assert_eq!(whoami(&running).await.unwrap(), "worker w1");
}

#[tokio::test]
async fn a_session_ends_with_its_certificate_and_goes_on_with_the_next() {
    let ca = ca("blue");
    let server = serve(&credentials(&ca, Some(identity(&ca, "m1", Role::Manager)))).await;
    // Certificates count in whole seconds, so this one has between three and four left.
    let short = identity_at(&ca, "w1", Role::Worker, now(), time::Duration::seconds(4));
    let client_credentials = credentials(&ca, Some(short));
    let channel =
        connector(&client_credentials).connect(&server.addr, ExpectedPeer::Any).await.unwrap();
    assert_eq!(whoami(&channel).await.unwrap(), "worker w1");

    let start = Instant::now();
    while whoami(&channel).await.is_ok() {
        assert!(start.elapsed() < PATIENCE, "the certificate has expired, the session goes on");
        tokio::time::sleep(Duration::from_millis(20)).await; // before the next call
    }
    client_credentials.set_identity(identity(&ca, "w1", Role::Worker));
    // A request may still meet the end of the old connection.
    while whoami(&channel).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "the channel does not recover");
    }
}
