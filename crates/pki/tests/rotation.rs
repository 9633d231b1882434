//! The root is replaced: nodes that have heard of it, that have not, and that came too late.

mod common;

use common::*;
use swarm_pki::{
    ConnectError, Credentials, ExpectedPeer, NodeIdentity, PkiError, Role, RootCa, fetch_root,
};

/// The root before, and the next one that it has certified.
fn roots() -> (RootCa, RootCa) {
    let (old, new) = (ca("blue"), ca("blue"));
    let cross_signed = old.cross_sign(&new).unwrap();
    (old, new.with_cross_signed(&cross_signed).unwrap())
}

async fn meet(client: &Credentials, server: &Credentials) -> Result<String, ConnectError> {
    let server = serve(server).await;
    let channel = connector(client).connect(&server.addr, ExpectedPeer::Manager).await?;
    Ok(whoami(&channel).await.unwrap())
}

#[tokio::test]
async fn nodes_of_either_root_meet_whether_they_have_heard_of_the_new_one_or_not() {
    let (old, new) = roots();
    let both = [old.cert().clone(), new.cert().clone()];
    let nodes = |id: &str, role| {
        [
            credentials(&old, Some(identity(&old, id, role))),
            trusting(&both, Some(identity(&old, id, role))),
            trusting(&both, Some(identity(&new, id, role))),
            // It has the new certificate, but was cut off before it kept the new root.
            credentials(&old, Some(identity(&new, id, role))),
        ]
    };
    for (c, client) in nodes("w1", Role::Worker).iter().enumerate() {
        for (s, server) in nodes("m1", Role::Manager).iter().enumerate() {
            assert_eq!(meet(client, server).await.as_deref(), Ok("worker w1"), "{c} to {s}");
        }
    }
}

#[tokio::test]
async fn who_trusts_the_new_root_only_refuses_what_the_old_one_issued() {
    let (old, new) = roots();
    let finished = credentials(&new, Some(identity(&new, "m1", Role::Manager)));
    let late = credentials(&old, Some(identity(&old, "w1", Role::Manager)));
    let refused = meet(&late, &finished).await.unwrap_err();
    assert!(refused.to_string().contains("swarmctl leave --force"), "{refused}");
    let refused = meet(&finished, &late).await.unwrap_err();
    assert!(matches!(refused, ConnectError::UntrustedCa { .. }), "{refused}");
    // Others that have finished, some of them without the certificate of the overlap.
    let plain = RootCa::from_pem(&new.cert().to_pem(), &new.key_pem()).unwrap();
    let worker = credentials(&new, Some(identity(&plain, "w2", Role::Worker)));
    assert_eq!(meet(&worker, &finished).await.as_deref(), Ok("worker w2"));
}

#[tokio::test]
async fn a_token_of_the_new_root_joins_and_one_of_the_old_does_not() {
    let (old, new) = roots();
    let both = [old.cert().clone(), new.cert().clone()];
    let manager = trusting(&both, Some(identity(&new, "m1", Role::Manager)));
    let server = serve(&manager).await;
    assert_eq!(&fetch_root(&server.addr, &token(&new), PATIENCE).await.unwrap(), new.cert());
    let refused = fetch_root(&server.addr, &token(&old), PATIENCE).await.unwrap_err();
    assert_eq!(refused, ConnectError::CaMismatch { addr: server.addr.clone() });
}

#[test]
fn a_certificate_tells_its_root() {
    let (old, new) = roots();
    assert_ne!(old.cert().issuer(), new.cert().issuer());
    assert_eq!(old.cert().issuer().subject, new.cert().issuer().subject, "keys tell them apart");
    for ca in [&old, &new] {
        let identity = identity(ca, "w1", Role::Worker);
        assert_eq!(identity.issuer(), Some(ca.cert().issuer()));
        let dir = tempfile::tempdir().unwrap();
        identity.save(dir.path()).unwrap();
        let loaded = NodeIdentity::load(dir.path(), now()).unwrap().unwrap();
        assert_eq!(loaded.issuer(), Some(ca.cert().issuer()), "also over a restart");
    }
}

#[test]
fn only_the_next_root_of_the_same_cluster_is_certified() {
    let (old, new) = roots();
    assert!(matches!(old.cross_sign(&ca("red")), Err(PkiError::Trust(_))));
    let of_another = old.cross_sign(&ca("blue")).unwrap();
    assert!(matches!(new.with_cross_signed(&of_another), Err(PkiError::KeyMismatch)));
}

#[tokio::test]
async fn changes_are_heard() {
    let (old, new) = roots();
    let credentials = credentials(&old, None);
    let mut changes = credentials.changes();
    assert!(!changes.has_changed().unwrap());
    credentials.set_roots(&[new.cert().clone()]).unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    credentials.clone().set_identity(identity(&new, "w1", Role::Worker));
    assert!(changes.has_changed().unwrap());
}
