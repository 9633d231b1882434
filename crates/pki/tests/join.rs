//! A node that has nothing but a join token and an address.

mod common;

use common::*;
use swarm_pki::{
    ConnectError, Credentials, ExpectedPeer, NODE_CERT_VALIDITY, NodeIdentity, Role, fetch_root,
    new_key_and_csr,
};

#[tokio::test]
async fn from_token_to_certificate() {
    let ca = ca("blue");
    let server = serve(&credentials(&ca, Some(identity(&ca, "m1", Role::Manager)))).await;
    let root = fetch_root(&server.addr, &token(&ca), PATIENCE).await.unwrap();
    assert_eq!(&root, ca.cert());
    assert_eq!(root.cluster_id(), "blue");

    let credentials = Credentials::new(&[root], None).unwrap();
    let channel =
        connector(&credentials).connect(&server.addr, ExpectedPeer::Manager).await.unwrap();
    assert_eq!(whoami(&channel).await.unwrap(), "nobody");

    let (key, csr) = new_key_and_csr().unwrap();
    let chain = ca.issue(&csr, "w1", Role::Worker, now(), NODE_CERT_VALIDITY).unwrap();
    credentials.set_identity(NodeIdentity::from_pem(&chain, &key).unwrap());
    let channel =
        connector(&credentials).connect(&server.addr, ExpectedPeer::Manager).await.unwrap();
    assert_eq!(whoami(&channel).await.unwrap(), "worker w1");
}

#[tokio::test]
async fn the_token_of_another_cluster() {
    let (blue, red) = (ca("blue"), ca("red"));
    let server = serve(&credentials(&blue, Some(identity(&blue, "m1", Role::Manager)))).await;
    let error = fetch_root(&server.addr, &token(&red), PATIENCE).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the CA of {} does not match the join token: it is another swarm's, or the CA was rotated since; get the current token on a manager with: swarmctl join-token worker",
            server.addr
        )
    );
}

#[tokio::test]
async fn a_worker_cannot_be_joined_through() {
    let ca = ca("blue");
    let server = serve(&credentials(&ca, Some(identity(&ca, "w1", Role::Worker)))).await;
    let error = fetch_root(&server.addr, &token(&ca), PATIENCE).await.unwrap_err();
    let expected =
        format!("{} is not the node wanted: node w1 is a worker, not a manager", server.addr);
    assert_eq!(error.to_string(), expected);
}

/// The root certificate is no secret: an impostor can send it along with a certificate of its own.
#[tokio::test]
async fn the_right_root_does_not_excuse_a_wrong_certificate() {
    for name in ["red", "blue"] {
        let (real, impostor) = (ca("blue"), ca(name));
        let own = identity(&impostor, "m1", Role::Manager);
        let leaf_end = own.chain_pem().find("-----BEGIN CERTIFICATE-----\n").unwrap();
        let second = own.chain_pem()[leaf_end + 1..].find("-----BEGIN CERTIFICATE-----").unwrap()
            + leaf_end
            + 1;
        let chain = own.chain_pem()[..second].to_owned() + &real.cert().to_pem();
        let identity = NodeIdentity::from_pem(&chain, own.key_pem()).unwrap();
        let server = serve(&credentials(&impostor, Some(identity))).await;
        let error = fetch_root(&server.addr, &token(&real), PATIENCE).await.unwrap_err();
        assert_eq!(error, ConnectError::UntrustedCa { addr: server.addr.clone() });
    }
}
