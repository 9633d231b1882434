//! Bringing one network's namespace into its desired state: read, compare, program the difference.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use swarm_netns::Namespace;

use crate::delta::{Delta, delta};
use crate::message::{self, Request};
use crate::names::{self, BRIDGE, Mac, VXLAN, task_mac};
use crate::network::Ipv4Network;
use crate::observed::{Link, Neighbour, Route};
use crate::rtnl::Rtnl;
use crate::settings::{PortSettings, Vxlan};
use crate::{Changes, Error, carrier, port, sysctl};

/// What a network is programmed through.
pub(crate) struct Target<'a> {
    /// The network's namespace.
    pub(crate) netns: &'a Namespace,
    /// A connection to it.
    pub(crate) rtnl: &'a Rtnl,
    /// A connection to the host's namespace, where VXLAN sockets live.
    pub(crate) host: &'a Rtnl,
    pub(crate) vtep: IpAddr,
}

/// Settings of a new network's namespace; runs inside it.
pub(crate) fn prepare_namespace() -> Result<(), Error> {
    sysctl::ensure(sysctl::NETWORK)?;
    sysctl::ensure_if_present(sysctl::NO_IPV6)?;
    Ok(())
}

impl Target<'_> {
    /// Programs the difference between `network` and the kernel.
    pub(crate) async fn ensure(&self, network: &Ipv4Network) -> Result<Changes, Error> {
        let (links, changed) = self.ensure_links(network).await?;
        let sysctls = self
            .netns
            .run(|| {
                let network = sysctl::ensure(sysctl::NETWORK)?;
                Ok::<_, Error>(network + sysctl::ensure(sysctl::NETWORK_BRIDGE)?)
            })
            .await??;
        let mut changes = self.ensure_entries(network, &links).await?;
        changes.links += changed;
        changes.sysctls += sysctls;
        Ok(changes)
    }

    /// Bridge, VXLAN device and task ports; all links as they are then, and how many were put right.
    async fn ensure_links(&self, network: &Ipv4Network) -> Result<(Vec<Link>, usize), Error> {
        let object = format!("network {}", network.id);
        let mut links = self.rtnl.links().await?;
        let mut changed = 0;

        let bridge = self.bridge_requests(network, find(&links, BRIDGE));
        let new_vxlan = find(&links, VXLAN).and_then(|l| l.vxlan) != Some(self.vxlan(network));
        if !bridge.is_empty() {
            changed += 1;
            self.rtnl.apply(&object, bridge).await?;
        }
        if new_vxlan {
            changed += 1;
            self.replace_vxlan(network).await?;
        }
        if changed > 0 {
            links = self.rtnl.links().await?;
        }

        let bridge = find(&links, BRIDGE).map_or(0, |l| l.index);
        let ports = port::task_ports(&links).map(|(link, _)| (link, PortSettings::TASK));
        let vxlan = find(&links, VXLAN).map(|link| (link, PortSettings::VXLAN));
        let repairs: Vec<Vec<Request>> = ports
            .chain(vxlan)
            .map(|(link, settings)| port::repair(link, bridge, settings, network.mtu))
            .filter(|requests| !requests.is_empty())
            .collect();
        // The new device's own settings belong to its creation.
        changed += repairs.len() - usize::from(new_vxlan && !repairs.is_empty());
        let repairs: Vec<Request> = repairs.into_iter().flatten().collect();
        if !repairs.is_empty() {
            let applied = self.rtnl.apply(&object, repairs).await;
            applied.map_err(|e| explain_port(e, network.port))?;
        }
        if changed > 0 {
            carrier::wait(&object, &[(self.rtnl, BRIDGE), (self.rtnl, VXLAN)]).await?;
        }
        Ok((links, changed))
    }

    fn bridge_requests(&self, network: &Ipv4Network, bridge: Option<&Link>) -> Vec<Request> {
        let mac = names::bridge_mac(self.vtep);
        let mut requests = Vec::new();
        match bridge {
            Some(link) if link.is_bridge => {
                if link.mac != Some(mac) {
                    requests.push(message::set_mac(BRIDGE, mac));
                }
                if link.mtu != network.mtu {
                    requests.push(message::set_mtu(BRIDGE, network.mtu));
                }
                if !link.up {
                    requests.push(message::set_up(BRIDGE));
                }
            }
            other => {
                requests.extend(other.map(|link| message::delete_link(&link.name)));
                requests.push(message::add_bridge(BRIDGE, mac, network.mtu));
            }
        }
        requests
    }

    fn vxlan(&self, network: &Ipv4Network) -> Vxlan {
        Vxlan {
            vni: network.vni,
            local: self.vtep,
            port: network.port,
            learning: false,
            proxy: true,
        }
    }

    async fn replace_vxlan(&self, network: &Ipv4Network) -> Result<(), Error> {
        let object = format!("network {}", network.id);
        let old = vec![message::delete_link(VXLAN)];
        self.rtnl.apply(&object, old).await?;
        let namespace = Some(self.netns.as_raw_fd());
        let new = message::add_vxlan(VXLAN, self.vxlan(network), network.mtu, namespace);
        self.host.apply(&object, vec![new]).await
    }

    /// Addresses, routes, neighbours and forwarding entries.
    async fn ensure_entries(
        &self,
        network: &Ipv4Network,
        links: &[Link],
    ) -> Result<Changes, Error> {
        let missing = |name| Error::netlink(format!("find link {name}"), Errno::ENODEV.into());
        let bridge = find(links, BRIDGE).ok_or_else(|| missing(BRIDGE))?.index;
        let vxlan = find(links, VXLAN).ok_or_else(|| missing(VXLAN))?.index;
        let (addresses, routes, neighbours, fdb) = futures::try_join!(
            self.rtnl.addresses(),
            self.rtnl.routes(),
            self.rtnl.neighbours(),
            self.rtnl.fdb(),
        )?;

        let mut requests = Vec::new();
        let addresses = address_delta(network, bridge, &addresses);
        let route = missing_route(network, bridge, &addresses, &routes);
        let neighbours = neighbour_delta(network, bridge, vxlan, &neighbours);
        let macs = port::missing_macs(links, &fdb);
        let remotes = remote_delta(network, vxlan, &fdb);
        let changes = Changes {
            addresses: addresses.changed,
            routes: usize::from(route.is_some()),
            neighbours: neighbours.changed,
            fdb: remotes.changed + macs.len(),
            ..Changes::default()
        };

        let remove = |(addr, len)| message::delete_address(bridge, addr, len);
        requests.extend(addresses.remove.into_iter().map(remove));
        let add = |((addr, len), ())| message::add_address(bridge, addr, len);
        requests.extend(addresses.put.into_iter().map(add));
        requests.extend(route);
        let remove = |(index, addr)| message::delete_neighbour(index, addr);
        requests.extend(neighbours.remove.into_iter().map(remove));
        let put = |((index, addr), mac)| message::put_neighbour(index, addr, mac);
        requests.extend(neighbours.put.into_iter().map(put));
        let remove = |mac| message::delete_remote(vxlan, mac);
        requests.extend(remotes.remove.into_iter().map(remove));
        let put = |(mac, vtep)| message::put_remote(vxlan, mac, vtep);
        requests.extend(remotes.put.into_iter().map(put));
        requests.extend(macs);
        let object = format!("network {}", network.id);
        self.rtnl.apply(&object, requests).await?;
        Ok(changes)
    }
}

