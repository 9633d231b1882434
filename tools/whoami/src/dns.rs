//! DNS messages (RFC 1035, EDNS0 of RFC 6891): a query, and what an answer says.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name in its wire form.
const MAX_NAME: usize = 255;
const OPT: u16 = 41;

/// A record type by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(pub(crate) u16);

const KINDS: [(&str, u16); 7] =
    [("A", 1), ("CNAME", 5), ("SOA", 6), ("PTR", 12), ("TXT", 16), ("AAAA", 28), ("SRV", 33)];

impl Kind {
    pub(crate) const A: Self = Self(1);
    pub(crate) const PTR: Self = Self(12);
}

impl std::str::FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        known.map(|(_, number)| Self(*number)).ok_or(())
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match KINDS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

/// A query for one name; `edns` is the UDP payload size to advertise.
pub(crate) fn query(id: u16, name: &str, kind: Kind, edns: Option<u16>) -> Result<Vec<u8>, String> {
    let mut message = Vec::with_capacity(64);
    let additional = u16::from(edns.is_some());
    // Recursion desired, one question.
    for field in [id, 0x0100, 1, 0, 0, additional] {
        message.extend(field.to_be_bytes());
    }
    encode_name(name, &mut message)?;
    message.extend(kind.0.to_be_bytes());
    message.extend(1u16.to_be_bytes());
    if let Some(size) = edns {
        message.push(0);
        message.extend(OPT.to_be_bytes());
        message.extend(size.to_be_bytes());
        message.extend([0; 6]);
    }
    Ok(message)
}

fn encode_name(name: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let start = out.len();
    for label in bare.split('.').filter(|_| !bare.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n));
        out.push(length.ok_or_else(|| format!("{name:?} has a label of {} bytes", label.len()))?);
        out.extend(label.bytes());
    }
    out.push(0);
    if out.len() - start > MAX_NAME {
        return Err(format!("{name:?} is too long for a name"));
    }
    Ok(())
}

/// `10.0.0.2` -> `2.0.0.10.in-addr.arpa`.
pub(crate) fn reverse_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) flags: u16,
    pub(crate) records: Vec<Record>,
    /// Its length in bytes.
    pub(crate) size: usize,
}

/// One record of the answer section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) ttl: u32,
    pub(crate) kind: Kind,
    pub(crate) data: Data,
}

/// The data of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Name(String),
    Other(Vec<u8>),
}

