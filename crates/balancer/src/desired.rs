//! The desired state of one network's services on this node: what an engine makes the kernel match.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use swarm_family::ipv4_addr;

use crate::{Error, Ports, Result};

/// The longest accepted [`VirtualService::id`] in bytes; a swarm id has 25.
const MAX_ID: usize = 64;

/// One network on this node, with every service that has a VIP there. Its addresses `A` are of either family until it
/// was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network<A = IpAddr> {
    /// The network's id, unique on this node.
    pub id: String,
    /// The file of the network's namespace (`/run/netns/...`, `/proc/PID/ns/net`).
    pub netns: PathBuf,
    /// The bridge's address: the source that a task sees when it calls its own service and is picked itself.
    pub gateway: A,
    /// The services, in any order.
    pub services: Vec<VirtualService<A>>,
}

/// A service's virtual address and the tasks behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualService<A = IpAddr> {
    /// The service's id: 1 to 64 of `A-Z a-z 0-9 _ - .`, unique in the network.
    pub id: String,
    /// The service's name, for people who read the kernel's tables. Not unique.
    pub name: String,
    /// The firewall mark by which IPVS knows a service that answers on every port: not 0 and unique in the network where
    /// given. The IPVS engine needs it for those; nothing else uses it.
    pub mark: Option<u32>,
    /// The virtual address, unique in the network; the overlay puts it on the bridge as a /32.
    pub vip: A,
    /// The ports of the VIP that are balanced.
    pub ports: Ports,
    /// The tasks. None, or only draining ones: new connections are refused at once.
    pub backends: Vec<Backend<A>>,
}

/// A task behind a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend<A = IpAddr> {
    /// The task's address, unique in the service.
    pub addr: A,
    /// The share of new connections. 0 drains: no new connection, established ones go on until the backend is
    /// removed, which ends them at once.
    pub weight: u16,
    /// Whether the task runs on this node: only those can reach themselves through the VIP here.
    pub local: bool,
}

impl Network {
    /// Checks what the kernel would refuse or, worse, take in another sense.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the first contradiction.
    pub fn validate(&self) -> Result<()> {
        self.checked().map(|_| ())
    }

    /// The network, if [`Network::validate`] finds nothing wrong.
    pub(crate) fn checked(&self) -> Result<Network<Ipv4Addr>> {
        let network = self.of_ipv4()?;
        network.check()?;
        Ok(network)
    }

    /// The engines balance IPv4: IPv6 is refused here until it is served.
    fn of_ipv4(&self) -> Result<Network<Ipv4Addr>> {
        let ipv4 =
            |what, addr| ipv4_addr(what, addr).map_err(|fault| self.invalid(fault.to_string()));
        let backend = |backend: &Backend| {
            let addr = ipv4("backend", backend.addr)?;
            Ok(Backend { addr, weight: backend.weight, local: backend.local })
        };
        let service = |service: &VirtualService| {
            Ok(VirtualService {
                id: service.id.clone(),
                name: service.name.clone(),
                mark: service.mark,
                vip: ipv4("VIP", service.vip)?,
                ports: service.ports.clone(),
                backends: service.backends.iter().map(backend).collect::<Result<_>>()?,
            })
        };
        Ok(Network {
            id: self.id.clone(),
            netns: self.netns.clone(),
            gateway: ipv4("gateway", self.gateway)?,
            services: self.services.iter().map(service).collect::<Result<_>>()?,
        })
    }
}

impl<A> Network<A> {
    pub(crate) fn invalid(&self, reason: String) -> Error {
        Error::Invalid { network: self.id.clone(), reason }
    }
}

