//! Waiting until a link carries frames.
//!
//! The kernel notes a new carrier in a worker of its own (net/core/link_watch.c), a little after the request that brought it about.
//! Until then a bridge drops what it sends: whoever speaks first would lose an ARP request, and a second with it.

use std::io;
use std::time::{Duration, Instant};

use crate::Error;
use crate::rtnl::Rtnl;

/// The kernel takes milliseconds, a second when it is flooded with link events.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// Waits until all these links, by namespace and name, carry frames.
pub(crate) async fn wait(object: &str, links: &[(&Rtnl, &str)]) -> Result<(), Error> {
    let deadline = Instant::now() + TIMEOUT;
    let mut pause = Duration::from_millis(1);
    loop {
        let looks = links.iter().map(|(rtnl, name)| rtnl.link(name));
        let seen = futures::future::try_join_all(looks).await?;
        let silent = seen.iter().position(|link| !link.as_ref().is_some_and(|l| l.carries));
        let Some(silent) = silent else {
            return Ok(());
        };
        if Instant::now() > deadline {
            let action = format!("wait for the carrier of {} for {object}", links[silent].1);
            return Err(Error::netlink(action, io::ErrorKind::TimedOut.into()));
        }
        tokio::time::sleep(pause).await; // before the links are looked at again
        pause = (pause * 2).min(MAX_PAUSE);
    }
}
