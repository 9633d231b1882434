//! The engine's blocking half: runs on a thread inside the network's namespace, holding the network's lock.

use swarm_netns::Identity;
use tracing::{debug, warn};

use super::{
    kernel::{Kernel, changed_sysctl, set_sysctls},
    steps::Steps,
    table::Table,
};
use crate::{
    Changes, Repaired, Result,
    netlink::{Answerers, drop_connections, following, generation},
    nft::{self, Nft},
};

/// What the engine believes the kernel holds for a network; `None` if it does not know.
pub(super) type Memory = Option<Programmed>;

/// The last change's outcome.
#[derive(Debug)]
pub(super) struct Programmed {
    namespace: Identity,
    table: Table,
    /// The namespace's nftables generation after our transaction: any other now means that someone else committed.
    generation: u32,
    /// A packet that was under way during the change may have been tracked by the old table after we looked.
    look_again: Answerers,
}

/// One network's work.
pub(super) struct Worker<'a> {
    pub(super) nft: &'a Nft,
    pub(super) network: &'a str,
    pub(super) namespace: Identity,
    pub(super) memory: &'a mut Memory,
}

impl Worker<'_> {
    /// See [`crate::Balancer::program`].
    pub(super) fn program(&mut self, wanted: Table) -> Result<Changes> {
        // Forgotten until the change is known to have succeeded: the next call then starts from scratch.
        let remembered = self.memory.take();
        let mut kernel = Kernel::open()?;
        let Some(held) = remembered.filter(|held| held.namespace == self.namespace) else {
            return self.rebuild(&mut kernel, wanted);
        };
        if held.generation != generation()? || !kernel.has(&held.table.services)? {
            warn!(
                network = self.network,
                "nftables or ipvs was changed by someone else: programming anew"
            );
            return self.rebuild(&mut kernel, wanted);
        }
        self.change(&mut kernel, held, wanted)
    }

    /// See [`crate::Balancer::audit`].
    pub(super) fn audit(&mut self, wanted: Table) -> Result<Repaired> {
        let Some(held) = self.memory.as_mut().filter(|held| held.namespace == self.namespace)
        else {
            return Ok(Repaired { drift: None, changes: self.program(wanted)? });
        };
        let mut kernel = Kernel::open()?;
        let strange = strangeness(&mut kernel, &held.table)?;
        if strange.is_some() || held.generation != generation()? {
            return self.repair(&mut kernel, strange, wanted);
        }
        let suspects = std::mem::replace(&mut held.look_again, Answerers::none());
        let mut changes = self.program(wanted)?;
        changes.connections += self.drop_disowned(&suspects)?;
        Ok(Repaired { drift: None, changes })
    }

    /// Deletes table and services, if there are any.
    pub(super) fn remove(&mut self) -> Result<()> {
        *self.memory = None;
        self.nft.commit("add table ip swarm\ndelete table ip swarm\n")?;
        match Kernel::open().and_then(|mut kernel| kernel.flush()) {
            Err(error) if error.is_no_ipvs() => {}
            other => other?,
        }
        drop_connections(&Answerers::Any, |entry| entry.balanced_elsewhere()).map(drop)
    }

    /// Someone changed IPVS (`strange` says how) or this namespace's nftables: programs anew, and tells by nft's
    /// listings whether it was our table. They are only compared for the report; what they say decides nothing.
    fn repair(
        &mut self,
        kernel: &mut Kernel,
        strange: Option<String>,
        wanted: Table,
    ) -> Result<Repaired> {
        let intended = self.memory.take().is_some_and(|held| held.table == wanted);
        let before = self.nft.list()?;
        let changes = self.rebuild(kernel, wanted)?;
        let drift = match (strange, before) {
            (Some(strange), _) => Some(strange),
            (None, None) => Some("the table ip swarm was gone".to_owned()),
            (None, before)
                if intended && !nft::same(self.nft.list()?.as_deref(), before.as_deref()) =>
            {
                Some("the table ip swarm was changed by someone else".to_owned())
            }
            (None, Some(_)) => None,
        };
        match &drift {
            Some(drift) => warn!(network = self.network, "repaired the balancer: {drift}"),
            None => debug!(
                network = self.network,
                "others use nftables in this namespace; our table was as it should be"
            ),
        }
        Ok(Repaired { drift, changes })
    }

    fn change(&mut self, kernel: &mut Kernel, held: Programmed, wanted: Table) -> Result<Changes> {
        let steps = Steps::between(&held.table.services, &wanted.services);
        let statements = held.table.statements_to(&wanted);
        let stranded = held.table.stranded_by(&wanted);
        // Milliseconds after a backend is deleted the kernel ends its connections itself, and we could not count them.
        let ended = drop_connections(&stranded, |entry| wanted.disowns(entry))?;
        let operations = steps.len() + statements.len();
        let generation =
            if statements.is_empty() { held.generation } else { following(held.generation) };
        if let Err(error) = self.carry_out(kernel, &steps, &statements) {
            warn!(network = self.network, %error, "a change failed: programming the network anew");
            return self.rebuild(kernel, wanted);
        }
        let programmed = Programmed { generation, table: wanted, ..held };
        let mut changes = self.committed(programmed, operations, &stranded)?;
        changes.connections += ended;
        Ok(changes)
    }

    fn rebuild(&mut self, kernel: &mut Kernel, wanted: Table) -> Result<Changes> {
        set_sysctls()?;
        let generation = following(generation()?);
        let steps = kernel.steps_to(&wanted.services)?;
        let statements = wanted.rebuild();
        self.carry_out(kernel, &steps, &statements)?;
        let operations = steps.len() + statements.len();
        let look_again = Answerers::none();
        let programmed =
            Programmed { namespace: self.namespace, table: wanted, generation, look_again };
        let changes = self.committed(programmed, operations, &Answerers::Any)?;
        Ok(Changes { rebuilt: true, ..changes })
    }

    fn carry_out(&self, kernel: &mut Kernel, steps: &Steps, statements: &[String]) -> Result<()> {
        kernel.carry_out(&steps.before)?;
        if !statements.is_empty() {
            self.nft.commit(&statements.join("\n"))?;
        }
        kernel.carry_out(&steps.after)
    }

    /// Remembers a change and ends the connections that it stranded.
    fn committed(
        &mut self,
        mut programmed: Programmed,
        operations: usize,
        stranded: &Answerers,
    ) -> Result<Changes> {
        programmed.look_again.merge(stranded);
        *self.memory = Some(programmed);
        let connections = self.drop_disowned(stranded)?;
        Ok(Changes { operations, rebuilt: false, connections })
    }

    fn drop_disowned(&mut self, suspects: &Answerers) -> Result<usize> {
        let Some(programmed) = self.memory.as_ref() else {
            return Ok(0);
        };
        let table = &programmed.table;
        let dropped = drop_connections(suspects, |entry| table.disowns(entry));
        if dropped.is_err() {
            // The table is right, the connections are not: a rebuild looks at them again.
            *self.memory = None;
        }
        dropped
    }
}

/// How IPVS differs from what was programmed, in words.
fn strangeness(kernel: &mut Kernel, programmed: &Table) -> Result<Option<String>> {
    let steps = kernel.steps_to(&programmed.services)?;
    if let Some(step) = steps.before.iter().chain(&steps.after).next() {
        return Ok(Some(step.to_string()));
    }
    Ok(changed_sysctl()?.map(|name| format!("the sysctl net.ipv4.vs.{name} was changed")))
}
