//! The rtnetlink requests this crate makes, each with the words that describe it should it fail.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use crate::names::Mac;
use crate::settings::{PortSettings, Vxlan};

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
const PUT: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// One change to make.
#[derive(Debug)]
pub(crate) struct Request {
    /// For the error text: `add address 10.0.1.1/24 to br0`.
    pub(crate) action: String,
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
    /// Answers that are as good as success.
    pub(crate) tolerate: &'static [Errno],
}

impl Request {
    fn new(action: String, message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { action, message, flags, tolerate: &[] }
    }

    /// For deletions, and for repairs of what others may delete meanwhile.
    pub(crate) fn gone_is_fine(mut self) -> Self {
        self.tolerate = &[Errno::ENODEV, Errno::ENOENT, Errno::ESRCH, Errno::EADDRNOTAVAIL];
        self
    }
}

fn kind(kind: InfoKind, data: Option<InfoData>) -> LinkAttribute {
    let mut info = vec![LinkInfo::Kind(kind)];
    info.extend(data.map(LinkInfo::Data));
    LinkAttribute::LinkInfo(info)
}

fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = attributes;
    message
}

fn up(mut message: LinkMessage) -> LinkMessage {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

/// Creates a VXLAN device in the namespace behind `namespace_fd`. Its UDP socket stays in the namespace of the connection that
/// sends this (drivers/net/vxlan/vxlan_core.c: `vxlan->net` is the requester's).
pub(crate) fn add_vxlan(name: &str, vxlan: Vxlan, mtu: u32, namespace_fd: Option<i32>) -> Request {
    let data = vec![
        InfoVxlan::Id(vxlan.vni),
        InfoVxlan::Port(vxlan.port),
        match vxlan.local {
            IpAddr::V4(local) => InfoVxlan::Local(local),
            IpAddr::V6(local) => InfoVxlan::Local6(local),
        },
        InfoVxlan::Learning(vxlan.learning),
        InfoVxlan::Proxy(vxlan.proxy),
    ];
    let mut attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Mtu(mtu),
        kind(InfoKind::Vxlan, Some(InfoData::Vxlan(data))),
    ];
    attributes.extend(namespace_fd.map(LinkAttribute::NetNsFd));
    let action = format!("create vxlan device {name} with id {}", vxlan.vni);
    Request::new(action, RouteNetlinkMessage::NewLink(link(attributes)), NEW)
}

/// Creates a bridge and sets it up. Multicast snooping is off: there is no multicast between nodes, and it costs at every join.
pub(crate) fn add_bridge(name: &str, mac: Mac, mtu: u32) -> Request {
    let data = InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)]);
    let message = up(link(vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::Mtu(mtu),
        kind(InfoKind::Bridge, Some(data)),
    ]));
    let action = format!("create bridge {name}");
    Request::new(action, RouteNetlinkMessage::NewLink(message), NEW)
}

/// A veth pair: the port on a bridge here, its peer in another namespace.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) port: &'a str,
    pub(crate) bridge: u32,
    pub(crate) peer: &'a str,
    pub(crate) peer_mac: Mac,
    pub(crate) peer_namespace_fd: i32,
    pub(crate) mtu: u32,
}

/// Creates the pair, the port up and on its bridge. The peer cannot come up yet: it has no partner while it is made
/// (drivers/net/veth.c, `veth_open`).
pub(crate) fn add_veth(veth: &Veth<'_>) -> Request {
    let peer = link(vec![
        LinkAttribute::IfName(veth.peer.into()),
        LinkAttribute::Address(veth.peer_mac.to_vec()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::NetNsFd(veth.peer_namespace_fd),
    ]);
    let message = up(link(vec![
        LinkAttribute::IfName(veth.port.into()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::Controller(veth.bridge),
        kind(InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(peer)))),
    ]));
    let action = format!("create veth pair {} and {}", veth.port, veth.peer);
    Request::new(action, RouteNetlinkMessage::NewLink(message), NEW)
}

