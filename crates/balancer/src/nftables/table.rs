//! The table of one network as it should be, and the statements that lead from one such table to another.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{
    slots::interleave,
    statement::{Chain, Statement},
};
use crate::{
    Network, Ports, Result, VirtualService,
    fronts::{Front, Fronts},
    method,
};

/// What the kernel's `table ip swarm` of a network holds, and which connections may exist beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// The source address of tasks that reach themselves.
    pub(super) gateway: Ipv4Addr,
    /// For each service that takes new connections, a chain per protocol and port of the backends that it names, or one
    /// for all ports.
    pub(super) chains: BTreeMap<String, Chain>,
    /// To which chain it leads where clients call.
    pub(super) routes: BTreeMap<Front, String>,
    /// VIPs at which whatever no route leads away is refused: those of services that take no new connections, or on some
    /// ports only.
    pub(super) refused: BTreeSet<Ipv4Addr>,
    /// Backends that run here.
    pub(super) local: BTreeSet<Ipv4Addr>,
    /// Not in the table: they tell which tracked connections may exist.
    fronts: Fronts,
}

impl Table {
    /// A table without services.
    pub(super) fn empty(gateway: Ipv4Addr) -> Self {
        Self {
            gateway,
            chains: BTreeMap::new(),
            routes: BTreeMap::new(),
            refused: BTreeSet::new(),
            local: BTreeSet::new(),
            fronts: Fronts::default(),
        }
    }

    /// The table for a valid network.
    pub(super) fn of_valid(network: &Network<Ipv4Addr>) -> Self {
        let mut table = Self::empty(network.gateway);
        for service in &network.services {
            table.add(service);
        }
        table
    }

    fn add(&mut self, service: &VirtualService<Ipv4Addr>) {
        let slots =
            interleave(service.backends.iter().map(|backend| (backend.addr, backend.weight)));
        if slots.is_empty() || service.ports != Ports::All {
            self.refused.insert(service.vip);
        }
        let fronts = if slots.is_empty() { vec![] } else { service.fronts() };
        for (front, target) in fronts {
            let label = Chain::label(&service.id, target);
            let chain = Chain { name: service.name.clone(), slots: slots.clone(), target };
            self.routes.insert(front, label.clone());
            self.chains.insert(label, chain);
        }
        self.local.extend(
            service.backends.iter().filter(|backend| backend.local).map(|backend| backend.addr),
        );
        self.fronts.add(service);
    }

    /// Replaces whatever table the kernel has by this one.
    pub(super) fn rebuild(&self) -> Vec<Statement<'_>> {
        let mut statements =
            vec![Statement::AddTable, Statement::DeleteTable, Statement::Skeleton(self.gateway)];
        statements.extend(Self::empty(self.gateway).steps_to(self));
        statements
    }

    /// Leads from this table to `new`: first what refers to chains goes, then chains change, then references come.
    pub(super) fn steps_to<'a>(&self, new: &'a Self) -> Vec<Statement<'a>> {
        let mut steps = Vec::new();
        if self.gateway != new.gateway {
            steps.extend([Statement::FlushSnat, Statement::AddSnat(new.gateway)]);
        }
        let rerouted = self.routes.iter().filter(|(front, to)| new.routes.get(*front) != Some(*to));
        steps.extend(rerouted.map(|(front, _)| Statement::DeleteRoute(*front)));
        steps.extend(
            self.refused.difference(&new.refused).map(|vip| Statement::DeleteRefused(*vip)),
        );
        steps.extend(self.local.difference(&new.local).map(|addr| Statement::DeleteLocal(*addr)));

        let gone = self.chains.keys().filter(|label| !new.chains.contains_key(*label));
        steps.extend(gone.map(|label| Statement::DeleteChain(label.clone())));
        for (label, chain) in &new.chains {
            match self.chains.get(label) {
                Some(old) if old == chain => continue,
                Some(_) => steps.push(Statement::FlushChain(label)),
                None => steps.push(Statement::AddChain(label)),
            }
            steps.push(Statement::AddRule(label, chain));
        }

        let routed = new.routes.iter().filter(|(front, to)| self.routes.get(*front) != Some(*to));
        steps.extend(routed.map(|(front, to)| Statement::AddRoute(*front, to)));
        steps.extend(new.refused.difference(&self.refused).map(|vip| Statement::AddRefused(*vip)));
        steps.extend(new.local.difference(&self.local).map(|addr| Statement::AddLocal(*addr)));
        steps
    }
}

impl method::Table for Table {
    fn of(network: &Network) -> Result<Self> {
        Ok(Self::of_valid(&network.checked()?))
    }

    fn fronts(&self) -> &Fronts {
        &self.fronts
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
