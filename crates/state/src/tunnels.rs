//! The keys of encrypted networks: derived for each two nodes, each direction and each generation, from the
//! generation's secret. A node is told those of the pairs that it is part of, and no secret.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use swarm_model::{
    EspKey, Item, ItemKey, KeyRing, NetworkKey, NetworkSecret, Node, NodeId, SecurityAssociation,
    TunnelView,
};

use crate::tables::State;

/// Tells these keys from whatever else may ever be derived from the same secret.
const PURPOSE: &[u8] = b"swarm esp v1";
/// Half of all indexes, so that others can be used beside ours. (Those below 256 are reserved, RFC 4303.)
const SPI_BASE: u32 = 1 << 31;
/// The lowest bits of an index come out of the derivation with the key: so another key nearly always has
/// another index, which is all that a kernel shows that does not give keys back.
const TAG_BITS: u32 = 7;
/// The next ones are those of the generation: there are never as many at once.
const GENERATION_BITS: u32 = 4;
/// The largest ordinal that leaves an index its other parts.
pub(crate) const LAST_ORDINAL: u32 = (1 << (31 - GENERATION_BITS - TAG_BITS)) - 1;

impl State {
    /// The generations of keys of encrypted networks.
    pub fn key_ring(&self) -> &KeyRing {
        &self.keys
    }

    /// The part of a node's view that says how it encrypts: a tunnel to each node that carries an encrypted
    /// network which it carries too. It changes with nodes, keys and the carriers of networks, and with nothing else.
    pub fn tunnels(&self, node: &NodeId) -> BTreeMap<ItemKey, Item> {
        let mut items = BTreeMap::new();
        let Some(own) = self.node(node).filter(|node| sends(node)) else { return items };
        let Some(own_addr) = own.description.data_path_addr else { return items };
        let generations = Generations::of(&self.keys);
        let Some(sending) = generations.sending else { return items };
        for (vtep, peer) in self.peers(own, own_addr) {
            let tunnel = TunnelView {
                vtep,
                reqid: peer.ordinal,
                incarnation: own.description.encryption.incarnation,
                sending: sending.association(own, peer),
                receiving: generations.all.iter().map(|key| key.association(peer, own)).collect(),
            };
            items.insert(ItemKey::Tunnel(peer.id.clone()), Item::Tunnel(tunnel));
        }
        items
    }

    /// The nodes that carry one of a node's encrypted networks, by address. A host that left and joined again is
    /// two nodes for a while: the one that is there counts.
    fn peers(&self, own: &Node, own_addr: IpAddr) -> BTreeMap<IpAddr, &Node> {
        let mut networks = self.carries(&own.id);
        networks.retain(|id| self.network(id).is_some_and(|n| n.is_encrypted()));
        let mut peers: BTreeMap<IpAddr, &Node> = BTreeMap::new();
        for carrier in networks.iter().flat_map(|network| self.carriers(network)) {
            let Some(peer) = self.node(carrier) else { continue };
            let Some(vtep) = peer.description.data_path_addr else { continue };
            let sendable = vtep != own_addr && vtep.is_ipv4() == own_addr.is_ipv4();
            if peer.id == own.id || !sendable || !sends(peer) {
                continue;
            }
            let rank = |node: &Node| (node.is_alive(), node.ordinal);
            let known = peers.entry(vtep).or_insert(peer);
            if rank(peer) > rank(known) {
                *known = peer;
            }
        }
        peers
    }
}

/// Whether the node has keys to send with: they are derived from its ordinal.
fn sends(node: &Node) -> bool {
    node.has_esp() && node.ordinal != 0
}

/// The generations of a ring, ready to derive from.
struct Generations {
    sending: Option<Generation>,
    all: Vec<Generation>,
}

impl Generations {
    fn of(ring: &KeyRing) -> Generations {
        Generations {
            sending: ring.key(ring.sending).map(Generation::of),
            all: ring.keys.iter().map(Generation::of).collect(),
        }
    }
}

struct Generation {
    number: u32,
    prk: Prk,
}

impl Generation {
    fn of(key: &NetworkKey) -> Generation {
        let NetworkSecret(secret) = &key.secret;
        // It is uniformly random already, so there is nothing to extract (RFC 5869, 3.3).
        Generation { number: key.generation, prk: Prk::new_less_safe(HKDF_SHA256, secret) }
    }

    /// What `from` sends to `to` with. Both incarnations are in the key: a sender that forgot how many
    /// packets it sent must not encrypt with the same key again, and a receiver that forgot which ones
    /// it took would take them again.
    fn association(&self, from: &Node, to: &Node) -> SecurityAssociation {
        let incarnation = |node: &Node| node.description.encryption.incarnation.to_be_bytes();
        let parts: [&[u8]; 5] = [
            PURPOSE,
            from.id.as_str().as_bytes(),
            to.id.as_str().as_bytes(),
            &incarnation(from),
            &incarnation(to),
        ];
        let (key, tag) = expand(&self.prk, &parts);
        SecurityAssociation { spi: self.index(from, tag), key }
    }

    fn index(&self, from: &Node, tag: u8) -> u32 {
        let low = |value: u32, bits: u32| value & ((1 << bits) - 1);
        let ordinal = from.ordinal << (GENERATION_BITS + TAG_BITS);
        let generation = low(self.number, GENERATION_BITS) << TAG_BITS;
        SPI_BASE | ordinal | generation | low(tag.into(), TAG_BITS)
    }
}

/// HKDF-Expand (RFC 5869) over parts, each preceded by its length: no two lists of parts read the same.
fn expand(prk: &Prk, parts: &[&[u8]]) -> (EspKey, u8) {
    struct Length;
    impl KeyType for Length {
        fn len(&self) -> usize {
            21
        }
    }
    let mut info = Vec::with_capacity(128);
    for part in parts {
        info.extend_from_slice(&(part.len() as u64).to_be_bytes());
        info.extend_from_slice(part);
    }
    let mut bytes = [0; 21];
    prk.expand(&[&info], Length)
        .and_then(|derived| derived.fill(&mut bytes))
        .expect("21 bytes are far less than HKDF can give");
    let [key @ .., tag] = bytes;
    (EspKey(key), tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value is that of another implementation of HMAC, Python's.
    #[test]
    fn keys_are_hkdf_s() {
        let prk = Prk::new_less_safe(HKDF_SHA256, &[7; 32]);
        let (EspKey(key), tag) =
            expand(&prk, &[PURPOSE, b"a", b"bc", &1u64.to_be_bytes(), &[0xff; 8]]);
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((hex.as_str(), tag), ("fe6adc18fe0b61410349b08ab0d85895b2b618b9", 0x10));
        let (other, _) = expand(&prk, &[PURPOSE, b"ab", b"c", &1u64.to_be_bytes(), &[0xff; 8]]);
        assert_ne!(other, EspKey(key), "where one part ends is part of it");
    }
}
