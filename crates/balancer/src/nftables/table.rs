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
    Network, Result, VirtualService, method,
    netlink::{Answerers, Entry},
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What the kernel's `table ip swarm` of a network holds, and which connections may exist beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// The source address of tasks that reach themselves.
    pub(super) gateway: Ipv4Addr,
    /// A chain per service that takes new connections, by service id.
    pub(super) chains: BTreeMap<String, Chain>,
    /// VIP to service id.
    pub(super) routes: BTreeMap<Ipv4Addr, String>,
    /// VIPs of services that take no new connections.
    pub(super) refused: BTreeSet<Ipv4Addr>,
    /// Backends that run here.
    pub(super) local: BTreeSet<Ipv4Addr>,
    /// VIP to all its backends, the draining ones too. Not in the table: it judges tracked connections.
    pub(super) owners: BTreeMap<Ipv4Addr, BTreeSet<Ipv4Addr>>,
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
            owners: BTreeMap::new(),
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
        if slots.is_empty() {
            self.refused.insert(service.vip);
        } else {
            self.routes.insert(service.vip, service.id.clone());
            self.chains.insert(service.id.clone(), Chain { name: service.name.clone(), slots });
        }
        self.local.extend(
            service.backends.iter().filter(|backend| backend.local).map(|backend| backend.addr),
        );
        self.owners
            .insert(service.vip, service.backends.iter().map(|backend| backend.addr).collect());
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
        let rerouted = self.routes.iter().filter(|(vip, id)| new.routes.get(*vip) != Some(*id));
        steps.extend(rerouted.map(|(vip, _)| Statement::DeleteRoute(*vip)));
        steps.extend(
            self.refused.difference(&new.refused).map(|vip| Statement::DeleteRefused(*vip)),
        );
        steps.extend(self.local.difference(&new.local).map(|addr| Statement::DeleteLocal(*addr)));

        let gone = self.chains.keys().filter(|id| !new.chains.contains_key(*id));
        steps.extend(gone.map(|id| Statement::DeleteChain(id.clone())));
        for (id, chain) in &new.chains {
            match self.chains.get(id) {
                Some(old) if old == chain => continue,
                Some(_) => steps.push(Statement::FlushChain(id)),
                None => steps.push(Statement::AddChain(id)),
            }
            steps.push(Statement::AddRule(id, chain));
        }

        let routed = new.routes.iter().filter(|(vip, id)| self.routes.get(*vip) != Some(*id));
        steps.extend(routed.map(|(vip, id)| Statement::AddRoute(*vip, id)));
        steps.extend(new.refused.difference(&self.refused).map(|vip| Statement::AddRefused(*vip)));
        steps.extend(new.local.difference(&self.local).map(|addr| Statement::AddLocal(*addr)));
        steps
    }
}

impl method::Table for Table {
    fn of(network: &Network) -> Result<Self> {
        Ok(Self::of_valid(&network.checked()?))
    }

    fn stranded_by(&self, new: &Self) -> Answerers {
        let none = BTreeSet::new();
        let lost = self
            .owners
            .iter()
            .flat_map(|(vip, old)| old.difference(new.owners.get(vip).unwrap_or(&none)));
        // Before a service's first backend came, its VIP may have been tracked as an address of the namespace's own.
        let first = new.routes.keys().filter(|vip| !self.routes.contains_key(*vip));
        Answerers::These(lost.chain(first).copied().collect())
    }

    /// Whether it was balanced to what is no backend (any more), or was
    /// taken for one of the namespace itself while its VIP balances now. The namespace has no other destination NAT.
    fn disowns(&self, entry: &Entry) -> bool {
        if entry.dnat {
            return self
                .owners
                .get(&entry.destination)
                .is_none_or(|owners| !owners.contains(&entry.answerer));
        }
        [TCP, UDP].contains(&entry.protocol) && self.routes.contains_key(&entry.destination)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
