//! Names and hardware addresses that are derived, never stored: what a crash leaves behind can always be found again.

use std::net::{IpAddr, Ipv4Addr};

use crate::Error;

/// A 48-bit hardware address.
pub(crate) type Mac = [u8; 6];

/// Bridge of a network, in the network's namespace.
pub(crate) const BRIDGE: &str = "br0";
/// VXLAN device of a network, in the network's namespace.
pub(crate) const VXLAN: &str = "vxlan0";
/// Bridge through which tasks leave the node, in the host's namespace.
pub(crate) const EGRESS_BRIDGE: &str = "swarm_gwbridge";

/// Docker's rule: 02:42 and the IPv4 address, so a MAC is unique in its network.
pub(crate) fn task_mac(addr: Ipv4Addr) -> Mac {
    let [a, b, c, d] = addr.octets();
    [0x02, 0x42, a, b, c, d]
}

/// MAC of a network's bridge on the node with this VTEP. It must differ from node to node, as all bridges carry the gateway address.
pub(crate) fn bridge_mac(vtep: IpAddr) -> Mac {
    let [a, b, c, d] = match vtep {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => (fnv1a(&v6.octets()) as u32).to_be_bytes(),
    };
    [0x02, 0x53, a, b, c, d]
}

/// Host side of a task's veth pair. Interface names hold 15 bytes, task ids 25, hence a hash; the alias holds the whole id.
pub(crate) fn port_name(task: &str) -> String {
    format!("v{:012x}", fnv1a(task.as_bytes()) & 0xffff_ffff_ffff)
}

/// Alias of a bridge port: which task it belongs to and the task's address there. [`parse_alias`] reads it back.
pub(crate) fn port_alias(task: &str, addr: Ipv4Addr) -> String {
    format!("swarm-task {task} {addr}")
}

/// Task and address of a bridge port made by this crate.
pub(crate) fn parse_alias(alias: &str) -> Option<(&str, Ipv4Addr)> {
    let (task, addr) = alias.strip_prefix("swarm-task ")?.split_once(' ')?;
    Some((task, addr.parse().ok()?))
}

/// Ids become file names, so nothing that could leave the folder or confuse a reader is let through.
pub(crate) fn check_id(kind: &str, id: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if id.is_empty() || id.len() > 128 || !id.chars().all(fine) || id.starts_with('.') {
        return Err(Error::Invalid {
            object: format!("{kind} {id:?}"),
            reason: "an id is 1 to 128 letters, digits, '_', '-' or '.'".into(),
        });
    }
    Ok(())
}

/// 64-bit FNV-1a: stable across builds and versions, unlike the standard library's hasher.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_change() {
        // Written into kernels that outlive a daemon: a new version must find what an old one made.
        assert_eq!(port_name("a"), "vdc4c8601ec8c");
        assert_eq!(task_mac(Ipv4Addr::new(10, 0, 1, 11)), [0x02, 0x42, 10, 0, 1, 11]);
        assert!(port_name("kjn8nm1b2v3c4x5z6l7k8j9h0").len() <= 15);
    }

    #[test]
    fn alias_is_read_back() {
        let addr = Ipv4Addr::new(10, 0, 1, 11);
        assert_eq!(parse_alias(&port_alias("abc", addr)), Some(("abc", addr)));
        assert_eq!(parse_alias("uplink"), None);
        assert_eq!(parse_alias("swarm-task abc nonsense"), None);
    }

    #[test]
    fn ids_cannot_leave_their_folder() {
        for bad in ["", "../x", ".", "..", "a/b", "a b", "a\0b", "ä"] {
            assert!(check_id("network", bad).is_err(), "{bad:?}");
        }
        assert!(check_id("network", "kjn8nm1b2v3c4x5z6l7k8j9h0").is_ok());
    }
}
