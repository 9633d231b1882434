//! Who gets through a handshake on loopback, and what those who do not are told.

mod common;

use common::*;
use swarm_pki::{
    ConnectError, Credentials, ExpectedPeer, NodeIdentity, PeerMismatch, Role, RootCa,
};
use tonic::Code;

/// A server that is manager `m1` of cluster `blue`, and its CA.
async fn blue() -> (RootCa, TestServer) {
    let ca = ca("blue");
    let server = serve(&credentials(&ca, Some(identity(&ca, "m1", Role::Manager)))).await;
    (ca, server)
}

/// A certificate of `ca` with names that `RootCa::issue` would not give.
fn forged(ca: &RootCa, unit: &str, organization: &str) -> NodeIdentity {
    let key = rcgen::KeyPair::generate().unwrap();
    let ca_key = rcgen::KeyPair::from_pem(&ca.key_pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(ca.cert().der(), ca_key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "w1");
    params.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, unit);
    params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
    params.not_after = now() + time::Duration::days(1);
    let chain = params.signed_by(&key, &issuer).unwrap().pem() + &ca.cert().to_pem();
    NodeIdentity::from_pem(&chain, &key.serialize_pem()).unwrap()
}

#[tokio::test]
async fn without_certificate_one_is_nobody() {
    let (ca, server) = blue().await;
    let channel = connector(&credentials(&ca, None))
        .connect(&server.addr, ExpectedPeer::Manager)
        .await
        .unwrap();
    assert_eq!(whoami(&channel).await.unwrap(), "nobody");
    let error = call(&channel, "/test.Whoami/Node").await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::Unauthenticated, "a node certificate is required")
    );
    assert_eq!(
        call(&channel, "/test.Whoami/Manager").await.unwrap_err().code(),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn a_worker_may_do_what_workers_may() {
    let (ca, server) = blue().await;
    let worker = credentials(&ca, Some(identity(&ca, "w1", Role::Worker)));
    let channel = connector(&worker).connect(&server.addr, ExpectedPeer::Any).await.unwrap();
    assert_eq!(whoami(&channel).await.unwrap(), "worker w1");
    assert_eq!(call(&channel, "/test.Whoami/Node").await.unwrap(), "w1");
    let error = call(&channel, "/test.Whoami/Manager").await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::PermissionDenied, "node w1 is a worker, not a manager")
    );
}

#[tokio::test]
async fn a_manager_may_do_all() {
    let (ca, server) = blue().await;
    let manager = credentials(&ca, Some(identity(&ca, "m2", Role::Manager)));
    let channel =
        connector(&manager).connect(&server.addr, ExpectedPeer::Node("m1".into())).await.unwrap();
    assert_eq!(whoami(&channel).await.unwrap(), "manager m2");
    assert_eq!(call(&channel, "/test.Whoami/Manager").await.unwrap(), "m2");
}

const OTHER_CA: &str = "it is not from the cluster's CA; if that was rotated while this node was away: use \"swarmctl leave --force\" here, then it can join again";

#[tokio::test]
async fn the_server_refuses_certificates_that_are_no_good() {
    let (ca, server) = blue().await;
    let cases = [
        (expired(&ca, "w1", Role::Worker), "it has expired, or the clocks differ"),
        (identity(&common::ca("red"), "w1", Role::Manager), OTHER_CA),
        // The same names, another key.
        (identity(&common::ca("blue"), "w1", Role::Manager), OTHER_CA),
        (forged(&ca, "swarm-worker", "red"), "its names are not those of a node of the cluster"),
    ];
    for (identity, reason) in cases {
        let error =
            refusal(&credentials(&ca, Some(identity)), &server.addr, ExpectedPeer::Any).await;
        assert_eq!(
            error.to_string(),
            format!("{} refused this node's certificate: {reason}", server.addr)
        );
    }
}

#[tokio::test]
async fn a_lazy_channel_tells_the_reason_in_its_status() {
    let (ca, server) = blue().await;
    let late = credentials(&ca, Some(expired(&ca, "w1", Role::Worker)));
    let channel = connector(&late).connect_lazy(&server.addr, ExpectedPeer::Any).unwrap();
    let error = whoami(&channel).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("refused this node's certificate: it has expired"), "{error}");
    // The same channel works once there is a good certificate.
    late.set_identity(identity(&ca, "w1", Role::Worker));
    assert_eq!(whoami(&channel).await.unwrap(), "worker w1");
}

#[tokio::test]
async fn the_client_refuses_servers_that_are_not_whom_it_wants() {
    let ca = ca("blue");
    let client = credentials(&ca, Some(identity(&ca, "m9", Role::Manager)));
    let with = async |server: NodeIdentity, expected| {
        let server = serve(&credentials(&ca, Some(server))).await;
        refusal(&client, &server.addr, expected).await.to_string().replace(&server.addr, "ADDR")
    };
    assert_eq!(
        with(identity(&ca, "w1", Role::Worker), ExpectedPeer::Manager).await,
        "ADDR is not the node wanted: node w1 is a worker, not a manager"
    );
    assert_eq!(
        with(identity(&ca, "m1", Role::Manager), ExpectedPeer::Node("m2".into())).await,
        "ADDR is not the node wanted: expected node m2, found node m1"
    );
    assert_eq!(
        with(expired(&ca, "m1", Role::Manager), ExpectedPeer::Any).await,
        "the certificate of ADDR has expired"
    );
    for other in ["red", "blue"] {
        assert_eq!(
            with(identity(&common::ca(other), "m1", Role::Manager), ExpectedPeer::Any).await,
            "ADDR belongs to another cluster, or the CA was rotated while this node was away: its certificate is not from a CA that this node trusts"
        );
    }
    assert_eq!(
        with(forged(&ca, "swarm-manager", "red"), ExpectedPeer::Any).await,
        "ADDR is not the node wanted: node w1 belongs to cluster red, not to blue"
    );
}

#[tokio::test]
async fn a_server_without_certificate_says_so() {
    let ca = ca("blue");
    let server = serve(&credentials(&ca, None)).await;
    let error = refusal(&credentials(&ca, None), &server.addr, ExpectedPeer::Any).await;
    assert!(error.to_string().contains("the server has no certificate yet"), "{error}");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let (ca, server) = blue().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.cert().der().clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(
        rustls::crypto::ring::default_provider().into(),
    )
    .with_protocol_versions(&[&rustls::version::TLS12])
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(&server.addr).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let error = connector.connect("swarm-manager".try_into().unwrap(), tcp).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn credentials_need_roots_of_one_cluster() {
    let error = |roots: &[_]| Credentials::new(roots, None).unwrap_err().to_string();
    assert_eq!(error(&[]), "invalid trust: no root certificate");
    let two = [ca("blue").cert().clone(), ca("red").cert().clone()];
    assert_eq!(error(&two), "invalid trust: root certificates of several clusters");
}

#[test]
fn mismatches_can_be_matched_on() {
    let mismatch = PeerMismatch::NotManager { node_id: "w1".into() };
    let error = ConnectError::WrongPeer { addr: "a:1".into(), mismatch };
    let wrapped: tonic::ConnectError = tonic::ConnectError(Box::new(error.clone()));
    assert_eq!(ConnectError::find(&wrapped), Some(&error));
}
