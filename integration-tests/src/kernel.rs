//! What the kernel of a node really holds, beside what the swarm says.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use swarm_playground::Node;

/// Where `swarmd` keeps the namespaces of networks and tasks on a playground's host.
const NETNS_DIR: &str = "/run/swarmd/netns";

/// The backends that take new connections for each VIP of a network on a node, whichever engine balances there; no
/// backends: refused.
///
/// # Panics
/// When the network has no namespace there, or the rules are not as the balancer makes them.
#[must_use]
#[track_caller]
pub fn balancer(node: &Node, network_id: &str) -> BTreeMap<Ipv4Addr, BTreeSet<Ipv4Addr>> {
    let objects = nft_objects(node, network_id);
    let mut vips = BTreeMap::new();
    if let Some(marks) = elements(&objects, "map", "marks") {
        let services = ipvs(node, network_id);
        for mark in marks {
            let number = u32::try_from(mark[1].as_u64().expect("a mark")).expect("32 bits");
            let service = services.get(&number).unwrap_or_else(|| panic!("no FWM {number}"));
            let weighty = service.iter().filter(|(_, destination)| destination.weight > 0);
            vips.insert(address(&mark[0]), weighty.map(|(address, _)| *address).collect());
        }
        return vips;
    }
    for refused in elements(&objects, "set", "refused").expect("a set of VIPs that refuse") {
        vips.insert(address(&refused), BTreeSet::new());
    }
    for route in elements(&objects, "map", "services").expect("a map of VIPs") {
        let chain = route[1]["goto"]["target"].as_str().expect("a VIP leads to a chain");
        vips.insert(address(&route[0]), backends(&objects, chain));
    }
    vips
}

#[track_caller]
fn nft_objects(node: &Node, network_id: &str) -> Vec<Value> {
    let text = in_netns(node, &format!("n-{network_id}"), "nft -j list table ip swarm");
    let document: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    document["nftables"].as_array().expect("nft's list of objects").clone()
}

/// A destination of an IPVS service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// 0: it drains.
    pub weight: u32,
    /// Established connections.
    pub active: u32,
}

/// The destinations of each IPVS service of a network on a node, by firewall mark, as `ipvsadm -Ln` has them.
///
/// # Panics
/// When that cannot be run, or shows services by anything else than a mark.
#[must_use]
#[track_caller]
pub fn ipvs(node: &Node, network_id: &str) -> BTreeMap<u32, BTreeMap<Ipv4Addr, Destination>> {
    parse_ipvsadm(&in_netns(node, &format!("n-{network_id}"), "ipvsadm -Ln"))
}

#[track_caller]
fn parse_ipvsadm(text: &str) -> BTreeMap<u32, BTreeMap<Ipv4Addr, Destination>> {
    let mut services: BTreeMap<u32, BTreeMap<Ipv4Addr, Destination>> = BTreeMap::new();
    let mut current = None;
    // Three lines of headings.
    for line in text.lines().skip(3) {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["FWM", mark, "wrr"] => {
                let mark = mark.parse().expect("a mark");
                current = Some(mark);
                services.insert(mark, BTreeMap::new());
            }
            ["->", address, "Masq", weight, active, _inactive] => {
                let mark = current.expect("a destination of a service");
                let address = address.trim_end_matches(":0").parse().expect("an address");
                let number = |text: &str| text.parse().expect("a number");
                let destination = Destination { weight: number(weight), active: number(active) };
                services.entry(mark).or_default().insert(address, destination);
            }
            _ => panic!("{line:?} is not as the balancer makes it: {text}"),
        }
    }
    services
}

/// Runs a command in a namespace of a host's `swarmd`, `n-<network>` or `t-<task>`; gives its stdout.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn in_netns(node: &Node, name: &str, line: &str) -> String {
    let net = format!("--net={NETNS_DIR}/{name}");
    let words = ["nsenter", &net].into_iter().chain(line.split_whitespace());
    node.run(words).unwrap_or_else(|e| panic!("{e}"))
}

/// None if there is no such set or map.
fn elements(objects: &[Value], kind: &str, name: &str) -> Option<Vec<Value>> {
    let set = objects.iter().map(|object| &object[kind]).find(|set| set["name"] == name)?;
    Some(set["elem"].as_array().cloned().unwrap_or_default())
}

/// Every address in the rules of a service's chain.
fn backends(objects: &[Value], chain: &str) -> BTreeSet<Ipv4Addr> {
    let rules = objects.iter().map(|object| &object["rule"]).filter(|rule| rule["chain"] == chain);
    let mut found = BTreeSet::new();
    for rule in rules {
        for expression in rule["expr"].as_array().expect("a rule has expressions") {
            collect_addresses(&expression["dnat"], &mut found);
        }
    }
    assert!(!found.is_empty(), "chain {chain} sends nowhere: {objects:?}");
    found
}

fn collect_addresses(value: &Value, found: &mut BTreeSet<Ipv4Addr>) {
    match value {
        Value::String(text) => found.extend(text.parse::<Ipv4Addr>().ok()),
        Value::Array(items) => items.iter().for_each(|item| collect_addresses(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| collect_addresses(field, found)),
        _ => {}
    }
}

#[track_caller]
fn address(value: &Value) -> Ipv4Addr {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.unwrap_or_else(|| panic!("{value} is no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ipvsadm_prints_is_read() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
FWM  2 wrr
  -> 10.0.1.3:0                   Masq    1      0          15
  -> 10.0.1.4:0                   Masq    0      1          0
FWM  7 wrr
";
        let services = parse_ipvsadm(text);
        assert_eq!(services.keys().collect::<Vec<_>>(), [&2, &7]);
        let destination = services[&2][&Ipv4Addr::new(10, 0, 1, 4)];
        assert_eq!(destination, Destination { weight: 0, active: 1 });
        assert!(services[&7].is_empty());
    }
}
