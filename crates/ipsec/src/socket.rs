//! Requests and answers on an xfrm netlink socket, one at a time; blocking.
//!
//! A socket belongs to the network namespace of the thread that opened it.

use std::{io, os::fd::AsRawFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_XFRM};
use nix::{
    errno::Errno,
    sys::{
        socket::{MsgFlags, recv, setsockopt, sockopt},
        time::TimeVal,
    },
};
use zeroize::Zeroizing;

use crate::wire;

/// The kernel answers at once, save while it loads a cipher's modules.
const PATIENCE: TimeVal = TimeVal::new(30, 0);
/// Dumps come in datagrams of up to 32 KiB (`netlink_dump`).
const DATAGRAM: usize = 64 * 1024;
const HEADER: usize = 16;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG`: the kernel's words, in an extended acknowledgement.
const EXPLANATION: u16 = 1;

/// `XFRM_MSG_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Command {
    NewSa = 0x10,
    DeleteSa = 0x11,
    GetSa = 0x12,
    DeletePolicy = 0x14,
    GetPolicy = 0x15,
    UpdatePolicy = 0x19,
}

/// Why there is no good answer.
#[derive(Debug)]
pub(crate) enum Failure {
    Io(io::Error),
    Kernel { errno: Errno, words: Option<String> },
    Malformed,
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer")
            }
            Failure::Io(error) => error,
            Failure::Kernel { errno, words: None } => errno.into(),
            Failure::Kernel { errno, words: Some(words) } => {
                let kind = io::Error::from(errno).kind();
                io::Error::new(kind, format!("{words} ({})", errno.desc()))
            }
            Failure::Malformed => {
                io::Error::new(io::ErrorKind::InvalidData, "unexpected netlink answer")
            }
        }
    }
}

/// What a message of the kernel's is.
#[derive(Debug, PartialEq, Eq)]
enum Reply<'a> {
    Body(&'a [u8]),
    /// An acknowledgement, or a dump's end.
    Finished,
    Failed(Errno, Option<String>),
}

pub(crate) struct Xfrm {
    socket: Socket,
    /// Associations are read with their keys.
    buffer: Zeroizing<Vec<u8>>,
    sequence: u32,
}

impl Xfrm {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_XFRM)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
        // Error messages then carry the kernel's words instead of our request, which may hold a key.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket, buffer: Zeroizing::new(vec![0; DATAGRAM]), sequence: 0 })
    }

    /// Has the kernel carry out a command.
    pub(crate) fn execute(&mut self, command: Command, body: &[u8]) -> Result<(), Failure> {
        self.exchange(command, NLM_F_ACK, body, |_| ())
    }

    /// Shows `read` the body of every object of a kind.
    pub(crate) fn dump(
        &mut self,
        command: Command,
        read: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        self.exchange(command, NLM_F_DUMP, &[], read)
    }

    fn exchange(
        &mut self,
        command: Command,
        flags: u16,
        body: &[u8],
        mut read: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        self.sequence += 1;
        let request = request(command, flags, self.sequence, body);
        self.socket.send_to(&request, &SocketAddr::new(0, 0), 0).map_err(Failure::Io)?;
        loop {
            let length = self.receive().map_err(|errno| Failure::Io(errno.into()))?;
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                match reply(&mut rest, self.sequence).ok_or(Failure::Malformed)? {
                    Some(Reply::Body(body)) => read(body),
                    Some(Reply::Finished) => return Ok(()),
                    Some(Reply::Failed(errno, words)) => {
                        return Err(Failure::Kernel { errno, words });
                    }
                    None => {}
                }
            }
        }
    }

    fn receive(&mut self) -> Result<usize, Errno> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }
}

fn request(command: Command, flags: u16, sequence: u32, body: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = HEADER + body.len();
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    bytes.extend(u32::try_from(length).expect("requests are small").to_ne_bytes());
    bytes.extend((command as u16).to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]); // port id: the kernel knows
    bytes.extend(body);
    bytes
}

/// Takes the next message off `rest`: `None` if malformed, `Some(None)` if it answers something else.
fn reply<'a>(rest: &mut &'a [u8], sequence: u32) -> Option<Option<Reply<'a>>> {
    let message = NetlinkBuffer::new_checked(*rest).ok()?;
    let length = usize::try_from(message.length()).ok()?;
    let body = rest.get(HEADER..length)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    if message.sequence_number() != sequence {
        return Some(None);
    }
    Some(match message.message_type() {
        NLMSG_NOOP => None,
        NLMSG_ERROR => Some(outcome(code(body)?, explanation(message.flags(), body))),
        NLMSG_DONE => Some(outcome(code(body).unwrap_or(0), None)),
        _ => Some(Reply::Body(body)),
    })
}

