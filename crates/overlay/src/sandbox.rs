//! A task's network namespace: loopback, one interface per network, and one towards the outside.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use swarm_family::ipv4_addr;
use swarm_netns::Namespace;

use crate::message::{self, Request, Veth};
use crate::names::{self, parse_alias, port_alias, port_name, task_mac};
use crate::observed::{Link, Route};
use crate::rtnl::Rtnl;
use crate::settings::PortSettings;
use crate::{Changes, Error, carrier, port, sysctl};

/// What a task's namespace should hold. Its addresses `A` are of either family until the sandbox was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox<A = IpAddr> {
    /// Task id; names the namespace file.
    pub task: String,
    /// One per network; they become `eth0`, `eth1`, ... in this order.
    pub interfaces: Vec<Interface<A>>,
    /// Whether the task reaches what lies outside its networks: one more interface, and the default route.
    pub egress: bool,
}

/// A sandbox that can be built.
pub(crate) type Ipv4Sandbox = Sandbox<Ipv4Addr>;

/// A task's place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface<A = IpAddr> {
    /// Network id; the network must have been ensured on this node.
    pub network: String,
    /// The task's address.
    pub addr: A,
    /// Prefix length of the network's subnet.
    pub prefix_len: u8,
    /// MTU in bytes, the network's.
    pub mtu: u32,
}

/// A sandbox that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxHandle {
    /// The namespace file, to start a container in.
    pub netns: PathBuf,
    /// The task's address on the egress bridge, if it has one.
    pub egress_addr: Option<IpAddr>,
    /// What had to be made; nothing if all was there.
    pub changes: Changes,
}

impl Sandbox {
    /// Rejects what cannot be built.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the task and the value.
    pub fn validate(&self) -> Result<(), Error> {
        self.checked().map(|_| ())
    }

    /// The sandbox, if [`Sandbox::validate`] finds nothing wrong.
    pub(crate) fn checked(&self) -> Result<Ipv4Sandbox, Error> {
        names::check_id("task", &self.task)?;
        let invalid = |reason: String| self.invalid(reason);
        let mut seen = HashSet::new();
        let mut interfaces = Vec::new();
        for interface in &self.interfaces {
            names::check_id("network", &interface.network)?;
            if !seen.insert(&interface.network) {
                return Err(invalid(format!("network {} is named twice", interface.network)));
            }
            let addr = ipv4_addr("address", interface.addr);
            let addr = addr.map_err(|e| invalid(e.to_string()))?;
            if !(8..=30).contains(&interface.prefix_len) {
                return Err(invalid(format!(
                    "prefix length {} is not between 8 and 30",
                    interface.prefix_len
                )));
            }
            interfaces.push(Interface {
                network: interface.network.clone(),
                addr,
                prefix_len: interface.prefix_len,
                mtu: interface.mtu,
            });
        }
        Ok(Sandbox { task: self.task.clone(), interfaces, egress: self.egress })
    }

    fn invalid(&self, reason: String) -> Error {
        Error::Invalid { object: format!("sandbox of task {}", self.task), reason }
    }
}

/// Settings of a new task's namespace; runs inside it.
pub(crate) fn prepare_namespace() -> Result<(), Error> {
    sysctl::ensure(sysctl::TASK)?;
    sysctl::ensure_if_present(sysctl::TASK_NO_IPV6)?;
    Ok(())
}

/// One interface to make: from a bridge in some namespace to the task.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Name in the task's namespace.
    pub(crate) name: String,
    pub(crate) addr: Ipv4Addr,
    pub(crate) prefix_len: u8,
    pub(crate) mtu: u32,
    /// Name of the bridge, and a connection to the namespace it is in.
    pub(crate) bridge: &'static str,
    pub(crate) at: Arc<Rtnl>,
    pub(crate) settings: PortSettings,
    /// Whether the default route goes here, and through whom.
    pub(crate) gateway: Option<Ipv4Addr>,
}

/// A task's namespace, being built.
pub(crate) struct Builder<'a> {
    pub(crate) task: &'a str,
    pub(crate) netns: &'a Namespace,
    /// A connection to the task's namespace.
    pub(crate) rtnl: &'a Rtnl,
}

