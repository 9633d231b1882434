//! A host whose address has changed: its node goes on under the new one, which the swarm hears of when the node's session
//! begins anew.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use swarm_overlay::InterfaceAddress;

use crate::config::NodeConfig;

/// The configuration to start with. A host that has no address yet starts as it was: it is looked at again while it runs.
pub(crate) async fn now(config: NodeConfig) -> NodeConfig {
    match look(&config).await {
        Ok(Some(moved)) => {
            tell(&config, &moved);
            moved
        }
        Ok(None) => config,
        Err(e) => {
            tracing::warn!("{e:#}");
            config
        }
    }
}

/// The configuration with the address that this host has now; none if it still has the former one.
pub(crate) async fn look(config: &NodeConfig) -> Result<Option<NodeConfig>> {
    let own = swarm_overlay::addresses(None).await.context("cannot list this host's addresses")?;
    moved(config, &own)
}

/// Tells of a change of address.
pub(crate) fn tell(from: &NodeConfig, to: &NodeConfig) {
    let (from, to) = (from.data_path_addr, to.data_path_addr);
    tracing::info!("this host's address was {from} and is {to} now");
}

fn moved(config: &NodeConfig, own: &[InterfaceAddress]) -> Result<Option<NodeConfig>> {
    let former = config.data_path_addr;
    if own.iter().any(|addr| addr.address == former) {
        return Ok(None);
    }
    // Of a node that was set up before interfaces were noted.
    let Some(interface) = &config.interface else {
        bail!(
            "this host has lost its address {former}: let its node leave the swarm and join again"
        );
    };
    let usable = |addr: &&InterfaceAddress| {
        addr.interface == *interface
            && addr.address.is_ipv4() == former.is_ipv4()
            && !link_local(addr.address)
    };
    let candidates: Vec<_> = own.iter().filter(usable).collect();
    let [only] = candidates.as_slice() else {
        bail!(
            "this host has lost its address {former}, and {interface} has {} others: this node waits for exactly one",
            candidates.len()
        );
    };
    let new = only.address;
    // A host that is known by another address, such as that of a NAT, still is.
    let follow = |addr: &str| match addr.parse::<SocketAddr>() {
        Ok(addr) if addr.ip() == former => SocketAddr::new(new, addr.port()).to_string(),
        _ => addr.to_owned(),
    };
    Ok(Some(NodeConfig {
        advertise_addr: follow(&config.advertise_addr),
        listen_addr: follow(&config.listen_addr),
        data_path_addr: new,
        ..config.clone()
    }))
}

fn link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NodeConfig {
        NodeConfig {
            advertise_addr: "192.0.2.1:2377".into(),
            listen_addr: "0.0.0.0:2377".into(),
            data_path_addr: [192, 0, 2, 1].into(),
            interface: Some("eth0".into()),
            data_path_port: 4789,
            raft_id: None,
            managers: Vec::new(),
            takes_over: false,
        }
    }

    fn own(addresses: &[(&str, &str)]) -> Vec<InterfaceAddress> {
        let address = |(interface, address): &(&str, &str)| InterfaceAddress {
            interface: (*interface).into(),
            address: address.parse().unwrap(),
            prefix_len: 24,
        };
        addresses.iter().map(address).collect()
    }

    #[test]
    fn an_address_that_is_still_there_is_kept() {
        let own = own(&[("eth0", "192.0.2.9"), ("eth0", "192.0.2.1")]);
        assert_eq!(moved(&config(), &own).unwrap(), None);
    }

    #[test]
    fn the_interface_s_new_address_is_taken_for_all_that_was_the_old_one() {
        let own = own(&[("lo", "127.0.0.1"), ("eth0", "fe80::1"), ("eth0", "192.0.2.9")]);
        let now = moved(&config(), &own).unwrap().unwrap();
        assert_eq!(
            (&*now.advertise_addr, now.data_path_addr),
            ("192.0.2.9:2377", [192, 0, 2, 9].into())
        );
        assert_eq!(now.listen_addr, "0.0.0.0:2377");
        let known = NodeConfig {
            advertise_addr: "198.51.100.1:2377".into(),
            listen_addr: "192.0.2.1:99".into(),
            ..config()
        };
        let now = moved(&known, &own).unwrap().unwrap();
        assert_eq!(
            (&*now.advertise_addr, &*now.listen_addr),
            ("198.51.100.1:2377", "192.0.2.9:99")
        );
    }

    #[test]
    fn nothing_is_guessed() {
        for (addresses, part) in [
            (vec![("eth1", "192.0.2.9")], "eth0 has 0 others"),
            (vec![("eth0", "192.0.2.8"), ("eth0", "192.0.2.9")], "eth0 has 2 others"),
            (vec![("eth0", "169.254.0.9"), ("eth0", "2001:db8::9")], "eth0 has 0 others"),
        ] {
            let error = moved(&config(), &own(&addresses)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let old = NodeConfig { interface: None, ..config() };
        let error = moved(&old, &own(&[("eth0", "192.0.2.9")])).unwrap_err().to_string();
        assert!(error.contains("join again"), "{error}");
    }
}
