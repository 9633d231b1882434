//! Requests and answers on a generic netlink socket, one at a time.
//!
//! A socket belongs to the network namespace of the thread that opened it, for ever.

use std::{io, path::Path, time::Duration};

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_GENERIC,
};
use swarm_netns::Namespace;
use tokio::time::timeout;

use crate::{
    Result,
    attribute::{Attribute, find},
    message::Message,
    uapi,
};

/// The kernel answers at once, save while it loads a scheduler's module.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// `NLMSGERR_ATTR_MSG`: the kernel's words, in an extended acknowledgement.
const EXPLANATION: u16 = 1;
const NETLINK_HEADER: usize = 16;

/// Why there is no good answer.
#[derive(Debug)]
pub(crate) enum Failure {
    Io(io::Error),
    Kernel { errno: i32, explanation: Option<String> },
    Malformed(String),
    TimedOut,
}

/// One message of the kernel's.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Message(Message),
    /// An acknowledgement, or a dump's end.
    Finished,
    Failed {
        errno: i32,
        explanation: Option<String>,
    },
}

pub(crate) struct Socket {
    socket: TokioSocket,
    sequence: u32,
    /// A request whose answers were not all received, since its caller went away.
    unanswered: Option<u32>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = TokioSocket::new(NETLINK_GENERIC)?;
        // Error messages then carry the kernel's words instead of our request.
        socket.socket_ref().set_ext_ack(true)?;
        socket.socket_ref().set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0, unanswered: None })
    }

    /// Opens a socket in the network namespace at `path`.
    pub(crate) async fn open_in(path: &Path) -> Result<io::Result<Self>> {
        Ok(Namespace::open(path)?.run(Self::open).await?)
    }

    /// Sends a message of family number `family`; gives what the kernel answers before its acknowledgement or the
    /// dump's end.
    pub(crate) async fn request(
        &mut self,
        family: u16,
        flags: u16,
        message: Message,
    ) -> std::result::Result<Vec<Message>, Failure> {
        timeout(PATIENCE, self.exchange(family, flags, message))
            .await
            .unwrap_or(Err(Failure::TimedOut))
    }

    async fn exchange(
        &mut self,
        family: u16,
        flags: u16,
        message: Message,
    ) -> std::result::Result<Vec<Message>, Failure> {
        if let Some(sequence) = self.unanswered {
            match self.answers(sequence).await {
                // Whose request it was does not wait for it.
                Ok(_) | Err(Failure::Kernel { .. }) => {}
                Err(failure) => return Err(failure),
            }
        }
        self.sequence = self.sequence.wrapping_add(1);
        let request = encode(family, flags, self.sequence, message);
        self.socket.send_to(&request, &SocketAddr::new(0, 0)).await.map_err(Failure::Io)?;
        self.unanswered = Some(self.sequence);
        self.answers(self.sequence).await
    }

    /// Everything that the kernel answers to `sequence`.
    async fn answers(&mut self, sequence: u32) -> std::result::Result<Vec<Message>, Failure> {
        let mut messages = Vec::new();
        loop {
            let received = self.socket.recv_from_full().await;
            // Nothing more can be expected of a broken socket.
            let (datagram, _) = received.map_err(|error| {
                self.unanswered = None;
                Failure::Io(error)
            })?;
            for answer in decode(&datagram, sequence)? {
                match answer {
                    Answer::Message(message) => messages.push(message),
                    Answer::Finished => {
                        self.unanswered = None;
                        return Ok(messages);
                    }
                    Answer::Failed { errno, explanation } => {
                        self.unanswered = None;
                        return Err(Failure::Kernel { errno, explanation });
                    }
                }
            }
        }
    }
}

/// A request as bytes.
pub(crate) fn encode(family: u16, flags: u16, sequence: u32, message: Message) -> Vec<u8> {
    let version = if family == uapi::CONTROLLER { 2 } else { uapi::VERSION };
    let header = GenlHeader { cmd: message.command(), version };
    let mut request = NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::InnerMessage(GenlMessage::new(header, message, family)),
    );
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    request.header.sequence_number = sequence;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    bytes
}

/// Those messages of a datagram that answer `sequence`; others are late answers to somebody who went away.
fn decode(datagram: &[u8], sequence: u32) -> std::result::Result<Vec<Answer>, Failure> {
    let mut rest = datagram;
    let mut answers = Vec::new();
    while !rest.is_empty() {
        let message = NetlinkMessage::<GenlMessage<Message>>::deserialize(rest)
            .map_err(|error| Failure::Malformed(error.to_string()))?;
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        if message.header.sequence_number != sequence {
            continue;
        }
        match message.payload {
            NetlinkPayload::InnerMessage(message) => answers.push(Answer::Message(message.payload)),
            NetlinkPayload::Error(error) => {
                answers.push(outcome(error.raw_code(), explanation(message.header.flags, &error)))
            }
            NetlinkPayload::Done(done) => answers.push(outcome(done.code, None)),
            NetlinkPayload::Overrun(_) => {
                return Err(Failure::Malformed("messages were lost".into()));
            }
            _ => {}
        }
    }
    Ok(answers)
}

