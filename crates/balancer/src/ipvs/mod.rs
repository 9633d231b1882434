//! The engine on IPVS: an nft map marks what comes for a VIP, and an IPVS service by that mark masquerades it to the
//! backends, `wrr` by weight. Where a service names its ports, there is an IPVS service for each, by protocol, address and
//! port. Needs the kernel's IPVS, and the `nft` command.
//!
//! - `table`: what a network's nftables and IPVS should hold, and which connections may exist beside it.
//! - `steps`: from one set of IPVS services to another.
//! - `kernel`: carrying steps out, listing what there is, and the sysctls.
//!
//! IPVS has no transactions. What comes is added first, then nftables changes in one transaction, then what goes is
//! deleted; after an error in between the next call compares all with what the kernel lists.

mod kernel;
mod steps;
mod table;

use crate::{
    Kind, Result,
    method::{Done, Method, Table as _},
    netlink::{Entry, drop_connections},
    nft::Nft,
};
use kernel::{Kernel, changed_sysctl, set_sysctls};
use steps::Steps;
use table::Table;

/// Balancing by IPVS, which nftables lets the packets through to.
pub(crate) struct Ipvs(Kernel);

impl Ipvs {
    fn carry_out(&mut self, nft: &Nft, steps: &Steps, statements: &[String]) -> Result<()> {
        self.0.carry_out(&steps.before)?;
        if !statements.is_empty() {
            nft.commit(&statements.join("\n"))?;
        }
        self.0.carry_out(&steps.after)
    }
}

impl Method for Ipvs {
    const KIND: Kind = Kind::Ipvs;
    const NAME: &'static str = "ipvs";
    type Table = Table;

    fn open() -> Result<Self> {
        Kernel::open().map(Self)
    }

    fn seems_right(&mut self, table: &Table) -> Result<bool> {
        self.0.has(&table.services)
    }

    fn strangeness(&mut self, table: &Table) -> Result<Option<String>> {
        let steps = self.0.steps_to(&table.services)?;
        if let Some(step) = steps.before.iter().chain(&steps.after).next() {
            return Ok(Some(step.to_string()));
        }
        Ok(changed_sysctl()?.map(|name| format!("the sysctl net.ipv4.vs.{name} was changed")))
    }

    fn change(&mut self, nft: &Nft, from: &Table, to: &Table) -> Result<Done> {
        let steps = Steps::between(&from.services, &to.services);
        let statements = from.statements_to(to);
        // Milliseconds after a backend is deleted the kernel ends its connections itself, and we could not count them.
        let stranded = from.fronts().stranded_by(to.fronts());
        let disowned = |entry: &Entry| to.fronts().disowns(entry, Self::has_balanced(entry));
        let connections = drop_connections(&stranded, disowned)?;
        self.carry_out(nft, &steps, &statements)?;
        let operations = steps.len() + statements.len();
        Ok(Done { operations, committed: !statements.is_empty(), connections })
    }

    fn rebuild(&mut self, nft: &Nft, table: &Table) -> Result<usize> {
        set_sysctls()?;
        let steps = self.0.steps_to(&table.services)?;
        let statements = table.rebuild();
        self.carry_out(nft, &steps, &statements)?;
        Ok(steps.len() + statements.len())
    }

    fn remove(nft: &Nft) -> Result<()> {
        nft.commit("add table ip swarm\ndelete table ip swarm\n")?;
        match Kernel::open().and_then(|mut kernel| kernel.flush()) {
            Err(error) if error.is_no_ipvs() => Ok(()),
            other => other,
        }
    }

    fn has_balanced(entry: &Entry) -> bool {
        entry.balanced_elsewhere()
    }

    fn probe(nft: &Nft) -> Result<()> {
        kernel::probe()?;
        nft.commit(&table::sample().join("\n"))
    }
}