impl std::fmt::Display for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Other(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl Answer {
    pub(crate) fn truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// The response code's name.
    pub(crate) fn rcode(&self) -> &'static str {
        const NAMES: [&str; 6] =
            ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
        NAMES.get(usize::from(self.flags & 0xf)).unwrap_or(&"OTHER")
    }

    /// Names of the flags that are set.
    pub(crate) fn flag_names(&self) -> String {
        const FLAGS: [(u16, &str); 5] =
            [(0x8000, "qr"), (0x0400, "aa"), (0x0200, "tc"), (0x0100, "rd"), (0x0080, "ra")];
        let set = FLAGS.iter().filter(|(bit, _)| self.flags & bit != 0);
        set.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.records.iter().filter_map(|record| match record.data {
            Data::V4(address) => Some(address),
            _ => None,
        })
    }

    /// Decodes the answer to query `id`.
    pub(crate) fn decode(message: &[u8], id: u16) -> Result<Self, String> {
        let mut reader = Reader { message, at: 0 };
        let [answered, flags, questions, answers, _, _] = reader.header()?;
        if answered != id || flags & 0x8000 == 0 {
            return Err("it is no answer to this query".to_owned());
        }
        for _ in 0..questions {
            reader.name()?;
            reader.take(4)?;
        }
        let records: Result<Vec<Record>, String> = (0..answers).map(|_| reader.record()).collect();
        let records = match records {
            Ok(records) => records,
            // A server may cut a truncated answer anywhere.
            Err(_) if flags & 0x0200 != 0 => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { flags, records, size: message.len() })
    }
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let bytes = self.message.get(self.at..).and_then(|rest| rest.get(..length));
        self.at += length;
        bytes.ok_or_else(|| "the answer ends too early".to_owned())
    }

    fn number(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn header(&mut self) -> Result<[u16; 6], String> {
        let mut fields = [0; 6];
        for field in &mut fields {
            *field = self.number()?;
        }
        Ok(fields)
    }

    fn record(&mut self) -> Result<Record, String> {
        let name = self.name()?;
        let kind = Kind(self.number()?);
        self.number()?;
        let ttl = u32::from(self.number()?) << 16 | u32::from(self.number()?);
        let length = usize::from(self.number()?);
        let start = self.at;
        let bytes = self.take(length)?;
        let data = match (kind.0, <[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
            (1, Ok(address), _) => Data::V4(address.into()),
            (28, _, Ok(address)) => Data::V6(address.into()),
            (5 | 12, ..) => {
                let mut name = Reader { message: self.message, at: start };
                Data::Name(name.name()?)
            }
            _ => Data::Other(bytes.to_vec()),
        };
        Ok(Record { name, ttl, kind, data })
    }

    /// A name, which may go on elsewhere (RFC 1035, 4.1.4); only ever backwards, so that it ends.
    fn name(&mut self) -> Result<String, String> {
        let mut name = String::new();
        let mut after = None;
        let mut lowest = self.at;
        loop {
            let length = self.take(1)?[0];
            match length {
                0 => break,
                1..=63 => {
                    let label = self.take(usize::from(length))?;
                    name.push_str(&String::from_utf8_lossy(label));
                    name.push('.');
                }
                192.. => {
                    let target = usize::from(length & 0x3f) << 8 | usize::from(self.take(1)?[0]);
                    if target >= lowest {
                        return Err("a compressed name does not point backwards".to_owned());
                    }
                    after.get_or_insert(self.at);
                    (self.at, lowest) = (target, target);
                }
                _ => return Err("a label of an unknown kind".to_owned()),
            }
            if name.len() > MAX_NAME {
                return Err("a name is too long".to_owned());
            }
        }
        self.at = after.unwrap_or(self.at);
        if name.is_empty() {
            name.push('.');
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to `query(7, "web", A)` with two records, the names compressed.
    fn answer() -> Vec<u8> {
        let mut m = query(7, "web", Kind::A, None).unwrap();
        m[2] = 0x85;
        m[3] = 0x80;
        m[7] = 2;
        for last in [2, 3] {
            m.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, last]);
        }
        m
    }

    #[test]
    fn addresses_and_flags_are_read() {
        let a = Answer::decode(&answer(), 7).unwrap();
        assert_eq!(
            a.addresses().map(|a| a.to_string()).collect::<Vec<_>>(),
            ["10.0.0.2", "10.0.0.3"]
        );
        assert_eq!(
            (a.rcode(), a.flag_names().as_str(), a.truncated()),
            ("NOERROR", "qr aa rd ra", false)
        );
        assert_eq!((a.records[0].name.as_str(), a.records[0].ttl), ("web.", 5));
        assert!(Answer::decode(&answer(), 8).is_err());
    }

    #[test]
    fn any_damage_is_an_error_and_no_panic() {
        let whole = answer();
        for end in 0..whole.len() {
            assert!(Answer::decode(&whole[..end], 7).is_err(), "cut at {end}");
        }
        let mut looped = whole.clone();
        let at = looped.len() - 16;
        looped[at + 1] = u8::try_from(at).unwrap();
        assert!(Answer::decode(&looped, 7).unwrap_err().contains("backwards"));
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(query(1, &"a".repeat(64), Kind::A, None).is_err());
        assert!(query(1, "a..b", Kind::A, None).is_err());
        assert!(query(1, &"abcdefg.".repeat(40), Kind::A, None).is_err());
        assert_eq!(query(1, ".", Kind::A, None).unwrap().len(), 17);
        assert_eq!(query(1, "a.", Kind::A, Some(1232)).unwrap().len(), 19 + 11);
        assert_eq!(reverse_name(Ipv4Addr::new(10, 0, 0, 2)), "2.0.0.10.in-addr.arpa");
    }
}
