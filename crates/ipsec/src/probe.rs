//! Whether a kernel has what encrypted networks need, found by making an association and deleting it.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use nix::errno::Errno;
use swarm_netns::Namespace;

use crate::{
    Unsupported,
    desired::Key,
    socket::{Command, Failure, Xfrm},
    table::{NewSa, SaId},
    wire,
};

/// Addresses that nobody has (TEST-NET-1, RFC 5737).
const ENDS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))];

pub(crate) async fn probe(host_netns: Option<&Path>) -> Result<(), Unsupported> {
    let host = Namespace::open_or_own(host_netns);
    let other = |error: swarm_netns::Error| Unsupported::Other(error.to_string());
    host.map_err(other)?.run(make_and_delete).await.map_err(other)?
}

fn make_and_delete() -> Result<(), Unsupported> {
    let mut xfrm =
        Xfrm::open().map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPROTONOSUPPORT) => Unsupported::Xfrm,
            Some(Errno::EPERM) => Unsupported::Permission,
            _ => Unsupported::Other(error.to_string()),
        })?;
    let id = SaId { destination: ENDS[1], spi: rand::random_range(256..=u32::MAX) };
    let key = Key::new(rand::random());
    let sa = NewSa { id, source: ENDS[0], reqid: 1, port: 1, key };
    match xfrm.execute(Command::NewSa, &wire::new_association(&sa)) {
        Ok(()) => xfrm.execute(Command::DeleteSa, &wire::association_id(&id)).map_err(lacking),
        // The kernel looks for the cipher first, and one that has no ESP usually has neither.
        Err(failure) => {
            let second = xfrm.execute(Command::NewSa, &wire::without_cipher(&sa));
            Err(if is_esp_missing(&second) { Unsupported::Esp } else { lacking(failure) })
        }
    }
}

fn is_esp_missing(tried: &Result<(), Failure>) -> bool {
    matches!(tried, Err(Failure::Kernel { errno: Errno::EPROTONOSUPPORT, .. }))
}

/// What it is that the kernel did not find (`xfrm_add_sa`, `xfrm_init_state`, `esp_init_aead`).
fn lacking(failure: Failure) -> Unsupported {
    match failure {
        Failure::Kernel { errno: Errno::ENOSYS | Errno::ENOENT, .. } => Unsupported::Cipher,
        Failure::Kernel { errno: Errno::EPERM, .. } => Unsupported::Permission,
        other => Unsupported::Other(std::io::Error::from(other).to_string()),
    }
}
