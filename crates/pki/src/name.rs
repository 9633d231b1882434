//! Names in node certificates: CN is the node id, OU the role, O the cluster id.

use crate::PkiError;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::fmt;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// What a node is allowed to be; the OU of its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes part in Raft, issues certificates, runs tasks.
    Manager,
    /// Runs tasks only.
    Worker,
}

impl Role {
    /// The organizational unit that stands for the role, with Docker Swarm's words.
    pub fn organizational_unit(self) -> &'static str {
        match self {
            Role::Manager => "swarm-manager",
            Role::Worker => "swarm-worker",
        }
    }

    fn from_organizational_unit(unit: &str) -> Option<Role> {
        [Role::Manager, Role::Worker].into_iter().find(|role| role.organizational_unit() == unit)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Manager => "manager",
            Role::Worker => "worker",
        })
    }
}

/// Who a verified certificate says its holder is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// The node's id (CN).
    pub node_id: String,
    /// Its role (OU).
    pub role: Role,
    /// The cluster that issued the certificate (O).
    pub cluster_id: String,
}

/// Whom a client is willing to talk to, beyond "a node of this cluster".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedPeer {
    /// Any manager.
    Manager,
    /// Any node.
    Any,
    /// The node with this id, whatever its role.
    Node(String),
}

impl ExpectedPeer {
    pub(crate) fn check(&self, peer: &PeerIdentity) -> Result<(), PeerMismatch> {
        match self {
            ExpectedPeer::Manager if peer.role != Role::Manager => {
                Err(PeerMismatch::NotManager { node_id: peer.node_id.clone() })
            }
            ExpectedPeer::Node(id) if *id != peer.node_id => {
                Err(PeerMismatch::OtherNode { expected: id.clone(), found: peer.node_id.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// A certificate that is sound in itself but not from whom it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerMismatch {
    /// A manager was expected.
    #[error("node {node_id} is a worker, not a manager")]
    NotManager {
        /// The node that answered.
        node_id: String,
    },
    /// Another node answers at this address.
    #[error("expected node {expected}, found node {found}")]
    OtherNode {
        /// The node wanted.
        expected: String,
        /// The node that answered.
        found: String,
    },
    /// The certificate names another cluster.
    #[error("node {node_id} belongs to cluster {found}, not to {expected}")]
    OtherCluster {
        /// The node that answered.
        node_id: String,
        /// This cluster.
        expected: String,
        /// The cluster in the certificate.
        found: String,
    },
    /// The certificate's names are not those of a node certificate.
    #[error("not a node certificate: {reason}")]
    NotANode {
        /// What is wrong with it.
        reason: String,
    },
}

/// What a node certificate (without its signature, which the caller checks) says.
pub(crate) struct Leaf {
    pub(crate) identity: PeerIdentity,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    /// The subject's public key: for P-256 the uncompressed point, 65 bytes.
    pub(crate) public_key: Vec<u8>,
}

/// Parses a node certificate.
pub(crate) fn parse_leaf(der: &CertificateDer<'_>) -> Result<Leaf, PkiError> {
    let cert = parse_x509(der)?;
    let subject = cert.subject();
    let unit = only(subject.iter_organizational_unit(), "OU")?;
    let identity = PeerIdentity {
        node_id: only(subject.iter_common_name(), "CN")?,
        role: Role::from_organizational_unit(&unit)
            .ok_or_else(|| PkiError::Certificate(format!("unknown role {unit:?}")))?,
        cluster_id: organization(subject)?,
    };
    Ok(Leaf {
        identity,
        not_before: cert.validity().not_before.to_datetime(),
        not_after: cert.validity().not_after.to_datetime(),
        public_key: cert.public_key().subject_public_key.data.to_vec(),
    })
}

/// Parses one DER certificate that must fill all of `der`.
pub(crate) fn parse_x509<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PkiError> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        Ok(_) => Err(PkiError::Certificate("bytes after its end".into())),
        Err(error) => Err(PkiError::Certificate(format!("not X.509: {error}"))),
    }
}

/// The cluster id in a subject.
pub(crate) fn organization(subject: &X509Name<'_>) -> Result<String, PkiError> {
    only(subject.iter_organization(), "O")
}

/// The value of an attribute that must be there exactly once: with two, two readers could pick
/// different ones.
fn only<'a>(
    mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
    what: &str,
) -> Result<String, PkiError> {
    let (first, second) = (values.next(), values.next());
    match (first.and_then(|value| value.as_str().ok()), second) {
        (Some(value), None) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(PkiError::Certificate(format!("its subject has no single {what}"))),
    }
}

/// Checks a node id: it becomes a CN and a DNS name, so it must be a DNS label.
pub(crate) fn check_node_id(id: &str) -> Result<(), PkiError> {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let sound = !id.is_empty() && id.len() <= 63 && id.chars().all(label);
    if sound && !id.starts_with('-') && !id.ends_with('-') {
        return Ok(());
    }
    Err(PkiError::InvalidName {
        what: "node id",
        value: id.to_owned(),
        reason: "want 1 to 63 of a-z, 0-9 and inner '-'",
    })
}

/// Checks a cluster id: it becomes an O, at most 64 characters (RFC 5280, ub-organization-name).
pub(crate) fn check_cluster_id(id: &str) -> Result<(), PkiError> {
    if !id.is_empty() && id.len() <= 64 && id.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(());
    }
    Err(PkiError::InvalidName {
        what: "cluster id",
        value: id.to_owned(),
        reason: "want 1 to 64 printable ASCII characters without spaces",
    })
}
