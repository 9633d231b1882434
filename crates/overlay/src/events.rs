//! Hearing of a node's addresses instead of asking again and again.

use std::path::Path;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::proto::sys::SocketAddr;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use swarm_netns::Namespace;
use tokio::task::JoinHandle;

use crate::Error;

/// Tells that an address of a node came or went. The kernel drops what is not read in time, so it is a hint: whoever must know
/// looks now and then, too.
#[derive(Debug)]
pub struct AddressEvents {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    driver: JoinHandle<()>,
}

impl AddressEvents {
    /// Listens in a node's namespace; `None` for the process's own.
    ///
    /// # Errors
    /// If the namespace or rtnetlink cannot be opened.
    pub async fn listen(host_netns: Option<&Path>) -> Result<Self, Error> {
        const GROUPS: &[MulticastGroup] = &[MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let open = || new_multicast_connection(GROUPS);
        let opened = Namespace::open_or_own(host_netns)?.run(open).await?;
        let (connection, _, messages) =
            opened.map_err(|e| Error::netlink("listen for changes of addresses", e))?;
        Ok(Self { messages, driver: tokio::spawn(connection) })
    }

    /// Waits for a change, and takes those that came with it. False: there will be no more.
    pub async fn changed(&mut self) -> bool {
        let heard = self.messages.next().await.is_some();
        while self.messages.try_recv().is_ok() {}
        heard
    }
}

impl Drop for AddressEvents {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
