//! The bodies of xfrm netlink messages (`linux/xfrm.h`), written and read without touching a socket.
//!
//! Only what we use; whatever else a dump holds belongs to others and is passed over.

mod read;
mod write;

use crate::desired::Key;
pub(crate) use read::{Found, find, found_association, found_policy};
pub(crate) use write::{association_id, new_association, policy, policy_id, without_cipher};

/// Marks our policies and associations: a selector's `user`, which the kernel keeps and compares but gives no meaning.
/// `ip xfrm` shows it as `uid`. "SWRM".
pub(crate) const OWNER: u32 = 0x5357_524d;
/// Lower goes first. Below what IKE daemons use, so that none of their policies goes before ours.
const PEER_PRIORITY: u32 = 100;
const DENY_PRIORITY: u32 = 1000;

const CIPHER: &[u8] = b"rfc4106(gcm(aes))";
const ICV_BITS: u32 = 128;
const KEY_BITS: u32 = Key::LENGTH as u32 * 8;
/// Packets may come this much out of order, as they do when several CPUs send. A multiple of 32.
const REPLAY_WINDOW: u32 = 1024;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const UDP: u8 = 17;
const ESP: u8 = 50;
/// `XFRM_MODE_TRANSPORT`.
const TRANSPORT: u8 = 0;
/// `XFRM_STATE_ESN`: 64-bit sequence numbers. A fast link uses up 32 bits within a rotation period.
const EXTENDED_SEQUENCE: u8 = 128;
const ACTION_ALLOW: u8 = 0;
const ACTION_BLOCK: u8 = 1;

// Attributes.
const CRYPT: u16 = 2;
const AUTH: u16 = 1;
const TEMPLATES: u16 = 5;
const AEAD: u16 = 18;
const REPLAY_ESN: u16 = 23;

// Sizes and offsets of the structures, which are those of 64-bit kernels (32-bit ones translate).
const SELECTOR: usize = 56;
const LIFETIMES: usize = 64;
const USERSA_INFO: usize = 224;
const USERPOLICY_INFO: usize = 168;
const TEMPLATE: usize = 64;
const ALGORITHM_NAME: usize = 64;

fn family(v6: bool) -> u16 {
    if v6 { AF_INET6 } else { AF_INET }
}

#[cfg(test)]
mod tests;
