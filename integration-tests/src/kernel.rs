//! What the kernel of a node really holds, beside what the swarm says.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use swarm_playground::Node;

/// Where `swarmd` keeps the namespaces of networks and tasks on a playground's host.
const NETNS_DIR: &str = "/run/swarmd/netns";

/// The backends of each VIP of a network on a node, as its nftables rules have them; no backends: refused.
///
/// # Panics
/// When the network has no namespace there, or the rules are not as the balancer makes them.
#[must_use]
#[track_caller]
pub fn balancer(node: &Node, network_id: &str) -> BTreeMap<Ipv4Addr, BTreeSet<Ipv4Addr>> {
    let text = in_netns(node, &format!("n-{network_id}"), "nft -j list table ip swarm");
    let document: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let objects = document["nftables"].as_array().expect("nft's list of objects");
    let mut vips = BTreeMap::new();
    for refused in elements(objects, "set", "refused") {
        vips.insert(address(&refused), BTreeSet::new());
    }
    for route in elements(objects, "map", "services") {
        let chain = route[1]["goto"]["target"].as_str().expect("a VIP leads to a chain");
        vips.insert(address(&route[0]), backends(objects, chain));
    }
    vips
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

fn elements(objects: &[Value], kind: &str, name: &str) -> Vec<Value> {
    let of_name = objects.iter().map(|object| &object[kind]).find(|set| set["name"] == name);
    let set = of_name.unwrap_or_else(|| panic!("no {kind} {name} in {objects:?}"));
    set["elem"].as_array().cloned().unwrap_or_default()
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
