//! What is seen on the underlay, by a packet socket.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
            sockopt,
        },
        time::TimeVal,
    },
};

use crate::{
    lab::{Host, PORT},
    namespace::Namespace,
};

/// ESP frames that are kept.
const KEPT: usize = 100;

const UDP: u8 = 17;
const ESP: u8 = 50;
/// Of IPv6.
const FRAGMENT: u8 = 44;

/// A packet; each is seen where it enters the switch and where it leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// As on the wire, with its IP header.
    pub(crate) length: usize,
    pub(crate) fragment: bool,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With its SPI.
    Esp(u32),
    /// VXLAN to the port of encrypted networks.
    Clear,
    Other,
}

/// Goes on from the moment it is made until it is asked what it saw.
pub(crate) struct Capture {
    esp: Arc<Mutex<Vec<Vec<u8>>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Capture {
    pub(crate) fn start(switch: &Namespace) -> Self {
        let socket = switch.enter(open);
        let (seen, ended) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let esp = Arc::<Mutex<Vec<_>>>::default();
        let (sees, keeps, ends) = (seen.clone(), esp.clone(), ended.clone());
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            loop {
                match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(length) => {
                        let Some(found) = read(&buffer[..length]) else { continue };
                        sees.lock().unwrap().push(found);
                        let mut kept = keeps.lock().unwrap();
                        if matches!(found.kind, Kind::Esp(_)) && kept.len() < KEPT {
                            kept.push(buffer[..length].to_vec());
                        }
                    }
                    // Nothing more is queued.
                    Err(Errno::EAGAIN) if ends.load(Ordering::SeqCst) => return,
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(error) => panic!("the capture failed: {error}"),
                }
            }
        });
        Self { esp, seen, ended, thread }
    }

    /// What was seen up to now.
    pub(crate) fn peek(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The first ESP packets to a host, with their IPv4 headers.
    pub(crate) fn esp_to(&self, host: &Host) -> Vec<Vec<u8>> {
        let IpAddr::V4(endpoint) = host.endpoint else { panic!("IPv6") };
        let esp = self.esp.lock().unwrap();
        let packets = esp.iter().map(|frame| frame[14..].to_vec());
        packets.filter(|packet| packet[16..20] == endpoint.octets()).collect()
    }

    /// Everything that was seen.
    pub(crate) fn end(self) -> Vec<Seen> {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.join().expect("the capture");
        self.seen.lock().unwrap().clone()
    }
}

/// How many are ESP, and how many in clear.
pub(crate) fn count(seen: &[Seen]) -> (usize, usize) {
    let esp = seen.iter().filter(|seen| matches!(seen.kind, Kind::Esp(_))).count();
    (esp, seen.iter().filter(|seen| seen.kind == Kind::Clear).count())
}

fn open() -> OwnedFd {
    let (family, flags) = (AddressFamily::Packet, SockFlag::SOCK_CLOEXEC);
    let socket = socket(family, SockType::Raw, flags, SockProtocol::EthAll).expect("root may");
    setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).expect("root may");
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 200_000)).expect("a time-out");
    socket
}

fn read(frame: &[u8]) -> Option<Seen> {
    let packet = frame.get(14..)?;
    let (length, fragment, protocol, payload) = match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0800 => {
            let more_or_offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff;
            let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            (total, more_or_offset != 0, packet[9], &packet[20..])
        }
        0x86dd => {
            let total = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            (total, packet[6] == FRAGMENT, packet[6], &packet[40..])
        }
        _ => return None,
    };
    let kind = match protocol {
        ESP => Kind::Esp(u32::from_be_bytes(payload[..4].try_into().unwrap())),
        UDP if payload[2..4] == PORT.to_be_bytes() => Kind::Clear,
        _ => Kind::Other,
    };
    Some(Seen { length, fragment, kind })
}
