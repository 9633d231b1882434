//! An outsider's packets: VXLAN in clear, from any address.

use std::net::{IpAddr, Ipv4Addr};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use std::os::fd::AsRawFd;

use crate::{
    lab::{Host, PORT},
    namespace::Namespace,
};

/// Sends, from inside `outsider`, `count` frames of the network to `host` as if `source` had sent them. They hold a
/// datagram for the task's port.
pub(crate) fn send(outsider: &Namespace, source: IpAddr, host: &Host, port: u16, count: usize) {
    let (IpAddr::V4(source), IpAddr::V4(target)) = (source, host.endpoint) else { panic!("IPv6") };
    let inner = packet(Ipv4Addr::new(10, 0, 2, 1), host.task_address(), &udp(9, port, b"forged"));
    let mac = [0x02, 0x42, 10, 0, 2, host.number];
    let frame = [&mac[..], &[2, 0, 0, 0, 0, 9], &[8, 0], &inner].concat();
    let vxlan = [&[8, 0, 0, 0][..], &(4098u32 << 8).to_be_bytes(), &frame].concat();
    let outer = packet(source, target, &udp(40000, PORT, &vxlan));
    replay(outsider, host, &outer, count);
}

/// Sends an IPv4 packet as it is to `host`, from inside `outsider`.
pub(crate) fn replay(outsider: &Namespace, host: &Host, packet: &[u8], count: usize) {
    let IpAddr::V4(target) = host.endpoint else { panic!("IPv6") };
    outsider.enter(|| {
        let (family, flags) = (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC);
        let raw = socket(family, SockType::Raw, flags, SockProtocol::Raw).expect("root may");
        let [a, b, c, d] = target.octets();
        let to = SockaddrIn::new(a, b, c, d, 0);
        for _ in 0..count {
            sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty()).expect("the packet is sent");
        }
    });
}

/// Without a checksum, which IPv4 allows.
fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("short");
    let header = [source, destination, length, 0].map(u16::to_be_bytes).concat();
    [&header, payload].concat()
}

fn packet(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("short").to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 7, 0, 0, 64, 17, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum: u32 =
        header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded");
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&header, payload].concat()
}
