//! The node itself: is it fit for overlay networks, and what does it already use.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use ipnet::{IpNet, Ipv4Net};
use nix::errno::Errno;
use swarm_netns::Namespace;
use tokio::runtime::Handle;

use crate::message;
use crate::rtnl::Rtnl;
use crate::settings::Vxlan;
use crate::{Error, sysctl};

/// Never left behind, never given to a network.
const PROBE: &str = "swarm-probe";
const PROBE_VNI: u32 = (1 << 24) - 1;

/// An address of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Name of the interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Length of its prefix, in bits.
    pub prefix_len: u8,
}

/// All addresses of a node, before there is an [`crate::Overlay`]; `None` for the process's own namespace.
///
/// # Errors
/// If the namespace or rtnetlink cannot be opened.
pub async fn addresses(host_netns: Option<&Path>) -> Result<Vec<InterfaceAddress>, Error> {
    interface_addresses(&connect(host_netns).await?).await
}

/// All IPv4 prefixes a node has a route to, before there is an [`crate::Overlay`]; without the default route, sorted.
///
/// # Errors
/// If the namespace or rtnetlink cannot be opened.
pub async fn routes(host_netns: Option<&Path>) -> Result<Vec<IpNet>, Error> {
    let prefixes = routed_prefixes(&connect(host_netns).await?).await?;
    Ok(prefixes.into_iter().map(IpNet::V4).collect())
}

async fn connect(host_netns: Option<&Path>) -> Result<Rtnl, Error> {
    let runtime = Handle::current();
    Namespace::open_or_own(host_netns)?.run(move || Rtnl::open(&runtime)).await?
}

pub(crate) async fn interface_addresses(rtnl: &Rtnl) -> Result<Vec<InterfaceAddress>, Error> {
    let (links, addresses) = futures::try_join!(rtnl.links(), rtnl.addresses())?;
    Ok(addresses
        .into_iter()
        .filter_map(|(index, address, prefix_len)| {
            let link = links.iter().find(|link| link.index == index)?;
            Some(InterfaceAddress { interface: link.name.clone(), address, prefix_len })
        })
        .collect())
}

pub(crate) async fn routed_prefixes(rtnl: &Rtnl) -> Result<Vec<Ipv4Net>, Error> {
    let routes = rtnl.routes().await?;
    let mut prefixes: Vec<Ipv4Net> = routes
        .into_iter()
        .map(|route| route.destination.trunc())
        .filter(|prefix| prefix.prefix_len() > 0)
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    Ok(prefixes)
}

/// MTU of the interface that holds `vtep`.
pub(crate) async fn underlay_mtu(rtnl: &Rtnl, vtep: IpAddr) -> Result<u32, Error> {
    let (links, addresses) = futures::try_join!(rtnl.links(), rtnl.addresses())?;
    addresses
        .iter()
        .find(|(_, address, _)| *address == vtep)
        .and_then(|(index, _, _)| links.iter().find(|link| link.index == *index))
        .map(|link| link.mtu)
        .ok_or(Error::NoSuchAddress(vtep))
}

/// Loads and raises what networks need; runs inside the host's namespace.
pub(crate) fn prepare_kernel() -> Result<(), Error> {
    if !sysctl::has_bridge_netfilter() {
        load_module("br_netfilter");
    }
    if !sysctl::has_bridge_netfilter() {
        return Err(Error::NoBridgeNetfilter);
    }
    let raised = sysctl::raise_neighbour_limits()?;
    if raised > 0 {
        tracing::info!("raised {raised} limits of the neighbour tables");
    }
    Ok(())
}

/// Whether it worked is seen by what the module provides, so a failure is only noted.
fn load_module(module: &str) {
    match Command::new("/sbin/modprobe").arg(module).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            tracing::debug!("modprobe {module}: {}", String::from_utf8_lossy(&output.stderr).trim())
        }
        Err(e) => tracing::debug!("run /sbin/modprobe {module}: {e}"),
    }
}

/// Makes a VXLAN device as networks will, brings it up and deletes it: the one test that cannot be wrong. The UDP port is bound
/// when it comes up, and shared with VXLAN devices that are there already.
pub(crate) async fn probe_vxlan(rtnl: &Rtnl, vtep: IpAddr, port: u16) -> Result<(), Error> {
    let vxlan = Vxlan { vni: PROBE_VNI, local: vtep, port, learning: false, proxy: true };
    let delete = || vec![message::delete_link(PROBE)];
    rtnl.apply(PROBE, delete()).await.map_err(explain_privileges)?;
    let made = rtnl.apply(PROBE, vec![message::add_vxlan(PROBE, vxlan, 1450, None)]).await;
    made.map_err(|e| match e.errno() {
        Some(Errno::EOPNOTSUPP) => Error::NoVxlan,
        _ => explain_privileges(e),
    })?;
    let raised = rtnl.apply(PROBE, vec![message::set_up(PROBE)]).await;
    rtnl.apply(PROBE, delete()).await?;
    raised.map_err(|e| match e.errno() {
        Some(Errno::EADDRINUSE) => Error::PortInUse { port },
        _ => e,
    })
}

pub(crate) fn explain_privileges(error: Error) -> Error {
    match error.errno() {
        Some(Errno::EPERM | Errno::EACCES) => Error::Privileges,
        _ => error,
    }
}
