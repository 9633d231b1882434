//! What a node's IPsec should hold, as the caller says it.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::Error;

/// SPIs up to here are reserved (RFC 4303, section 2.1).
const LAST_RESERVED_SPI: u32 = 255;

/// What a node's IPsec should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The node's data-path address.
    pub local: IpAddr,
    /// UDP destination port of encrypted VXLAN.
    pub port: u16,
    /// Whether everything to and from that port is blocked unless a tunnel protects it.
    pub deny: bool,
    /// The peers.
    pub tunnels: Vec<Tunnel>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The peer's data-path address, of the same family as ours.
    pub remote: IpAddr,
    /// Ties policies to security associations: unique per peer on this node, never 0, and the same as long as a key is in use.
    pub reqid: u32,
    /// Protects what is sent from now on. Without it nothing is sent to this peer.
    pub sending: Option<Sa>,
    /// Every generation that is accepted.
    pub receiving: Vec<Sa>,
}

/// A security association's variable parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sa {
    /// The receiver finds the key by it: above 255, unique among all that a node receives, and another one for another key.
    pub spi: u32,
    /// The key, for this direction only.
    pub key: Key,
}

/// An AES-128 key and its four bytes of salt (RFC 4106, section 8.1). Never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; Self::LENGTH]);

impl Key {
    /// Bytes of key and salt.
    pub(crate) const LENGTH: usize = 20;

    /// Key first, then salt, as the kernel takes them.
    #[must_use]
    pub fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// Tells keys apart without giving them away: 64 bits of a hash of 160 random ones.
    pub(crate) fn fingerprint(&self) -> u64 {
        let hash = Sha256::new().chain_update(b"swarm-ipsec key\0").chain_update(self.0).finalize();
        u64::from_be_bytes(hash[..8].try_into().expect("eight bytes"))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Desired {
    /// Refuses what the kernel would misunderstand.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.port == 0 {
            return Err(Error::invalid("encrypted vxlan", "its port is 0"));
        }
        let (mut remotes, mut reqids, mut spis) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for tunnel in &self.tunnels {
            let refuse =
                |reason: &str| Err(Error::invalid(format!("peer {}", tunnel.remote), reason));
            if tunnel.remote == self.local || tunnel.remote.is_ipv4() != self.local.is_ipv4() {
                return refuse("no other address of the family of this node's data path");
            }
            if !remotes.insert(tunnel.remote) {
                return refuse("named twice");
            }
            if tunnel.reqid == 0 || !reqids.insert(tunnel.reqid) {
                return refuse("its reqid is 0 or another peer's");
            }
            if !tunnel.receiving.iter().all(|sa| spis.insert(sa.spi)) {
                return refuse("one of its SPIs is received twice");
            }
            if tunnel.sending.iter().chain(&tunnel.receiving).any(|sa| sa.spi <= LAST_RESERVED_SPI)
            {
                return refuse("an SPI below 256 is reserved");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut Desired);

    fn tunnel(last: u8, reqid: u32) -> Tunnel {
        let sa = |spi| Sa { spi: spi + reqid * 256, key: Key::new([last; 20]) };
        let receiving = vec![sa(1), sa(2)];
        Tunnel { remote: [10, 0, 0, last].into(), reqid, sending: Some(sa(0)), receiving }
    }

    fn desired() -> Desired {
        let tunnels = vec![tunnel(2, 1), tunnel(3, 2)];
        Desired { local: [10, 0, 0, 1].into(), port: 4790, deny: true, tunnels }
    }

    #[test]
    fn what_the_kernel_would_misunderstand_is_refused() {
        desired().validate().unwrap();
        let refusals: [(Spoil, &str); 7] = [
            (|d| d.port = 0, "encrypted vxlan: its port is 0"),
            (
                |d| d.tunnels[0].remote = d.local,
                "peer 10.0.0.1: no other address of the family of this node's data path",
            ),
            (
                |d| d.local = "fd00::1".parse().unwrap(),
                "peer 10.0.0.2: no other address of the family of this node's data path",
            ),
            (|d| d.tunnels[1].remote = d.tunnels[0].remote, "peer 10.0.0.2: named twice"),
            (|d| d.tunnels[1].reqid = 1, "peer 10.0.0.3: its reqid is 0 or another peer's"),
            (
                |d| d.tunnels[1].receiving[1].spi = 257,
                "peer 10.0.0.3: one of its SPIs is received twice",
            ),
            (
                |d| d.tunnels[1].sending.as_mut().unwrap().spi = 255,
                "peer 10.0.0.3: an SPI below 256 is reserved",
            ),
        ];
        for (spoil, words) in refusals {
            let mut desired = desired();
            spoil(&mut desired);
            assert_eq!(desired.validate().unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn keys_are_never_printed_and_fingerprints_tell_them_apart() {
        let printed = format!("{:?}", desired());
        assert!(printed.contains("Key(..)") && !printed.contains("2, 2"), "{printed}");
        let (one, other) = (Key::new([1; 20]), Key::new([2; 20]));
        assert_eq!(one.fingerprint(), one.clone().fingerprint());
        assert_ne!(one.fingerprint(), other.fingerprint());
    }
}
