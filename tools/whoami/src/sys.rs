//! The few system calls that the standard library lacks. All `unsafe` of this program is here.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

/// gethostname(2).
pub(crate) fn hostname() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the kernel writes at most the length it is given into a buffer that we own and that long.
    let result = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) };
    if result != 0 {
        return "unknown".to_owned();
    }
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// SIGTERM and SIGINT, kept back from this thread and from those it starts later, to be waited for.
pub(crate) struct EndSignals(libc::sigset_t);

impl EndSignals {
    /// Must be called before the first thread is started.
    pub(crate) fn block() -> io::Result<Self> {
        // SAFETY: a sigset_t is plain data, made valid by sigemptyset before any use; both pointers are to our own variable.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
                0 => Ok(Self(set)),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }

    /// Blocks until one of them arrives.
    pub(crate) fn wait(&self) {
        let mut signal = 0;
        // SAFETY: the set was initialised in `block`, the kernel writes one int to `signal`. Its only error, EINVAL, is for a set of invalid signals.
        unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
    }

    /// Blocks until one of them arrives, or for this time; whether one did.
    pub(crate) fn wait_for(&self, time: Duration) -> bool {
        let time = libc::timespec {
            tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        // SAFETY: the set was initialised in `block`, and the time just now; nothing is to be written.
        let signal =
            unsafe { libc::sigtimedwait(&raw const self.0, std::ptr::null_mut(), &raw const time) };
        signal > 0
    }
}

/// How an ICMP socket presents what it receives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IcmpKind {
    /// A datagram socket: the message alone; the kernel chooses the identifier (icmp(7), ping_group_range).
    Datagram,
    /// A raw socket, which needs CAP_NET_RAW: the IP header first, and everybody's messages.
    Raw,
}

/// An ICMP socket, as a `UdpSocket` for its connect, send and receive, which are those of any IPv4 message socket.
pub(crate) fn icmp_socket() -> io::Result<(UdpSocket, IcmpKind)> {
    match inet_socket(libc::SOCK_DGRAM) {
        Ok(socket) => Ok((socket, IcmpKind::Datagram)),
        Err(_) => Ok((inet_socket(libc::SOCK_RAW)?, IcmpKind::Raw)),
    }
}

fn inet_socket(kind: libc::c_int) -> io::Result<UdpSocket> {
    // SAFETY: socket(2) takes no pointers; a descriptor that is not negative is new and nobody else's.
    let fd = unsafe {
        let fd = libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, libc::IPPROTO_ICMP);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    Ok(UdpSocket::from(fd))
}

/// Forbids fragmentation of what this socket sends, here and on the way (IP_MTU_DISCOVER, ip(7)).
pub(crate) fn forbid_fragments(socket: &UdpSocket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let value: libc::c_int = libc::IP_PMTUDISC_DO;
    // SAFETY: the descriptor is open as long as `socket`; the pointer is to a c_int whose size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
