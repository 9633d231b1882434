//! What rtnetlink dumps say, reduced to what this crate compares.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BridgePortState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use crate::names::Mac;
use crate::settings::{PortSettings, Vxlan};

/// `RT_TABLE_LOCAL` of include/uapi/linux/rtnetlink.h.
const TABLE_LOCAL: u8 = 255;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// Whether it carries frames: up, with a carrier the kernel has taken note of and, for a bridge port, forwarding.
    pub(crate) carries: bool,
    /// Index of the bridge it is on.
    pub(crate) bridge: Option<u32>,
    pub(crate) is_bridge: bool,
    pub(crate) vxlan: Option<Vxlan>,
    pub(crate) port: Option<PortSettings>,
}

/// A neighbour or forwarding entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) index: u32,
    pub(crate) mac: Option<Mac>,
    /// Address of a neighbour, VTEP of a forwarding entry.
    pub(crate) addr: Option<IpAddr>,
    pub(crate) permanent: bool,
    /// A static entry of a bridge.
    pub(crate) fixed: bool,
    /// Of the device itself, rather than of the bridge it is on.
    pub(crate) own: bool,
    /// A forwarding entry with a port or VNI other than the device's.
    pub(crate) diverted: bool,
}

/// An IPv4 unicast route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Net,
    pub(crate) index: Option<u32>,
    pub(crate) gateway: Option<Ipv4Addr>,
}

pub(crate) fn parse_link(message: LinkMessage) -> Link {
    let carries = carries(&message);
    let mut link = Link {
        carries,
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Address(mac) => link.mac = mac.try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(bridge) => link.bridge = Some(bridge),
            LinkAttribute::LinkInfo(infos) => parse_info(&mut link, infos),
            _ => {}
        }
    }
    link
}

/// The operational state (RFC 2863) changes when the kernel has taken note of the carrier and started the queue.
fn carries(message: &LinkMessage) -> bool {
    message.attributes.iter().all(|attribute| match attribute {
        LinkAttribute::OperState(state) => matches!(state, State::Up | State::Unknown),
        LinkAttribute::LinkInfo(infos) => infos.iter().all(|info| match info {
            LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
                data.contains(&InfoBridgePort::State(BridgePortState::Forwarding))
            }
            _ => true,
        }),
        _ => true,
    })
}

fn parse_info(link: &mut Link, infos: Vec<LinkInfo>) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Bridge) => link.is_bridge = true,
            LinkInfo::Data(InfoData::Vxlan(data)) => link.vxlan = parse_vxlan(&data),
            LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
                link.port = Some(parse_port(&data));
            }
            _ => {}
        }
    }
}

/// `None` without a local address: such a device is not ours.
fn parse_vxlan(data: &[InfoVxlan]) -> Option<Vxlan> {
    let (mut vni, mut local, mut port, mut learning, mut proxy) = (0, None, 0, false, false);
    for info in data {
        match info {
            InfoVxlan::Id(id) => vni = *id,
            InfoVxlan::Local(addr) => local = Some(IpAddr::V4(*addr)),
            InfoVxlan::Local6(addr) => local = Some(IpAddr::V6(*addr)),
            InfoVxlan::Port(number) => port = *number,
            InfoVxlan::Learning(on) => learning = *on,
            InfoVxlan::Proxy(on) => proxy = *on,
            _ => {}
        }
    }
    Some(Vxlan { vni, local: local?, port, learning, proxy })
}

fn parse_port(data: &[InfoBridgePort]) -> PortSettings {
    let mut port =
        PortSettings { hairpin: false, isolated: false, learning: false, unicast_flood: false };
    for info in data {
        match info {
            InfoBridgePort::HairpinMode(on) => port.hairpin = *on,
            InfoBridgePort::Isolated(on) => port.isolated = *on,
            InfoBridgePort::Learning(on) => port.learning = *on,
            InfoBridgePort::UnicastFlood(on) => port.unicast_flood = *on,
            _ => {}
        }
    }
    port
}

pub(crate) fn parse_address(message: &AddressMessage) -> Option<(u32, IpAddr, u8)> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(addr) if local => Some(*addr),
            AddressAttribute::Address(addr) if !local => Some(*addr),
            _ => None,
        })
    };
    // On a point-to-point link IFA_ADDRESS is the peer's; IPv6 has no IFA_LOCAL otherwise.
    let addr = find(true).or_else(|| find(false))?;
    Some((message.header.index, addr, message.header.prefix_len))
}

pub(crate) fn parse_neighbour(message: NeighbourMessage) -> Neighbour {
    let header = &message.header;
    let mut neighbour = Neighbour {
        index: header.ifindex,
        mac: None,
        addr: None,
        permanent: header.state == NeighbourState::Permanent,
        fixed: header.state == NeighbourState::Noarp,
        own: header.flags.contains(NeighbourFlags::Own),
        diverted: false,
    };
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => neighbour.mac = mac.try_into().ok(),
            NeighbourAttribute::Destination(addr) => neighbour.addr = parse_destination(&addr),
            NeighbourAttribute::Port(_) | NeighbourAttribute::Vni(_) => neighbour.diverted = true,
            _ => {}
        }
    }
    neighbour
}

/// Forwarding entries are of family AF_BRIDGE, so the length alone tells an IPv4 from an IPv6 VTEP.
fn parse_destination(addr: &NeighbourAddress) -> Option<IpAddr> {
    match addr {
        NeighbourAddress::Inet(addr) => Some(IpAddr::V4(*addr)),
        NeighbourAddress::Inet6(addr) => Some(IpAddr::V6(*addr)),
        NeighbourAddress::Other(bytes) => <[u8; 4]>::try_from(bytes.as_slice())
            .map(|v4| IpAddr::V4(Ipv4Addr::from(v4)))
            .or_else(|_| {
                <[u8; 16]>::try_from(bytes.as_slice()).map(|v6| IpAddr::V6(Ipv6Addr::from(v6)))
            })
            .ok(),
        _ => None,
    }
}

pub(crate) fn parse_route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast || header.table == TABLE_LOCAL {
        return None;
    }
    let (mut network, mut index, mut gateway) = (Ipv4Addr::UNSPECIFIED, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(addr)) => network = *addr,
            RouteAttribute::Gateway(RouteAddress::Inet(addr)) => gateway = Some(*addr),
            RouteAttribute::Oif(oif) => index = Some(*oif),
            _ => {}
        }
    }
    Some(Route {
        destination: Ipv4Net::new(network, header.destination_prefix_length).ok()?,
        index,
        gateway,
    })
}
