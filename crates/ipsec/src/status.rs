//! What passes, and what was dropped.

use std::{collections::BTreeMap, fs, net::IpAddr};

use crate::{
    Error,
    table::{Direction, Rule, Table},
};

/// Of the thread's network namespace; `/proc/net` would be that of the process.
const COUNTERS: &str = "/proc/thread-self/net/xfrm_stat";

/// What the kernel does at present.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Status {
    /// By address.
    pub peers: Vec<Peer>,
    /// Since the namespace was made. `None` if the kernel does not count (`CONFIG_XFRM_STATISTICS`).
    pub dropped: Option<Dropped>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its data-path address.
    pub remote: IpAddr,
    /// The SPI of what is sent to it; `None` if nothing is.
    pub sending: Option<u32>,
    /// The SPIs that are accepted from it.
    pub receiving: Vec<u32>,
    /// Bytes sent with the associations that exist.
    pub bytes_out: u64,
    /// Packets sent with the associations that exist.
    pub packets_out: u64,
    /// Bytes received with the associations that exist.
    pub bytes_in: u64,
    /// Packets received with the associations that exist.
    pub packets_in: u64,
}

/// Packets that IPsec dropped in this network namespace, whoever's: counters of `/proc/net/xfrm_stat`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Received in clear from somebody who is no peer (`XfrmInPolBlock`).
    pub in_blocked: u64,
    /// Received in clear, or not as they should be, from a peer's address (`XfrmInTmplMismatch`).
    pub in_unprotected: u64,
    /// Received protected where no policy wants that (`XfrmInNoPols`).
    pub in_no_policy: u64,
    /// Received for an association that does not exist (`XfrmInNoStates`).
    pub in_no_association: u64,
    /// Received twice, or too late (`XfrmInStateSeqError`).
    pub in_replayed: u64,
    /// Received with a wrong key, or damaged (`XfrmInStateProtoError`).
    pub in_forged: u64,
    /// Received with an association that is for other packets (`XfrmInStateMismatch`).
    pub in_mismatched: u64,
    /// Not sent: no peer, or none with a key (`XfrmOutPolBlock`).
    pub out_blocked: u64,
    /// Not sent: the association is gone (`XfrmOutNoStates`).
    pub out_no_association: u64,
    /// Not sent for any other reason (`XfrmOutError`, `XfrmOutBundle*`, `XfrmOutState*`, `XfrmOutPolError`, `XfrmOutPolDead`).
    pub out_failed: u64,
}

impl Status {
    /// For the calling thread's network namespace.
    pub(crate) fn of(table: &Table) -> Result<Self, Error> {
        let dropped = match fs::read_to_string(COUNTERS) {
            Ok(text) => Some(Dropped::parse(&text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::file("read", COUNTERS, e)),
        };
        Ok(Self { peers: peers(table), dropped })
    }
}

/// Those that packets are accepted from.
fn peers(table: &Table) -> Vec<Peer> {
    let inbound = table.policies.keys().filter(|(direction, _)| *direction == Direction::In);
    let mut peers: Vec<_> =
        inbound.filter_map(|(_, s)| Some(peer(table, s.source?, s.destination?))).collect();
    peers.sort_by_key(|peer| peer.remote);
    peers
}

fn peer(table: &Table, remote: IpAddr, local: IpAddr) -> Peer {
    let sending = table.policies.iter().find_map(|((_, selector), rule)| match rule {
        Some(Rule::Protect { spi, .. }) if selector.destination == Some(remote) => *spi,
        _ => None,
    });
    let mut peer = Peer {
        remote,
        sending,
        receiving: vec![],
        bytes_out: 0,
        packets_out: 0,
        bytes_in: 0,
        packets_in: 0,
    };
    for (id, association) in &table.associations {
        if (association.source, id.destination) == (local, remote) {
            peer.bytes_out += association.bytes;
            peer.packets_out += association.packets;
        } else if (association.source, id.destination) == (remote, local) {
            peer.receiving.push(id.spi);
            peer.bytes_in += association.bytes;
            peer.packets_in += association.packets;
        }
    }
    peer
}

impl Dropped {
    fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
        let counters: BTreeMap<&str, u64> =
            fields.filter_map(|(name, value)| Some((name, value.trim().parse().ok()?))).collect();
        let count = |name| counters.get(name).copied().unwrap_or(0);
        let out_named = ["XfrmOutPolBlock", "XfrmOutNoStates"];
        let out_other = counters
            .iter()
            .filter(|(name, _)| name.starts_with("XfrmOut") && !out_named.contains(name));
        Self {
            in_blocked: count("XfrmInPolBlock"),
            in_unprotected: count("XfrmInTmplMismatch"),
            in_no_policy: count("XfrmInNoPols"),
            in_no_association: count("XfrmInNoStates"),
            in_replayed: count("XfrmInStateSeqError"),
            in_forged: count("XfrmInStateProtoError"),
            in_mismatched: count("XfrmInStateMismatch"),
            out_blocked: count(out_named[0]),
            out_no_association: count(out_named[1]),
            out_failed: out_other.map(|(_, value)| value).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name_and_the_rest_of_the_outbound_ones_summed_up() {
        let text = "XfrmInError             \t1\nXfrmInPolBlock          \t7\nXfrmInTmplMismatch\t5\n\
                    XfrmOutError\t2\nXfrmOutPolBlock\t9\nXfrmOutStateSeqError\t3\nXfrmFwdHdrError\t8\n";
        let expected = Dropped {
            in_blocked: 7,
            in_unprotected: 5,
            out_blocked: 9,
            out_failed: 5,
            ..Dropped::default()
        };
        assert_eq!(Dropped::parse(text), expected);
    }
}
