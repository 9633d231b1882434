//! The cluster itself: its settings, CA and join tokens.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{ClusterId, Meta};

/// The one object of its kind: what `init` creates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cluster {
    /// The cluster's id, the `O` of every node certificate.
    #[serde(rename = "ID")]
    pub id: ClusterId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// What the user chose at `init`.
    pub spec: ClusterSpec,
    /// The certificate authority; managers alone ever see it.
    pub root_ca: RootCaDocument,
    /// The secrets of the join tokens.
    pub join_tokens: JoinTokens,
    /// What managers lock themselves with.
    #[serde(default)]
    pub manager_lock: ManagerLock,
}

/// The unlock key of the managers; managers alone ever see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManagerLock {
    /// None if managers are not locked.
    pub unlock_key: Option<UnlockKeyText>,
    /// The revision that set it; 0 if nothing ever did.
    pub revision: u64,
}

/// An unlock key, as `SWMKEY-1-...`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnlockKeyText(pub String);

impl std::fmt::Debug for UnlockKeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnlockKeyText(..)")
    }
}

/// Settings of the cluster, chosen at `init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClusterSpec {
    /// The pools that networks without `--subnet` take theirs from.
    pub default_addr_pool: Vec<Ipv4Net>,
    /// The prefix length of a subnet from the pool.
    pub subnet_size: u8,
    /// The UDP port of VXLAN (RFC 7348).
    pub data_path_port: u16,
    /// How many finished tasks are kept for each slot.
    pub task_history_retention_limit: u32,
    /// How managers keep their state.
    pub encryption_config: EncryptionConfig,
}

/// How managers keep their state on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EncryptionConfig {
    /// Whether a manager that restarts needs the unlock key.
    pub auto_lock_managers: bool,
}

impl Default for ClusterSpec {
    fn default() -> ClusterSpec {
        ClusterSpec {
            default_addr_pool: vec![Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 8)],
            subnet_size: 24,
            data_path_port: 4789,
            task_history_retention_limit: 5,
            encryption_config: EncryptionConfig::default(),
        }
    }
}

/// The root certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootCaDocument {
    /// The self-signed root certificate.
    pub cert_pem: String,
    /// Its private key (PKCS #8).
    pub key_pem: String,
}

impl std::fmt::Debug for RootCaDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootCaDocument(..)")
    }
}

/// The join tokens, as `SWMTKN-1-...`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct JoinTokens {
    /// Joins as a worker.
    pub worker: String,
    /// Joins as a manager.
    pub manager: String,
}

impl std::fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinTokens(..)")
    }
}
