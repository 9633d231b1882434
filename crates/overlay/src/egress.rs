//! The tasks' way out of the swarm: one bridge per node, whose ports cannot reach each other, behind masquerade.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::{IpNet, Ipv4Net};
use swarm_family::{NotServed, ipv4_net};
use swarm_netns::Namespace;

use crate::message::{self, Request};
use crate::names::{EGRESS_BRIDGE, parse_alias, task_mac};
use crate::observed::Link;
use crate::rtnl::Rtnl;
use crate::settings::PortSettings;
use crate::{Changes, Error, carrier, host, port, sysctl};

/// MTU of the bridge and its tasks, in bytes: an underlay with less is served by path MTU discovery.
pub(crate) const MTU: u32 = 1500;

/// The bridge's subnet and who has which address of it.
#[derive(Debug)]
pub(crate) struct Egress {
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    addresses: Mutex<Addresses>,
}

#[derive(Debug, Default)]
struct Addresses {
    by_task: BTreeMap<String, Ipv4Addr>,
    /// Where the search for a free one starts, so that an address is reused as late as can be.
    next: u32,
}

impl Egress {
    /// Adopts the bridge that is there, with the addresses its ports carry, or picks a subnet for a new one.
    pub(crate) async fn adopt(rtnl: &Rtnl, candidates: &[IpNet]) -> Result<Self, Error> {
        let candidates = of_ipv4(candidates)?;
        let (links, addresses) = futures::try_join!(rtnl.links(), rtnl.addresses())?;
        let bridge = links.iter().find(|link| link.name == EGRESS_BRIDGE);
        let existing = addresses.iter().find_map(|(index, addr, len)| match addr {
            IpAddr::V4(addr) if bridge.is_some_and(|b| b.index == *index) => {
                Ipv4Net::new(*addr, *len).ok()
            }
            _ => None,
        });
        let subnet = match existing {
            Some(net) => net.trunc(),
            None => choose(&candidates, &host::routed_prefixes(rtnl).await?)?,
        };
        let by_task = links
            .iter()
            .filter_map(|link| parse_alias(link.alias.as_deref()?))
            .filter(|(_, addr)| subnet.contains(addr))
            .map(|(task, addr)| (task.to_owned(), addr))
            .collect();
        Ok(Self {
            subnet,
            gateway: first_host(subnet),
            addresses: Mutex::new(Addresses { by_task, next: 0 }),
        })
    }

    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    pub(crate) fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        // Every update is a single insert or remove, so a poisoned map is still whole.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task's address; the one it has, or a free one.
    pub(crate) fn reserve(&self, task: &str) -> Result<Ipv4Addr, Error> {
        let mut addresses = self.addresses();
        if let Some(addr) = addresses.by_task.get(task) {
            return Ok(*addr);
        }
        let used: std::collections::HashSet<Ipv4Addr> =
            addresses.by_task.values().copied().collect();
        let first = u32::from(self.gateway) + 1;
        let count = u32::from(self.subnet.broadcast()) - first;
        let free = (0..count)
            .map(|i| (addresses.next + i) % count)
            .find(|offset| !used.contains(&Ipv4Addr::from(first + offset)))
            .ok_or(Error::EgressExhausted { gateway: self.gateway.into() })?;
        let addr = Ipv4Addr::from(first + free);
        addresses.next = (free + 1) % count;
        addresses.by_task.insert(task.to_owned(), addr);
        Ok(addr)
    }

    pub(crate) fn release(&self, task: &str) {
        self.addresses().by_task.remove(task);
    }

    /// Forwarding, bridge, ports and rules.
    pub(crate) async fn ensure(&self, netns: &Namespace, rtnl: &Rtnl) -> Result<Changes, Error> {
        let mut changes = Changes {
            sysctls: netns.run(|| sysctl::ensure(sysctl::HOST)).await??,
            ..Changes::default()
        };
        let bridge = self.ensure_bridge(rtnl, &mut changes).await?;
        self.ensure_ports(rtnl, bridge, &mut changes).await?;
        let rules = rules(self.subnet);
        netns.run(move || nft(&rules)).await??;
        Ok(changes)
    }

    async fn ensure_bridge(&self, rtnl: &Rtnl, changes: &mut Changes) -> Result<u32, Error> {
        let mac = task_mac(self.gateway);
        let bridge = rtnl.link(EGRESS_BRIDGE).await?;
        let mut requests = Vec::new();
        match &bridge {
            Some(link) if link.is_bridge => {
                if !link.up {
                    requests.push(message::set_up(EGRESS_BRIDGE));
                }
            }
            other => {
                requests.extend(other.iter().map(|_| message::delete_link(EGRESS_BRIDGE)));
                requests.push(message::add_bridge(EGRESS_BRIDGE, mac, MTU));
            }
        }
        changes.links += usize::from(!requests.is_empty());
        rtnl.apply(EGRESS_BRIDGE, requests).await?;
        let bridge = match bridge {
            Some(link) if link.is_bridge => link.index,
            _ => rtnl.link(EGRESS_BRIDGE).await?.map_or(0, |link| link.index),
        };
        let wanted = (bridge, IpAddr::V4(self.gateway), self.subnet.prefix_len());
        if !rtnl.addresses().await?.contains(&wanted) {
            changes.addresses += 1;
            let add = message::add_address(bridge, self.gateway, self.subnet.prefix_len());
            rtnl.apply(EGRESS_BRIDGE, vec![add]).await?;
        }
        Ok(bridge)
    }

