//! The desired state of one network on this node.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use swarm_family::{NotServed, ipv4_addr, ipv4_net};

use crate::{Error, names};

/// Largest VXLAN network identifier (RFC 7348: 24 bits). The largest of all is kept for the probe at start.
const MAX_VNI: u32 = (1 << 24) - 2;
/// Smallest MTU every IPv4 host must take (RFC 791), and the largest of the VXLAN driver.
const MTUS: std::ops::RangeInclusive<u32> = 576..=65535;

/// One overlay network, as this node should have it: with prefixes `N` and addresses `A`, which are of either family
/// until the network was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network<N = IpNet, A = IpAddr> {
    /// Network id; names the namespace file.
    pub id: String,
    /// VXLAN network identifier, 1 to 16,777,214, the same on all nodes.
    pub vni: u32,
    /// UDP port of its VXLAN packets, the same on all nodes.
    pub port: u16,
    /// The network's addresses.
    pub subnet: N,
    /// Address of the bridge, the same on all nodes.
    pub gateway: A,
    /// MTU of the tasks' interfaces, in bytes.
    pub mtu: u32,
    /// Service addresses, put on the bridge as /32.
    pub vips: Vec<A>,
    /// Addresses of this node's tasks.
    pub local: Vec<A>,
    /// Tasks on other nodes.
    pub remote: Vec<Remote<A>>,
}

/// A network that the kernel would take and carry.
pub(crate) type Ipv4Network = Network<Ipv4Net, Ipv4Addr>;

/// A task on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Remote<A = IpAddr> {
    /// The task's address on this network.
    pub addr: A,
    /// The data-path address of the task's node.
    pub vtep: IpAddr,
}

impl Network {
    /// Rejects what the kernel would take but not carry.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the network and the value.
    pub fn validate(&self) -> Result<(), Error> {
        self.checked().map(|_| ())
    }

    /// The network, if [`Network::validate`] finds nothing wrong.
    pub(crate) fn checked(&self) -> Result<Ipv4Network, Error> {
        names::check_id("network", &self.id)?;
        let network = self.of_ipv4().map_err(|fault| self.invalid(fault.to_string()))?;
        network.refuse(network.find_fault())?;
        Ok(network)
    }

    fn of_ipv4(&self) -> Result<Ipv4Network, NotServed> {
        let all = |what, addrs: &[IpAddr]| -> Result<Vec<Ipv4Addr>, NotServed> {
            addrs.iter().map(|addr| ipv4_addr(what, *addr)).collect()
        };
        let remote = self.remote.iter().map(|remote| {
            let addr = ipv4_addr("address", remote.addr)?;
            Ok(Remote { addr, vtep: remote.vtep })
        });
        Ok(Network {
            id: self.id.clone(),
            vni: self.vni,
            port: self.port,
            subnet: ipv4_net("subnet", self.subnet)?,
            gateway: ipv4_addr("gateway", self.gateway)?,
            mtu: self.mtu,
            vips: all("VIP", &self.vips)?,
            local: all("address", &self.local)?,
            remote: remote.collect::<Result<_, NotServed>>()?,
        })
    }
}

impl<N, A> Network<N, A> {
    fn invalid(&self, reason: String) -> Error {
        Error::Invalid { object: format!("network {}", self.id), reason }
    }
}

impl Ipv4Network {
    /// Rejects remote tasks that this node, with its own `vtep`, could not send to.
    pub(crate) fn validate_vteps(&self, vtep: IpAddr) -> Result<(), Error> {
        let fault = self.remote.iter().find_map(|remote| match remote.vtep {
            other if other == vtep => {
                Some(format!("remote task {} is behind this node's own address", remote.addr))
            }
            other if other.is_ipv4() != vtep.is_ipv4() => {
                Some(format!("{other} and this node's {vtep} are of different families"))
            }
            _ => None,
        });
        self.refuse(fault)
    }

    fn refuse(&self, fault: Option<String>) -> Result<(), Error> {
        fault.map_or(Ok(()), |fault| Err(self.invalid(fault)))
    }

    fn find_fault(&self) -> Option<String> {
        if self.vni == 0 || self.vni > MAX_VNI {
            return Some(format!("vni {} is not between 1 and {MAX_VNI}", self.vni));
        }
        if self.port == 0 {
            return Some("it has no port".into());
        }
        if !MTUS.contains(&self.mtu) {
            return Some(format!("mtu {} is not between 576 and 65535", self.mtu));
        }
        if self.subnet.prefix_len() > 30 {
            return Some(format!("subnet {} is too small", self.subnet));
        }
        let outside = |addr: &Ipv4Addr| !self.subnet.contains(addr);
        let remote = || self.remote.iter().map(|r| &r.addr);
        let all =
            || [&self.gateway].into_iter().chain(&self.vips).chain(&self.local).chain(remote());
        if let Some(addr) = all().find(|addr| outside(addr)) {
            return Some(format!("address {addr} is outside subnet {}", self.subnet));
        }
        let mut seen = HashSet::new();
        all().find(|addr| !seen.insert(**addr)).map(|addr| format!("address {addr} is used twice"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network {
            id: "web".into(),
            vni: 4097,
            port: 4789,
            subnet: "10.0.1.0/24".parse().unwrap(),
            gateway: [10, 0, 1, 1].into(),
            mtu: 1450,
            vips: vec![[10, 0, 1, 2].into()],
            local: vec![[10, 0, 1, 3].into()],
            remote: vec![Remote {
                addr: [10, 0, 1, 4].into(),
                vtep: IpAddr::from([192, 168, 0, 2]),
            }],
        }
    }

    #[test]
    fn faults_are_named() {
        let fault = |change: fn(&mut Network)| {
            let mut network = network();
            change(&mut network);
            network.validate().map_err(|e| e.to_string())
        };
        assert_eq!(fault(|_| ()), Ok(()));
        let err = |text: &str| Err(text.to_string());
        assert_eq!(
            fault(|n| n.vni = 1 << 24),
            err("network web: vni 16777216 is not between 1 and 16777214")
        );
        assert_eq!(fault(|n| n.port = 0), err("network web: it has no port"));
        assert_eq!(
            fault(|n| n.mtu = 100),
            err("network web: mtu 100 is not between 576 and 65535")
        );
        assert_eq!(
            fault(|n| n.vips.push([10, 9, 1, 2].into())),
            err("network web: address 10.9.1.2 is outside subnet 10.0.1.0/24")
        );
        assert_eq!(
            fault(|n| n.local.push(n.remote[0].addr)),
            err("network web: address 10.0.1.4 is used twice")
        );
        assert!(fault(|n| n.id = "../../etc".into()).is_err());
    }

    #[test]
    fn ipv6_is_refused_wherever_it_is() {
        let six = || "fd00::9".parse().unwrap();
        let fault = |change: &dyn Fn(&mut Network)| {
            let mut network = network();
            change(&mut network);
            network.validate().unwrap_err().to_string()
        };
        assert_eq!(
            fault(&|n| n.subnet = "fd00::/64".parse().unwrap()),
            "network web: subnet fd00::/64 is IPv6, which is not served yet"
        );
        assert_eq!(
            fault(&|n| n.gateway = six()),
            "network web: gateway fd00::9 is IPv6, which is not served yet"
        );
        assert_eq!(
            fault(&|n| n.vips.push(six())),
            "network web: VIP fd00::9 is IPv6, which is not served yet"
        );
        let address = "network web: address fd00::9 is IPv6, which is not served yet";
        assert_eq!(fault(&|n| n.local.push(six())), address);
        assert_eq!(fault(&|n| n.remote[0].addr = six()), address);
    }
}