/// Puts a link on a bridge.
pub(crate) fn set_bridge(name: &str, bridge: u32) -> Request {
    let action = format!("put {name} on its bridge");
    change(action, name, vec![LinkAttribute::Controller(bridge)])
}

/// Settings of a bridge port; the link must be on its bridge already.
pub(crate) fn set_port(name: &str, settings: PortSettings) -> Request {
    let data = vec![
        InfoBridgePort::HairpinMode(settings.hairpin),
        InfoBridgePort::Isolated(settings.isolated),
        InfoBridgePort::Learning(settings.learning),
        InfoBridgePort::UnicastFlood(settings.unicast_flood),
    ];
    let info = LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(data)),
    ]);
    change(format!("set up bridge port {name}"), name, vec![info])
}

pub(crate) fn set_alias(name: &str, alias: String) -> Request {
    let action = format!("set alias of {name}");
    change(action, name, vec![LinkAttribute::IfAlias(alias)])
}

pub(crate) fn set_mtu(name: &str, mtu: u32) -> Request {
    let action = format!("set mtu of {name} to {mtu}");
    change(action, name, vec![LinkAttribute::Mtu(mtu)])
}

pub(crate) fn set_mac(name: &str, mac: Mac) -> Request {
    let action = format!("set address of {name}");
    change(action, name, vec![LinkAttribute::Address(mac.to_vec())])
}

pub(crate) fn set_up(name: &str) -> Request {
    let message = up(link(vec![LinkAttribute::IfName(name.into())]));
    let action = format!("bring up {name}");
    Request::new(action, RouteNetlinkMessage::NewLink(message), 0)
}

fn change(action: String, name: &str, mut attributes: Vec<LinkAttribute>) -> Request {
    attributes.insert(0, LinkAttribute::IfName(name.into()));
    Request::new(action, RouteNetlinkMessage::NewLink(link(attributes)), 0)
}

pub(crate) fn delete_link(name: &str) -> Request {
    let message = link(vec![LinkAttribute::IfName(name.into())]);
    let action = format!("delete link {name}");
    Request::new(action, RouteNetlinkMessage::DelLink(message), 0).gone_is_fine()
}

/// The group of links about to be deleted; a number nobody is likely to use.
const DOOMED: u32 = 0x5357_4d44;

/// Deletes these links together, those that exist.
pub(crate) fn delete_links(names: &[String]) -> Vec<Request> {
    let doom = |name: &String| {
        change(format!("doom link {name}"), name, vec![LinkAttribute::Group(DOOMED)]).gone_is_fine()
    };
    let group = RouteNetlinkMessage::DelLink(link(vec![LinkAttribute::Group(DOOMED)]));
    let delete = Request::new("delete doomed links".into(), group, 0).gone_is_fine();
    names.iter().map(doom).chain([delete]).collect()
}

fn address(index: u32, addr: Ipv4Addr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    message.header.prefix_len = prefix_len;
    message.attributes =
        vec![AddressAttribute::Local(addr.into()), AddressAttribute::Address(addr.into())];
    message
}

pub(crate) fn add_address(index: u32, addr: Ipv4Addr, prefix_len: u8) -> Request {
    let message = RouteNetlinkMessage::NewAddress(address(index, addr, prefix_len));
    Request::new(format!("add address {addr}/{prefix_len}"), message, PUT)
}

pub(crate) fn delete_address(index: u32, addr: Ipv4Addr, prefix_len: u8) -> Request {
    let message = RouteNetlinkMessage::DelAddress(address(index, addr, prefix_len));
    Request::new(format!("delete address {addr}/{prefix_len}"), message, 0).gone_is_fine()
}

fn route(protocol: RouteProtocol, scope: RouteScope) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = protocol;
    message.header.scope = scope;
    message.header.kind = RouteType::Unicast;
    message
}