impl Network<Ipv4Addr> {
    /// Finds contradictions.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |reason| Err(self.invalid(reason));
        let (mut ids, mut vips, mut marks) = (HashSet::new(), HashSet::new(), HashSet::new());
        for service in &self.services {
            let id = &service.id;
            if !is_identifier(id) {
                return invalid(format!(
                    "service id {id:?} is not 1 to {MAX_ID} of A-Z a-z 0-9 _ - ."
                ));
            }
            if !ids.insert(id) {
                return invalid(format!("service {id} is listed twice"));
            }
            if service.vip == self.gateway {
                return invalid(format!(
                    "service {id} has the gateway's address {} as VIP",
                    service.vip
                ));
            }
            if !vips.insert(service.vip) {
                return invalid(format!(
                    "VIP {} of service {id} is another service's too",
                    service.vip
                ));
            }
            match service.mark {
                Some(0) => {
                    return invalid(format!("service {id} has the mark 0, which means no mark"));
                }
                Some(mark) if !marks.insert(mark) => {
                    return invalid(format!(
                        "mark {mark:#x} of service {id} is another service's too"
                    ));
                }
                _ => {}
            }
            if let Some(contradiction) = service.ports.contradiction() {
                return invalid(format!("service {id} {contradiction}"));
            }
            let mut addresses = HashSet::new();
            if let Some(twice) =
                service.backends.iter().find(|backend| !addresses.insert(backend.addr))
            {
                return invalid(format!("service {id} lists the backend {} twice", twice.addr));
            }
        }
        Ok(())
    }
}

fn is_identifier(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Protocol::Udp, ports::only};

    fn service(id: &str, vip: [u8; 4]) -> VirtualService {
        let backend = Backend { addr: [10, 0, 0, 9].into(), weight: 1, local: true };
        VirtualService {
            id: id.into(),
            name: id.into(),
            mark: None,
            vip: vip.into(),
            ports: Ports::All,
            backends: vec![backend],
        }
    }

    fn reason(change: impl FnOnce(&mut Network)) -> String {
        let mut network = Network {
            id: "n".into(),
            netns: "/run/netns/n".into(),
            gateway: [10, 0, 0, 1].into(),
            services: vec![service("a", [10, 0, 0, 2]), service("b", [10, 0, 0, 3])],
        };
        network.validate().expect("valid before the change");
        change(&mut network);
        network.validate().expect_err("invalid after the change").to_string()
    }

    #[test]
    fn contradictions_are_named() {
        let cases = [
            (reason(|n| n.services[1].id = "a".into()), "network n: service a is listed twice"),
            (
                reason(|n| n.services[0].vip = n.gateway),
                "network n: service a has the gateway's address 10.0.0.1 as VIP",
            ),
            (
                reason(|n| n.services[1].vip = n.services[0].vip),
                "network n: VIP 10.0.0.2 of service b is another service's too",
            ),
            (
                reason(|n| n.services[0].mark = Some(0)),
                "network n: service a has the mark 0, which means no mark",
            ),
            (
                reason(|n| n.services.iter_mut().for_each(|s| s.mark = Some(0x101))),
                "network n: mark 0x101 of service b is another service's too",
            ),
            (
                reason(|n| n.services[0].backends = vec![n.services[0].backends[0]; 2]),
                "network n: service a lists the backend 10.0.0.9 twice",
            ),
            (
                reason(|n| n.gateway = "fd00::1".parse().expect("an address")),
                "network n: gateway fd00::1 is IPv6, which is not served yet",
            ),
            (
                reason(|n| n.services[1].vip = "fd00::2".parse().expect("an address")),
                "network n: VIP fd00::2 is IPv6, which is not served yet",
            ),
            (
                reason(|n| n.services[0].backends[0].addr = "fd00::9".parse().expect("an address")),
                "network n: backend fd00::9 is IPv6, which is not served yet",
            ),
            (
                reason(|n| n.services[0].ports = only(&[(Udp, 80, 8080), (Udp, 80, 8081)])),
                "network n: service a lists port 80/udp twice",
            ),
            (
                reason(|n| n.services[0].ports = only(&[(Udp, 80, 0)])),
                "network n: service a leads port 80/udp to port 0: 0 is none",
            ),
            (
                reason(|n| n.services[0].ports = only(&[(Udp, 0, 80)])),
                "network n: service a leads port 0/udp to port 80: 0 is none",
            ),
        ];
        for (got, expected) in cases {
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn an_id_cannot_smuggle_statements() {
        for id in ["", "a b", "a;flush ruleset", "a\nb", "a}", &"x".repeat(65)] {
            assert!(
                reason(|n| n.services[0].id = id.into()).contains("is not 1 to 64 of"),
                "{id:?}"
            );
        }
    }
}
