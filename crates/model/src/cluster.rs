//! The cluster itself: its settings, CA and join tokens.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::{ClusterId, FeatureLevel, Meta};

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
    /// What all its nodes speak: nothing above it is replicated, or sent to a node.
    #[serde(default)]
    pub feature_level: FeatureLevel,
    /// What the user chose at `init`.
    pub spec: ClusterSpec,
    /// The certificate authority; managers alone ever see it.
    pub root_ca: RootCaDocument,
    /// The secrets of the join tokens.
    pub join_tokens: JoinTokens,
    /// What managers lock themselves with.
    #[serde(default)]
    pub manager_lock: ManagerLock,
    /// The authority that is to follow, while nodes change over to it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root_rotation: Option<RootRotation>,
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

impl Cluster {
    /// The authority that issues certificates now.
    pub fn issuing_ca(&self) -> &RootCaDocument {
        self.root_rotation.as_ref().map_or(&self.root_ca, |rotation| &rotation.root_ca)
    }

    /// The root certificates that nodes are to trust now, PEM.
    pub fn trusted_roots(&self) -> String {
        let next = self.root_rotation.as_ref().map(|rotation| rotation.root_ca.cert_pem.as_str());
        self.root_ca.cert_pem.clone() + next.unwrap_or_default()
    }
}

/// The next authority of a cluster. It issues all certificates from now on; nodes trust both until each has one of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootRotation {
    /// Its certificate and key.
    pub root_ca: RootCaDocument,
    /// Its certificate as signed by the authority before: who trusts only that one accepts what this one issues.
    pub cross_signed_pem: String,
    /// Its key, base64 of DER, as nodes tell it in [`crate::TlsInfo`].
    pub issuer_public_key: String,
    /// The revision that began it.
    pub revision: u64,
}

/// Settings of the cluster, chosen at `init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClusterSpec {
    /// The pools that networks without `--subnet` take theirs from.
    pub default_addr_pool: Vec<IpNet>,
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
            default_addr_pool: vec![
                Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 8).into(),
            ],
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