fn outcome(code: i32, explanation: Option<String>) -> Answer {
    if code == 0 {
        return Answer::Finished;
    }
    Answer::Failed { errno: i32::try_from(code.unsigned_abs()).unwrap_or(i32::MAX), explanation }
}

/// The kernel's words, after the header of our request (which follows in whole unless capped).
fn explanation(flags: u16, error: &ErrorMessage) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = &error.header;
    let offset = if flags & NLM_F_CAPPED == 0 {
        let length = u32::from_ne_bytes(request.get(..4)?.try_into().ok()?);
        usize::try_from(length).ok()?.checked_next_multiple_of(4)?
    } else {
        NETLINK_HEADER
    };
    let attributes = Attribute::parse_all(request.get(offset..)?).ok()?;
    find(&attributes, EXPLANATION)?.as_string().ok()
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLM_F_DUMP;
    use proptest::prelude::*;

    use super::*;

    fn message(command: u8, attributes: Vec<Attribute>) -> Message {
        Message { command, attributes }
    }

    /// An `NLMSG_ERROR`.
    fn error(sequence: u32, flags: u16, code: i32, after: &[u8]) -> Vec<u8> {
        let length = u32::try_from(20 + after.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([2u16, flags].map(u16::to_ne_bytes).concat());
        bytes.extend([sequence, 0].map(u32::to_ne_bytes).concat());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(after);
        bytes
    }

    #[test]
    fn a_request_has_the_flags_and_is_read_back() {
        let sent = message(1, vec![Attribute::u32(5, 257)]);
        let bytes = encode(30, 0x300, 7, sent.clone());
        assert_eq!(bytes[4..8], [30, 0, 0x05, 0x03]);
        assert_eq!(bytes[16..20], [1, 1, 0, 0]);
        assert_eq!(decode(&bytes, 7).unwrap(), [Answer::Message(sent)]);
    }

    #[test]
    fn answers_to_others_are_passed_over() {
        let late = encode(30, 0, 1, message(1, vec![]));
        let ours = encode(30, 0, 2, message(4, vec![]));
        let datagram = [late, ours, error(1, 0, -3, &[]), error(2, 0, 0, &[])].concat();
        assert_eq!(
            decode(&datagram, 2).unwrap(),
            [Answer::Message(message(4, vec![])), Answer::Finished]
        );
    }

    #[test]
    fn an_extended_acknowledgement_gives_the_kernels_words() {
        let words = Attribute::emit_all(&[Attribute::string(1, "no way")]);
        let expected = [Answer::Failed { errno: 22, explanation: Some("no way".into()) }];
        let capped = [vec![0; 16], words.clone()].concat();
        assert_eq!(decode(&error(1, 0x300, -22, &capped), 1).unwrap(), expected);
        let whole = [24u32.to_ne_bytes().to_vec(), vec![0; 20], words].concat();
        assert_eq!(decode(&error(1, 0x200, -22, &whole), 1).unwrap(), expected);
    }

    #[test]
    fn the_most_negative_error_number_is_one() {
        let failed = Answer::Failed { errno: i32::MAX, explanation: None };
        assert_eq!(decode(&error(1, 0, i32::MIN, &[0; 16]), 1).unwrap(), [failed]);
    }

    /// The controller is there even where IPVS is not.
    #[tokio::test]
    async fn the_answers_to_a_dropped_request_do_not_disturb_the_next() {
        let mut socket = Socket::open().unwrap();
        for _ in 0..2 {
            let dump = encode(uapi::CONTROLLER, NLM_F_DUMP, 99, message(uapi::GET_FAMILY, vec![]));
            socket.socket.send_to(&dump, &SocketAddr::new(0, 0)).await.unwrap();
            socket.unanswered = Some(99);
            let name = Attribute::string(uapi::FAMILY_NAME_ATTRIBUTE, "nlctrl");
            let request = message(uapi::GET_FAMILY, vec![name]);
            let answers = socket.request(uapi::CONTROLLER, 0, request).await.unwrap();
            assert_eq!(answers.len(), 1);
            let id = find(&answers[0].attributes, uapi::FAMILY_ID).unwrap().as_u16().unwrap();
            assert_eq!((id, socket.unanswered), (uapi::CONTROLLER, None));
        }
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 0);
        }

        /// Mostly valid messages reach deeper than noise does.
        #[test]
        fn a_damaged_datagram_is_read_without_panic(
            code in any::<i32>(), flags in any::<u16>(), after in prop::collection::vec(any::<u8>(), 0..60),
            at in 0usize..100, to in any::<u8>(), cut in 0usize..100,
        ) {
            let words = Attribute::emit_all(&[Attribute::string(1, "words")]);
            let good = encode(30, 0, 0, message(1, vec![Attribute::nest(1, &[Attribute::u32(5, 1)])]));
            let mut datagram = [good, error(0, flags, code, &[after, words].concat())].concat();
            let at = at % datagram.len();
            datagram[at] = to;
            let _ = decode(&datagram, 0);
            datagram.truncate(datagram.len() - cut.min(datagram.len()));
            let _ = decode(&datagram, 0);
        }
    }
}
