//! From the bytes a client sent to one question, and from records back to the bytes of a reply. Decoding and
//! encoding are hickory's; the limits on both are set here.

use std::net::SocketAddr;

use hickory_proto::op::{
    Edns, Header, LowerQuery, Message, MessageType, Metadata, OpCode, ResponseCode,
};
use hickory_proto::rr::{Name, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncoder};
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

/// The longest query that is read, and the largest UDP reply that is sent or taken: what EDNS0 clients ask for at
/// most in practice. Loopback's MTU is 65536, so nothing of that size is fragmented on the way to the task.
pub(crate) const MAX_UDP_SIZE: usize = 4096;
/// The largest UDP reply to a client that did not say it takes more (RFC 1035 section 4.2.1).
const PLAIN_UDP_SIZE: usize = 512;
/// The size of the header (RFC 1035 section 4.1.1).
pub(crate) const HEADER_SIZE: usize = 12;

/// One well-formed question of a client.
pub(crate) struct Query {
    request: Request,
}

/// Bytes that are no query to be looked up.
#[derive(Debug)]
pub(crate) enum Rejected {
    /// Too short to be answered, or itself a response: an answer could start a loop.
    Silently,
    /// To be told so with this reply.
    With(Vec<u8>),
}

impl Query {
    /// Decodes what `source` sent. Only standard queries (RFC 1035 section 4.1.1) of one question pass.
    pub(crate) fn parse(
        raw: Vec<u8>,
        source: SocketAddr,
        protocol: Protocol,
    ) -> Result<Self, Rejected> {
        let Ok(header) = Header::read(&mut BinDecoder::new(&raw)) else {
            return Err(Rejected::Silently);
        };
        if header.metadata.message_type == MessageType::Response {
            return Err(Rejected::Silently);
        }
        if header.metadata.op_code != OpCode::Query {
            return Err(rejected(&header, ResponseCode::NotImp));
        }
        // Checked before decoding, which reserves room for as many questions as the header claims.
        if header.counts.queries != 1 {
            return Err(rejected(&header, ResponseCode::FormErr));
        }
        let request = Request::from_bytes(raw, source, protocol)
            .map_err(|_| rejected(&header, ResponseCode::FormErr))?;
        Ok(Self { request })
    }

    /// The question.
    pub(crate) fn question(&self) -> &LowerQuery {
        &self.request.queries.queries()[0]
    }

    /// The name asked for, in the case in which it was asked.
    pub(crate) fn name(&self) -> &Name {
        self.question().original().name()
    }

    /// The question section as it was sent.
    pub(crate) fn question_bytes(&self) -> &[u8] {
        self.request.queries.as_bytes()
    }

    /// The whole message as it was sent.
    pub(crate) fn raw(&self) -> &[u8] {
        self.request.as_slice()
    }

    /// The id the client waits for.
    pub(crate) fn id(&self) -> u16 {
        self.request.metadata.id
    }

    /// The EDNS version asked for; 0 without EDNS.
    pub(crate) fn edns_version(&self) -> u8 {
        self.request.version()
    }

    /// Whether the client can take a reply of any size.
    pub(crate) fn is_over_tcp(&self) -> bool {
        self.request.protocol() == Protocol::Tcp
    }

    /// The largest reply the client takes, in octets.
    pub(crate) fn size_limit(&self) -> usize {
        match (self.request.protocol(), &self.request.edns) {
            (Protocol::Udp, None) => PLAIN_UDP_SIZE,
            (Protocol::Udp, Some(edns)) => {
                usize::from(edns.max_payload()).clamp(PLAIN_UDP_SIZE, MAX_UDP_SIZE)
            }
            _ => usize::from(u16::MAX),
        }
    }

    /// An authoritative reply with `answers`, cut to the client's limit with TC set if it does not fit.
    pub(crate) fn answer(&self, mut answers: Vec<Record>) -> Option<Vec<u8>> {
        let mut metadata = self.reply_metadata(ResponseCode::NoError);
        metadata.authoritative = true;
        let (bytes, sent) = self.encode(metadata, &answers)?;
        let edns_left_out = self.request.edns.is_some() && sent.counts().additionals == 0;
        if !edns_left_out {
            return Some(bytes);
        }
        // The records left no room for the OPT record, which a reply to EDNS must have (RFC 6891 section 6.1.1). One
        // address record (16 octets) less makes it (11 octets).
        answers.truncate(usize::from(sent.counts().answers).saturating_sub(1));
        metadata.truncation = true;
        self.encode(metadata, &answers).map(|(bytes, _)| bytes)
    }

    /// A reply without records.
    pub(crate) fn status(&self, code: ResponseCode) -> Option<Vec<u8>> {
        self.encode(self.reply_metadata(code), &[]).map(|(bytes, _)| bytes)
    }

    fn reply_metadata(&self, code: ResponseCode) -> Metadata {
        let mut metadata = Metadata::response_from_request(&self.request.metadata);
        metadata.recursion_available = true;
        metadata.response_code = code;
        metadata
    }

    fn encode(&self, metadata: Metadata, answers: &[Record]) -> Option<(Vec<u8>, ResponseInfo)> {
        let edns = self.request.edns.as_ref().map(reply_edns);
        let response = MessageResponseBuilder::new(&self.request.queries, edns.as_ref()).build(
            metadata,
            answers,
            [],
            [],
            [],
        );
        let mut bytes = Vec::with_capacity(PLAIN_UDP_SIZE);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(u16::try_from(self.size_limit()).unwrap_or(u16::MAX));
        match response.destructive_emit(&mut encoder) {
            Ok(sent) => Some((bytes, sent)),
            Err(error) => {
                tracing::warn!(name = %self.name(), %error, "cannot encode a DNS reply");
                None
            }
        }
    }
}

/// What the server tells a client that speaks EDNS0; the DO bit comes back as it was sent (RFC 3225 section 3).
fn reply_edns(asked: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP_SIZE as u16);
    edns.set_dnssec_ok(asked.flags().dnssec_ok);
    edns
}

fn rejected(header: &Header, code: ResponseCode) -> Rejected {
    let mut message = Message::error_msg(header.metadata.id, header.metadata.op_code, code);
    message.metadata.recursion_desired = header.metadata.recursion_desired;
    match message.to_vec() {
        Ok(bytes) => Rejected::With(bytes),
        Err(error) => {
            tracing::warn!(%error, "cannot encode a DNS error reply");
            Rejected::Silently
        }
    }
}