/// A VXLAN device binds its port only when it is brought up.
fn explain_port(error: Error, port: u16) -> Error {
    match error.errno() {
        Some(Errno::EADDRINUSE) => Error::PortInUse { port },
        _ => error,
    }
}

fn find<'a>(links: &'a [Link], name: &str) -> Option<&'a Link> {
    links.iter().find(|link| link.name == name)
}

/// The gateway with the subnet's prefix, VIPs as /32, nothing else.
fn address_delta(
    network: &Ipv4Network,
    bridge: u32,
    have: &[(u32, IpAddr, u8)],
) -> Delta<(Ipv4Addr, u8), ()> {
    let vips = network.vips.iter().map(|vip| ((*vip, 32), ()));
    let gateway = (network.gateway, network.subnet.prefix_len());
    let want = vips.chain([(gateway, ())]).collect();
    let have = have
        .iter()
        .filter(|(index, _, _)| *index == bridge)
        .filter_map(|(_, addr, len)| match addr {
            IpAddr::V4(addr) => Some(((*addr, *len), Some(()))),
            IpAddr::V6(_) => None,
        })
        .collect();
    delta(&want, &have)
}

/// The kernel adds the subnet's route with the gateway address; only if that address is in place is a missing route put back.
fn missing_route(
    network: &Ipv4Network,
    bridge: u32,
    addresses: &Delta<(Ipv4Addr, u8), ()>,
    routes: &[Route],
) -> Option<Request> {
    let comes_with_address = addresses.put.iter().any(|((addr, _), ())| *addr == network.gateway);
    let subnet = network.subnet.trunc();
    let there = routes
        .iter()
        .any(|r| r.destination == subnet && r.index == Some(bridge) && r.gateway.is_none());
    (!there && !comes_with_address)
        .then(|| message::add_connected_route(bridge, subnet, network.gateway))
}

/// The bridge knows all tasks; the VXLAN device, which answers ARP for them (`proxy`), those on other nodes.
fn neighbour_delta(
    network: &Ipv4Network,
    bridge: u32,
    vxlan: u32,
    have: &[Neighbour],
) -> Delta<(u32, Ipv4Addr), Mac> {
    let mut want = HashMap::new();
    for addr in &network.local {
        want.insert((bridge, *addr), task_mac(*addr));
    }
    for remote in &network.remote {
        want.insert((bridge, remote.addr), task_mac(remote.addr));
        want.insert((vxlan, remote.addr), task_mac(remote.addr));
    }
    let have = have
        .iter()
        .filter(|n| n.permanent && (n.index == bridge || n.index == vxlan))
        .filter_map(|n| match n.addr? {
            IpAddr::V4(addr) => Some(((n.index, addr), n.mac)),
            IpAddr::V6(_) => None,
        })
        .collect();
    delta(&want, &have)
}

/// One permanent entry per task elsewhere. An entry with several destinations cannot be replaced by one, so it goes first.
fn remote_delta(network: &Ipv4Network, vxlan: u32, have: &[Neighbour]) -> Delta<Mac, IpAddr> {
    let want = network.remote.iter().map(|remote| (task_mac(remote.addr), remote.vtep)).collect();
    let mut found: HashMap<Mac, Option<IpAddr>> = HashMap::new();
    for entry in have.iter().filter(|e| e.own && e.index == vxlan) {
        let Some(mac) = entry.mac else { continue };
        let usable = entry.permanent && !entry.diverted;
        found
            .entry(mac)
            .and_modify(|several| *several = None)
            .or_insert(entry.addr.filter(|_| usable));
    }
    delta(&want, &found)
}
