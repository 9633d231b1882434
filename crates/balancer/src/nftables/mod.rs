//! The engine on nftables: verdict maps lead each VIP, or each of its ports that is balanced, to its service's chain,
//! where `numgen` gives every backend its turn and NAT does the rest. Needs the `nft` command; writes to it, and
//! decides nothing by what it prints.
//!
//! - `table`: the table that a network should have, and the statements from one table to another.
//! - `statement`: those statements' text.
//! - `slots`: weights to turns.

mod slots;
mod statement;
mod table;

use std::net::Ipv4Addr;

use crate::{
    Backend, Kind, Network, PortMap, Ports, Protocol, Result, VirtualService,
    method::{Done, Method},
    netlink::Entry,
    nft::Nft,
};
use statement::{Statement, script};
use table::Table;

/// Balancing by nftables alone: the generation tells of every change.
pub(crate) struct Nftables;

impl Method for Nftables {
    const KIND: Kind = Kind::Nftables;
    const NAME: &'static str = "nftables";
    type Table = Table;

    fn open() -> Result<Self> {
        Ok(Self)
    }

    fn seems_right(&mut self, _: &Table) -> Result<bool> {
        Ok(true)
    }

    fn strangeness(&mut self, _: &Table) -> Result<Option<String>> {
        Ok(None)
    }

    fn change(&mut self, nft: &Nft, from: &Table, to: &Table) -> Result<Done> {
        let steps = from.steps_to(to);
        if !steps.is_empty() {
            nft.commit(&script(&steps))?;
        }
        Ok(Done { operations: steps.len(), committed: !steps.is_empty(), connections: 0 })
    }

    fn rebuild(&mut self, nft: &Nft, table: &Table) -> Result<usize> {
        let steps = table.rebuild();
        nft.commit(&script(&steps))?;
        Ok(steps.len())
    }

    fn remove(nft: &Nft) -> Result<()> {
        nft.commit(&script(&[Statement::AddTable, Statement::DeleteTable]))
    }

    fn has_balanced(entry: &Entry) -> bool {
        entry.dnat
    }

    fn probe(nft: &Nft) -> Result<()> {
        nft.commit(&script(&sample().rebuild()))
    }
}

/// A network that uses every statement the engine knows.
fn sample() -> Table {
    let service = |id: &str, vip: [u8; 4], ports, backends| VirtualService {
        id: id.into(),
        name: "probe".into(),
        mark: None,
        vip: vip.into(),
        ports,
        backends,
    };
    let map = |protocol| PortMap { protocol, port: 80, target: 8080 };
    let ports = Ports::Only([Protocol::Tcp, Protocol::Udp].map(map).into());
    let backend = Backend { addr: Ipv4Addr::new(192, 0, 2, 11), weight: 1, local: true };
    Table::of_valid(&Network {
        id: "probe".into(),
        netns: "/".into(),
        gateway: Ipv4Addr::new(192, 0, 2, 1),
        services: vec![
            service("a", [192, 0, 2, 2], Ports::All, vec![backend]),
            service("b", [192, 0, 2, 3], Ports::All, vec![]),
            service("c", [192, 0, 2, 4], ports, vec![backend]),
        ],
    })
}