fn code(body: &[u8]) -> Option<i32> {
    body.get(..4)?.try_into().ok().map(i32::from_ne_bytes)
}

fn outcome<'a>(code: i32, words: Option<String>) -> Reply<'a> {
    match code {
        0 => Reply::Finished,
        _ => Reply::Failed(Errno::from_raw(code.wrapping_neg()), words),
    }
}

/// The kernel's words, behind the error number and the header of our request (which follows in whole unless capped).
fn explanation(flags: u16, body: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = body.get(4..)?;
    let length = if flags & NLM_F_CAPPED == 0 {
        let length = u32::from_ne_bytes(request.get(..4)?.try_into().ok()?);
        usize::try_from(length).ok()?.checked_next_multiple_of(4)?
    } else {
        HEADER
    };
    let words = wire::find(request.get(length..)?, EXPLANATION)?;
    let text = std::str::from_utf8(words.split(|byte| *byte == 0).next()?);
    text.ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An `NLMSG_ERROR`.
    fn error(sequence: u32, flags: u16, code: i32, after: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + 4 + after.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([NLMSG_ERROR, flags].map(u16::to_ne_bytes).concat());
        bytes.extend([sequence, 0].map(u32::to_ne_bytes).concat());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(after);
        bytes
    }

    fn replies(mut datagram: &[u8], sequence: u32) -> Option<Vec<Reply<'_>>> {
        let mut found = vec![];
        while !datagram.is_empty() {
            found.extend(reply(&mut datagram, sequence)?);
        }
        Some(found)
    }

    #[test]
    fn a_request_is_read_back_and_late_answers_to_others_are_passed_over() {
        let late = request(Command::GetSa, NLM_F_DUMP, 1, b"late");
        let ours = request(Command::NewSa, NLM_F_ACK, 2, b"ours");
        assert_eq!(ours[..8], [20, 0, 0, 0, 0x10, 0, 5, 0]);
        let datagram = [&late[..], &ours, &error(1, 0, -3, &[]), &error(2, 0, 0, &[])].concat();
        assert_eq!(replies(&datagram, 2).unwrap(), [Reply::Body(b"ours"), Reply::Finished]);
    }

    #[test]
    fn a_refusal_has_the_kernels_words() {
        let words = [&[11, 0, 1, 0][..], b"no way\0\0"].concat();
        let failed = Reply::Failed(Errno::EINVAL, Some("no way".into()));
        let capped = [vec![0; HEADER], words.clone()].concat();
        assert_eq!(replies(&error(1, 0x300, -22, &capped), 1).unwrap(), [failed]);
        let whole = [24u32.to_ne_bytes().to_vec(), vec![0; 20], words].concat();
        let datagram = error(1, 0x200, -22, &whole);
        let found = replies(&datagram, 1).unwrap();
        let Some(Reply::Failed(errno, words)) = found.into_iter().next() else { panic!("success") };
        let error = io::Error::from(Failure::Kernel { errno, words });
        assert_eq!(error.to_string(), "no way (Invalid argument)");
    }

    #[test]
    fn a_length_that_goes_beyond_the_datagram_is_malformed() {
        let whole = error(1, 0, 0, &[]);
        assert_eq!(replies(&whole[..HEADER + 2], 1), None);
        assert_eq!(replies(&whole[..HEADER - 2], 1), None);
        let mut short = whole;
        short[..4].copy_from_slice(&3u32.to_ne_bytes());
        assert_eq!(replies(&short, 1), None);
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_without_panic(
            noise in prop::collection::vec(any::<u8>(), 0..200), code: i32, flags: u16,
            after in prop::collection::vec(any::<u8>(), 0..60), at in 0usize..80, to: u8,
        ) {
            let _ = replies(&noise, 0);
            let mut datagram = [&request(Command::GetSa, 0, 0, &after)[..], &error(0, flags, code, &after)].concat();
            let at = at % datagram.len();
            datagram[at] = to;
            let _ = replies(&datagram, 0);
        }
    }
}