impl Builder<'_> {
    /// Makes what is missing.
    pub(crate) async fn build(&self, wires: &[Wire]) -> Result<Changes, Error> {
        let mut changes = Changes::default();
        let before = self.rtnl.links().await?;
        let ends = wires
            .iter()
            .map(|wire| self.ensure_wire(wire, before.iter().find(|link| link.name == wire.name)));
        for made in futures::future::join_all(ends).await {
            changes.links += usize::from(made?);
        }
        changes += self.ensure_inside(wires).await?;
        if !changes.is_empty() {
            let port = port_name(self.task);
            let links: Vec<(&Rtnl, &str)> = wires
                .iter()
                .flat_map(|wire| {
                    [(self.rtnl, wire.name.as_str()), (&wire.at, &port), (&wire.at, wire.bridge)]
                })
                .collect();
            carrier::wait(&self.object(), &links).await?;
        }
        Ok(changes)
    }

    fn object(&self) -> String {
        format!("sandbox of task {}", self.task)
    }

    /// The veth pair of one wire; whether anything was done. The alias is set last: a pair without it was never finished.
    async fn ensure_wire(&self, wire: &Wire, end: Option<&Link>) -> Result<bool, Error> {
        let name = port_name(self.task);
        let alias = port_alias(self.task, wire.addr);
        let (bridge, port) = futures::try_join!(wire.at.link(wire.bridge), wire.at.link(&name))?;
        let bridge = bridge.ok_or_else(|| {
            let action = format!("find bridge {}", wire.bridge);
            Error::netlink(action, nix::errno::Errno::ENODEV.into())
        })?;
        if let Some(port) = &port {
            self.check_owner(port)?;
        }
        let finished = port.filter(|port| port.alias.as_ref() == Some(&alias));
        if let (Some(port), Some(end)) = (finished, end)
            && end.mac == Some(task_mac(wire.addr))
        {
            let repairs = port::repair(&port, bridge.index, wire.settings, wire.mtu);
            let repaired = !repairs.is_empty();
            wire.at.apply(&self.object(), repairs).await?;
            return Ok(repaired);
        }

        if end.is_some() {
            let delete = vec![message::delete_link(&wire.name)];
            self.rtnl.apply(&self.object(), delete).await?;
        }
        self.make_wire(wire, &name, bridge.index).await?;
        let port = wire.at.link(&name).await?.map_or(0, |port| port.index);
        let finish = vec![
            message::put_port_mac(port, task_mac(wire.addr)),
            message::set_alias(&name, alias),
        ];
        wire.at.apply(&self.object(), finish).await?;
        Ok(true)
    }

    async fn make_wire(&self, wire: &Wire, port: &str, bridge: u32) -> Result<(), Error> {
        let veth = Veth {
            port,
            bridge,
            peer: &wire.name,
            peer_mac: task_mac(wire.addr),
            peer_namespace_fd: self.netns.as_raw_fd(),
            mtu: wire.mtu,
        };
        let requests = vec![
            message::delete_link(port),
            message::add_veth(&veth),
            message::set_port(port, wire.settings),
        ];
        wire.at.apply(&self.object(), requests).await
    }

    /// Port names are hashes; two tasks with the same one cannot share a network.
    fn check_owner(&self, port: &Link) -> Result<(), Error> {
        match port.alias.as_deref().and_then(parse_alias) {
            Some((other, _)) if other != self.task => Err(Error::Invalid {
                object: self.object(),
                reason: format!("port {} belongs to task {other}", port.name),
            }),
            _ => Ok(()),
        }
    }

    /// Loopback, addresses and routes in the task's namespace.
    async fn ensure_inside(&self, wires: &[Wire]) -> Result<Changes, Error> {
        let (links, addresses, routes) =
            futures::try_join!(self.rtnl.links(), self.rtnl.addresses(), self.rtnl.routes())?;
        let mut changes = Changes::default();
        let mut requests = Vec::new();
        for link in links.iter().filter(|link| link.name == "lo" && !link.up) {
            changes.links += 1;
            requests.push(message::set_up(&link.name));
        }
        for wire in wires {
            let Some(link) = links.iter().find(|link| link.name == wire.name) else {
                let action = format!("find {} in {}", wire.name, self.object());
                return Err(Error::netlink(action, nix::errno::Errno::ENODEV.into()));
            };
            changes.links += bring_up(link, wire, &mut requests);
            let wanted = (link.index, IpAddr::V4(wire.addr), wire.prefix_len);
            let has_address = addresses.contains(&wanted);
            if !has_address {
                changes.addresses += 1;
                requests.push(message::add_address(link.index, wire.addr, wire.prefix_len));
            }
            let missing = missing_routes(link.index, wire, has_address, &routes);
            changes.routes += missing.len();
            requests.extend(missing);
        }
        self.rtnl.apply(&self.object(), requests).await?;
        Ok(changes)
    }
}

/// Sets the task's end up, with the right MTU; 1 if it was not.
fn bring_up(link: &Link, wire: &Wire, requests: &mut Vec<Request>) -> usize {
    let before = requests.len();
    if link.mtu != wire.mtu {
        requests.push(message::set_mtu(&link.name, wire.mtu));
    }
    if !link.up {
        requests.push(message::set_up(&link.name));
    }
    usize::from(requests.len() > before)
}

/// The route to the subnet, which the kernel adds with a new address by itself, and the default route if it goes here.
fn missing_routes(index: u32, wire: &Wire, has_address: bool, routes: &[Route]) -> Vec<Request> {
    let subnet = Ipv4Net::new_assert(wire.addr, wire.prefix_len).trunc();
    let to_subnet = |r: &Route| r.destination == subnet && r.index == Some(index);
    let mut requests = Vec::new();
    if has_address && !routes.iter().any(to_subnet) {
        requests.push(message::add_connected_route(index, subnet, wire.addr));
    }
    if let Some(gateway) = wire.gateway {
        let outward = |r: &Route| r.destination.prefix_len() == 0 && r.gateway == Some(gateway);
        if !routes.iter().any(outward) {
            requests.push(message::add_default_route(index, gateway));
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_refused_and_named() {
        let interface = Interface {
            network: "web".into(),
            addr: "fd00::9".parse::<IpAddr>().unwrap(),
            prefix_len: 64,
            mtu: 1450,
        };
        let sandbox = Sandbox { task: "t".into(), interfaces: vec![interface], egress: false };
        assert_eq!(
            sandbox.validate().unwrap_err().to_string(),
            "sandbox of task t: address fd00::9 is IPv6, which is not served yet"
        );
    }
}
