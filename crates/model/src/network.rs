//! Overlay networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{ENCRYPTED_OPTION, Labels, Meta, NetworkId};

/// The only driver.
pub const DEFAULT_DRIVER: &str = "overlay";
/// The driver option that overrides the MTU.
pub const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// A network: what was asked (`spec`) and what was allocated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// The network's id.
    #[serde(rename = "ID")]
    pub id: NetworkId,
    /// Version and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// What the user asked for.
    pub spec: NetworkSpec,
    /// The VXLAN network identifier (24 bits, RFC 7348), no other network's.
    #[serde(rename = "VNI")]
    pub vni: u32,
    /// The subnet in force, from the spec or the pool.
    pub subnet: IpNet,
    /// The gateway: the address of the bridge on every node.
    pub gateway: IpAddr,
    /// The part of the subnet that addresses are taken from.
    #[serde(rename = "IPRange")]
    pub ip_range: IpNet,
}

impl Network {
    /// The MTU the user fixed, if any.
    pub fn mtu_override(&self) -> Option<u32> {
        self.spec.options.get(MTU_OPTION).and_then(|mtu| mtu.parse().ok())
    }

    /// Whether what its tasks send each other from node to node is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.spec.options.contains_key(ENCRYPTED_OPTION)
    }
}

/// What the user asks of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSpec {
    /// The name, unique in the cluster.
    pub name: String,
    /// User labels.
    pub labels: Labels,
    /// `overlay`.
    pub driver: String,
    /// Tasks on internal networks alone have no way out of the swarm.
    pub internal: bool,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// The address configuration asked for.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
}

/// Address configuration, Docker's shape.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    /// `default`.
    pub driver: String,
    /// At most one entry; none means "from the pool".
    pub config: Vec<IpamConfig>,
}

/// One subnet's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    /// The subnet; none means "from the pool".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<IpNet>,
    /// Where addresses are taken from, within the subnet.
    #[serde(rename = "IPRange", skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
    /// The gateway; none means the subnet's first address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// Whether two subnets have an address in common: then one is part of the other. Those of two families never have.
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_overlap_if_one_is_part_of_the_other() {
        let overlap = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(overlap(&one, &other), overlap(&other, &one));
            overlap(&one, &other)
        };
        assert!(overlap("10.0.0.0/8", "10.9.0.0/24") && overlap("fd00::/8", "fd00:9::/64"));
        assert!(!overlap("10.8.0.0/24", "10.9.0.0/24") && !overlap("fd00:8::/64", "fd00:9::/64"));
        assert!(!overlap("0.0.0.0/0", "::/0"), "of two families");
    }
}
