//! What is issued, what is refused, and what is kept in files.

mod common;

use common::*;
use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SanType};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use swarm_pki::{
    CA_FILE, NODE_CERT_VALIDITY, NODE_FILE, NodeIdentity, Role, RootCa, RootCert, load_roots,
    new_key_and_csr, save_roots,
};
use tempfile::tempdir;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

fn at() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

#[test]
fn an_issued_certificate_says_what_the_issuer_chose() {
    let ca = RootCa::generate("blue", at()).unwrap();
    // A request that claims to be a manager, and a CA.
    let key = KeyPair::generate().unwrap();
    let mut claims = CertificateParams::default();
    claims.distinguished_name.push(DnType::CommonName, "m1");
    claims.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-manager");
    claims.subject_alt_names = vec![SanType::DnsName("swarm-manager".try_into().unwrap())];
    claims.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = claims.serialize_request(&key).unwrap().pem().unwrap();

    let chain = ca.issue(&csr, "w1", Role::Worker, at(), NODE_CERT_VALIDITY).unwrap();
    let identity = NodeIdentity::from_pem(&chain, &key.serialize_pem()).unwrap();
    assert_eq!(
        (identity.node_id(), identity.role(), identity.cluster_id()),
        ("w1", Role::Worker, "blue")
    );
    assert_eq!(identity.not_before(), at() - Duration::hours(1));
    assert_eq!(identity.not_after(), at() + Duration::days(90));

    let ders: Vec<_> =
        pem::parse_many(&chain).unwrap().into_iter().map(pem::Pem::into_contents).collect();
    assert_eq!(ders.len(), 2);
    assert_eq!(ders[1], ca.cert().der().as_ref());
    let (_, leaf) = X509Certificate::from_der(&ders[0]).unwrap();
    let (_, root) = X509Certificate::from_der(&ders[1]).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
    assert!(!leaf.is_ca());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth);
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names, &[GeneralName::DNSName("w1"), GeneralName::DNSName("swarm-worker")]);
}

#[test]
fn a_certificate_does_not_outlive_its_root() {
    let ca = RootCa::generate("blue", at()).unwrap();
    let identity = identity_at(&ca, "w1", Role::Worker, at(), Duration::days(100 * 365));
    assert_eq!(identity.not_after(), at() + Duration::days(20 * 365));
}

#[test]
fn bad_requests_are_refused() {
    let ca = ca("blue");
    let refuse = |csr: &str, id: &str| {
        ca.issue(csr, id, Role::Worker, now(), NODE_CERT_VALIDITY).unwrap_err().to_string()
    };
    let (_, csr) = new_key_and_csr().unwrap();
    for id in ["", "a b", "A", "-a", "a.b", "é", &"x".repeat(64)] {
        let expected = format!("invalid node id {id:?}: want 1 to 63 of a-z, 0-9 and inner '-'");
        assert_eq!(refuse(&csr, id), expected);
    }
    assert!(refuse("rubbish", "w1").starts_with("refused the certificate request: "));

    // The key of one, the signature of another.
    let mut der = pem::parse(&csr).unwrap().into_contents();
    *der.last_mut().unwrap() ^= 1;
    let tampered = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
    assert!(refuse(&tampered, "w1").contains("signature"), "{}", refuse(&tampered, "w1"));

    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let csr = CertificateParams::default().serialize_request(&ed25519).unwrap().pem().unwrap();
    assert_eq!(refuse(&csr, "w1"), "refused the certificate request: its key is not ECDSA P-256");
}

#[test]
fn a_ca_survives_its_pem() {
    let ca = ca("blue");
    let again = RootCa::from_pem(&ca.cert().to_pem(), &ca.key_pem()).unwrap();
    assert_eq!((again.cert(), again.digest()), (ca.cert(), ca.digest()));
    let issued = identity(&again, "w1", Role::Worker);
    assert_eq!(issued.cluster_id(), "blue");

    let error = RootCa::from_pem(&ca.cert().to_pem(), &common::ca("blue").key_pem()).unwrap_err();
    assert_eq!(error.to_string(), "the private key does not match the certificate");
    let error = RootCa::from_pem(&ca.cert().to_pem(), "rubbish").unwrap_err();
    assert!(error.to_string().starts_with("invalid private key: "), "{error}");
    let leaf = pem::encode(&pem::parse(issued.chain_pem()).unwrap());
    assert_eq!(
        RootCert::from_pem(&leaf).unwrap_err().to_string(),
        "invalid certificate: not that of a CA"
    );
    let error = RootCa::generate("", now()).unwrap_err();
    assert!(error.to_string().starts_with("invalid cluster id \"\""), "{error}");
    assert!(!format!("{ca:?}").contains("PRIVATE"), "Debug shows the key");
}