/// The route that comes with an address, put back after somebody deleted it.
pub(crate) fn add_connected_route(index: u32, subnet: ipnet::Ipv4Net, source: Ipv4Addr) -> Request {
    let mut message = route(RouteProtocol::Kernel, RouteScope::Link);
    message.header.destination_prefix_length = subnet.prefix_len();
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(subnet.network())),
        RouteAttribute::PrefSource(RouteAddress::Inet(source)),
        RouteAttribute::Oif(index),
    ];
    let action = format!("add route to {subnet}");
    Request::new(action, RouteNetlinkMessage::NewRoute(message), PUT)
}

pub(crate) fn add_default_route(index: u32, gateway: Ipv4Addr) -> Request {
    let mut message = route(RouteProtocol::Boot, RouteScope::Universe);
    message.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
    let action = format!("add default route via {gateway}");
    Request::new(action, RouteNetlinkMessage::NewRoute(message), PUT)
}

fn neighbour(
    family: AddressFamily,
    index: u32,
    state: NeighbourState,
    flags: NeighbourFlags,
    attributes: Vec<NeighbourAttribute>,
) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = index;
    message.header.state = state;
    message.header.flags = flags;
    message.attributes = attributes;
    message
}

pub(crate) fn put_neighbour(index: u32, addr: Ipv4Addr, mac: Mac) -> Request {
    let message = neighbour(
        AddressFamily::Inet,
        index,
        NeighbourState::Permanent,
        NeighbourFlags::empty(),
        vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ],
    );
    let action = format!("set neighbour {addr}");
    Request::new(action, RouteNetlinkMessage::NewNeighbour(message), PUT)
}

pub(crate) fn delete_neighbour(index: u32, addr: Ipv4Addr) -> Request {
    let message = neighbour(
        AddressFamily::Inet,
        index,
        NeighbourState::None,
        NeighbourFlags::empty(),
        vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(addr))],
    );
    let action = format!("delete neighbour {addr}");
    Request::new(action, RouteNetlinkMessage::DelNeighbour(message), 0).gone_is_fine()
}

/// `bridge fdb replace MAC dev vxlan0 dst VTEP self permanent`.
pub(crate) fn put_remote(index: u32, mac: Mac, vtep: IpAddr) -> Request {
    let message = neighbour(
        AddressFamily::Bridge,
        index,
        NeighbourState::Permanent,
        NeighbourFlags::Own,
        vec![
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
            NeighbourAttribute::Destination(vtep.into()),
        ],
    );
    let action = format!("set fdb entry {} behind {vtep}", show(mac));
    Request::new(action, RouteNetlinkMessage::NewNeighbour(message), PUT)
}

/// Without a destination: every destination of the MAC goes.
pub(crate) fn delete_remote(index: u32, mac: Mac) -> Request {
    let message = neighbour(
        AddressFamily::Bridge,
        index,
        NeighbourState::None,
        NeighbourFlags::Own,
        vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())],
    );
    let action = format!("delete fdb entry {}", show(mac));
    Request::new(action, RouteNetlinkMessage::DelNeighbour(message), 0).gone_is_fine()
}

/// `bridge fdb replace MAC dev PORT master static`.
pub(crate) fn put_port_mac(index: u32, mac: Mac) -> Request {
    let message = neighbour(
        AddressFamily::Bridge,
        index,
        NeighbourState::Noarp,
        NeighbourFlags::Controller,
        vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())],
    );
    let action = format!("set bridge fdb entry {}", show(mac));
    Request::new(action, RouteNetlinkMessage::NewNeighbour(message), PUT)
}

pub(crate) fn get_links() -> RouteNetlinkMessage {
    let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    RouteNetlinkMessage::GetLink(link(vec![mask]))
}

pub(crate) fn get_link(name: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(link(vec![
        LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
        LinkAttribute::IfName(name.into()),
    ]))
}

pub(crate) fn get_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

pub(crate) fn get_routes() -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    RouteNetlinkMessage::GetRoute(message)
}

pub(crate) fn get_neighbours() -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    RouteNetlinkMessage::GetNeighbour(message)
}

pub(crate) fn get_fdb() -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    RouteNetlinkMessage::GetNeighbour(message)
}

fn show(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
