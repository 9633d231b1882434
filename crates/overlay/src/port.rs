//! Bridge ports of tasks: how they should be, and what puts them right.

use std::collections::{HashMap, HashSet};

use crate::message::{self, Request};
use crate::names::{Mac, parse_alias, task_mac};
use crate::observed::{Link, Neighbour};
use crate::settings::PortSettings;

/// What makes this link a port of `bridge` with these settings and this MTU. Empty if it is one. A link that is deleted meanwhile
/// needs no repair.
pub(crate) fn repair(link: &Link, bridge: u32, settings: PortSettings, mtu: u32) -> Vec<Request> {
    let mut requests = Vec::new();
    if link.mtu != mtu {
        requests.push(message::set_mtu(&link.name, mtu));
    }
    let moved = link.bridge != Some(bridge);
    if moved {
        requests.push(message::set_bridge(&link.name, bridge));
    }
    if moved || link.port != Some(settings) {
        requests.push(message::set_port(&link.name, settings));
    }
    if !link.up {
        requests.push(message::set_up(&link.name));
    }
    requests.into_iter().map(Request::gone_is_fine).collect()
}

/// The ports this crate made, among these links.
pub(crate) fn task_ports(links: &[Link]) -> impl Iterator<Item = (&Link, Mac)> {
    links.iter().filter_map(|link| {
        let (_, addr) = parse_alias(link.alias.as_deref()?)?;
        Some((link, task_mac(addr)))
    })
}

/// Static forwarding entries that are missing, or that point to another port. Without one, frames to a task that has not spoken
/// yet would be lost.
pub(crate) fn missing_macs(links: &[Link], fdb: &[Neighbour]) -> Vec<Request> {
    let there: HashSet<(u32, Mac)> = fdb
        .iter()
        .filter(|entry| entry.fixed && !entry.own)
        .filter_map(|entry| Some((entry.index, entry.mac?)))
        .collect();
    let wanted: HashMap<Mac, u32> =
        task_ports(links).map(|(link, mac)| (mac, link.index)).collect();
    wanted
        .into_iter()
        .filter(|(mac, index)| !there.contains(&(*index, *mac)))
        .map(|(mac, index)| message::put_port_mac(index, mac).gone_is_fine())
        .collect()
}