#[test]
fn an_identity_is_saved_whole_and_private() {
    let ca = ca("blue");
    let dir = tempdir().unwrap();
    let dir = dir.path().join("certificates");
    assert!(NodeIdentity::load(&dir, now()).unwrap().is_none());
    for id in ["w1", "w2"] {
        let identity = identity(&ca, id, Role::Worker);
        identity.save(&dir).unwrap();
        let loaded = NodeIdentity::load(&dir, now()).unwrap().unwrap();
        assert_eq!(loaded.subject(), identity.subject());
        assert_eq!(
            (loaded.not_before(), loaded.not_after()),
            (identity.not_before(), identity.not_after())
        );
        assert_eq!(loaded.key_pem().replace('\r', ""), identity.key_pem());
    }
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join(NODE_FILE))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "a temporary file is left");

    assert!(load_roots(&dir).unwrap().is_none());
    let roots = [ca.cert().clone(), common::ca("blue").cert().clone()];
    save_roots(&dir, &roots).unwrap();
    assert_eq!(load_roots(&dir).unwrap().unwrap(), roots);
}

#[test]
fn a_leftover_temporary_file_does_not_leak_the_key() {
    let dir = tempdir().unwrap();
    let leftover = dir.path().join(format!(".{NODE_FILE}.new"));
    fs::write(&leftover, "x".repeat(100_000)).unwrap();
    fs::set_permissions(&leftover, fs::Permissions::from_mode(0o644)).unwrap();
    identity(&ca("blue"), "w1", Role::Worker).save(dir.path()).unwrap();
    let metadata = fs::metadata(dir.path().join(NODE_FILE)).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(NodeIdentity::load(dir.path(), now()).unwrap().is_some());
}

#[test]
fn loading_names_the_file_and_the_reason() {
    let ca = ca("blue");
    let dir = tempdir().unwrap();
    let file = dir.path().join(NODE_FILE);
    let load = |text: &str| {
        fs::write(&file, text).unwrap();
        let error = NodeIdentity::load(dir.path(), now()).unwrap_err().to_string();
        error.strip_prefix(&format!("cannot use {}: ", file.display())).expect(&error).to_owned()
    };
    let good = identity(&ca, "w1", Role::Worker);
    let other = identity(&ca, "w1", Role::Worker);
    let late = expired(&ca, "w1", Role::Worker);
    let early = identity_at(&ca, "w1", Role::Worker, now() + Duration::days(1), NODE_CERT_VALIDITY);

    let mixed = other.key_pem().to_owned() + good.chain_pem();
    assert_eq!(load(&mixed), "the private key does not match the certificate");
    let expected = format!("the certificate expired at {}", late.not_after());
    assert_eq!(load(&(late.key_pem().to_owned() + late.chain_pem())), expected);
    let error = load(&(early.key_pem().to_owned() + early.chain_pem()));
    assert!(error.starts_with("the certificate is not valid before "), "{error}");
    assert_eq!(load(""), "invalid private key: want one PEM private key, found 0");
    assert_eq!(load(good.chain_pem()), "invalid private key: want one PEM private key, found 0");
    assert_eq!(load(good.key_pem()), "invalid certificate: no PEM certificate found");
    let whole = good.key_pem().to_owned() + good.chain_pem();
    assert!(load(&whole[..whole.len() / 2]).starts_with("invalid certificate: "));
    let bad_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned()
        + good.chain_pem();
    assert!(load(&bad_key).starts_with("invalid private key: "));

    fs::write(dir.path().join(CA_FILE), "rubbish").unwrap();
    let error = load_roots(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("ca.pem: invalid certificate: no PEM certificate found"), "{error}");
}

#[test]
fn renewal_is_spread_over_the_middle_of_life() {
    let ca = RootCa::generate("blue", at()).unwrap();
    let identity =
        identity_at(&ca, "w1", Role::Worker, at() + Duration::hours(1), Duration::hours(99));
    assert_eq!(identity.renew_at(0.0), at() + Duration::hours(50));
    assert_eq!(identity.renew_at(1.0), at() + Duration::hours(80));
}

proptest! {
    #[test]
    fn renewal_lies_between_50_and_80_percent(spread: f64, days in 1_i64..3650) {
        let ca = RootCa::generate("blue", at()).unwrap();
        let identity = identity_at(&ca, "w1", Role::Worker, at(), Duration::days(days));
        prop_assume!(!spread.is_nan());
        let life = identity.not_after() - identity.not_before();
        let passed = (identity.renew_at(spread) - identity.not_before()) / life;
        prop_assert!((0.4999..0.8001).contains(&passed), "{}", passed);
    }

    #[test]
    fn corrupt_files_give_errors_not_panics(at in 0_usize..1200, byte: u8) {
        let dir = tempdir().unwrap();
        identity(&ca("blue"), "w1", Role::Worker).save(dir.path()).unwrap();
        let path = dir.path().join(NODE_FILE);
        let mut bytes = fs::read(&path).unwrap();
        let index = at % bytes.len();
        bytes[index] = byte;
        fs::write(&path, &bytes).unwrap();
        if let Err(error) = NodeIdentity::load(dir.path(), now()) {
            let text = error.to_string();
            prop_assert!(text.contains(NODE_FILE) && !text.contains('\n'), "{}", text);
        }
    }
}