    async fn ensure_ports(
        &self,
        rtnl: &Rtnl,
        bridge: u32,
        changes: &mut Changes,
    ) -> Result<(), Error> {
        let (links, fdb) = futures::try_join!(rtnl.links(), rtnl.fdb())?;
        let ports: Vec<Link> = links.into_iter().filter(|link| self.owns(link)).collect();
        let repairs: Vec<Vec<Request>> = ports
            .iter()
            .map(|link| port::repair(link, bridge, PortSettings::EGRESS, MTU))
            .filter(|requests| !requests.is_empty())
            .collect();
        let macs = port::missing_macs(&ports, &fdb);
        changes.links += repairs.len();
        changes.fdb += macs.len();
        let requests = repairs.into_iter().flatten().chain(macs).collect();
        rtnl.apply(EGRESS_BRIDGE, requests).await?;
        // With no task that is up, the bridge has no carrier to wait for.
        if changes.links > 0 && ports.iter().any(|port| port.carries) {
            carrier::wait("egress", &[(rtnl, EGRESS_BRIDGE)]).await?;
        }
        Ok(())
    }

    fn owns(&self, link: &Link) -> bool {
        link.alias
            .as_deref()
            .and_then(parse_alias)
            .is_some_and(|(_, addr)| self.subnet.contains(&addr))
    }
}

/// Takes the bridge and its rules away.
pub(crate) async fn remove(netns: &Namespace, rtnl: &Rtnl) -> Result<(), Error> {
    let mut errors = Vec::new();
    let delete = vec![message::delete_link(EGRESS_BRIDGE)];
    errors.extend(rtnl.apply(EGRESS_BRIDGE, delete).await.err());
    let ruleless = netns.run(|| nft(NO_RULES)).await;
    errors.extend(ruleless.map_err(Error::from).flatten().err());
    Error::collect("egress", errors)
}

fn first_host(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()) + 1)
}

fn of_ipv4(candidates: &[IpNet]) -> Result<Vec<Ipv4Net>, Error> {
    let candidates = candidates.iter().map(|net| ipv4_net("subnet", *net));
    let candidates: Result<_, NotServed> = candidates.collect();
    candidates.map_err(|e| Error::Invalid { object: EGRESS_BRIDGE.into(), reason: e.to_string() })
}

/// The first candidate that shares no address with a routed prefix.
fn choose(candidates: &[Ipv4Net], routed: &[Ipv4Net]) -> Result<Ipv4Net, Error> {
    let overlaps = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
    candidates
        .iter()
        .map(Ipv4Net::trunc)
        .filter(|candidate| candidate.prefix_len() <= 29)
        .find(|candidate| !routed.iter().any(|route| overlaps(candidate, route)))
        .ok_or_else(|| {
            let all: Vec<String> = candidates.iter().map(ToString::to_string).collect();
            Error::NoEgressSubnet(all.join(", "))
        })
}

/// Deleting a table that is not there fails; adding one that is does not.
const NO_RULES: &str = "add table ip swarm_egress\ndelete table ip swarm_egress\n";

/// One atomic batch. Nothing is forwarded to a task but answers: neither from other tasks, nor from outside.
fn rules(subnet: Ipv4Net) -> String {
    format!(
        r#"{NO_RULES}table ip swarm_egress {{
  chain postrouting {{
    type nat hook postrouting priority srcnat
    ip saddr {subnet} oifname != "{EGRESS_BRIDGE}" masquerade
  }}
  chain forward {{
    type filter hook forward priority filter
    oifname "{EGRESS_BRIDGE}" ct state established,related accept
    oifname "{EGRESS_BRIDGE}" drop
  }}
}}
"#
    )
}

/// Feeds a ruleset to `nft -f -` in the namespace of the calling thread.
fn nft(rules: &str) -> Result<(), Error> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NoNft,
        _ => Error::Nft(e.to_string()),
    };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Taken, so that it is closed before waiting. A ruleset fits into the pipe: no deadlock with stderr.
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(rules.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Nft(text.trim().replace('\n', "; ")));
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn a_subnet_that_is_routed_is_passed_over() {
        let candidates = nets(&["172.31.240.0/20", "172.30.240.0/20", "192.168.240.0/20"]);
        let chosen = |routed: &[&str]| choose(&candidates, &nets(routed)).map(|n| n.to_string());
        assert_eq!(chosen(&[]).unwrap(), "172.31.240.0/20");
        assert_eq!(chosen(&["172.31.241.7/32"]).unwrap(), "172.30.240.0/20");
        assert_eq!(chosen(&["172.16.0.0/12"]).unwrap(), "192.168.240.0/20");
        let none = chosen(&["172.16.0.0/12", "192.168.0.0/16"]).unwrap_err();
        assert!(none.to_string().contains("192.168.240.0/20 are all routed elsewhere"));
        let refused = of_ipv4(&["fd00::/64".parse().unwrap()]).unwrap_err().to_string();
        assert_eq!(refused, "swarm_gwbridge: subnet fd00::/64 is IPv6, which is not served yet");
    }

    #[test]
    fn addresses_are_unique_kept_and_reused_last() {
        let subnet: Ipv4Net = "10.9.0.0/29".parse().unwrap();
        let egress = Egress { subnet, gateway: first_host(subnet), addresses: Mutex::default() };
        let first = egress.reserve("a").unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 9, 0, 2));
        assert_eq!(egress.reserve("a").unwrap(), first);
        egress.release("a");
        let others: Vec<_> = ["b", "c", "d", "e"].map(|t| egress.reserve(t).unwrap()).into();
        assert!(!others.contains(&first), "{others:?}");
        assert_eq!(egress.reserve("f").unwrap(), first);
        let full = egress.reserve("g").unwrap_err().to_string();
        assert_eq!(full, "egress subnet of gateway 10.9.0.1 has no free address");
    }
}
