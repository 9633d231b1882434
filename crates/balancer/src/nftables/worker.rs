//! The engine's blocking half: runs on a thread inside the network's namespace, holding the network's lock.

use swarm_netns::Identity;
use tracing::{debug, warn};

use super::{
    statement::{Statement, script},
    table::Table,
};
use crate::{
    Changes, Repaired, Result,
    netlink::{Answerers, drop_connections, following, generation},
    nft::{self, Nft},
};

/// What the engine believes the kernel holds for a network; `None` if it does not know.
pub(super) type Memory = Option<Programmed>;

/// The last transaction's outcome.
#[derive(Debug)]
pub(super) struct Programmed {
    namespace: Identity,
    table: Table,
    /// The namespace's nftables generation after our transaction: any other now means that someone else committed.
    generation: u32,
    /// A packet that was under way during the transaction may have been tracked by the old table after we looked.
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
        // Forgotten until the transaction is known to have succeeded: the next call then starts from scratch.
        let remembered = self.memory.take();
        let generation = generation()?;
        match remembered {
            Some(held) if held.namespace == self.namespace && held.generation == generation => {
                self.change(held, wanted)
            }
            Some(held) if held.namespace == self.namespace => {
                warn!(
                    network = self.network,
                    "nftables was changed by someone else: programming anew"
                );
                self.rebuild(wanted, generation)
            }
            _ => self.rebuild(wanted, generation),
        }
    }

    /// See [`crate::Balancer::audit`].
    pub(super) fn audit(&mut self, wanted: Table) -> Result<Repaired> {
        let Some(held) = self.memory.as_mut().filter(|held| held.namespace == self.namespace)
        else {
            return Ok(Repaired { drift: None, changes: self.program(wanted)? });
        };
        if held.generation != generation()? {
            return self.repair(wanted);
        }
        let suspects = std::mem::replace(&mut held.look_again, Answerers::none());
        let mut changes = self.program(wanted)?;
        changes.connections += self.drop_disowned(&suspects)?;
        Ok(Repaired { drift: None, changes })
    }

    /// Deletes the table, if there is one.
    pub(super) fn remove(&mut self) -> Result<()> {
        *self.memory = None;
        self.nft.commit(&script(&[Statement::AddTable, Statement::DeleteTable]))?;
        drop_connections(&Answerers::Any, |entry| entry.dnat).map(drop)
    }

    /// Someone committed to this namespace's nftables: programs anew, and tells by the listings whether it was to our
    /// table. The listings are only compared for the report; what they say decides nothing.
    fn repair(&mut self, wanted: Table) -> Result<Repaired> {
        let intended = self.memory.take().is_some_and(|held| held.table == wanted);
        let before = self.nft.list()?;
        let generation = generation()?;
        let changes = self.rebuild(wanted, generation)?;
        let drift = match before {
            None => Some("the table ip swarm was gone".to_owned()),
            Some(before) if intended && !nft::same(self.nft.list()?.as_deref(), Some(&before)) => {
                Some("the table ip swarm was changed by someone else".to_owned())
            }
            Some(_) => None,
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

    fn change(&mut self, held: Programmed, wanted: Table) -> Result<Changes> {
        let steps = held.table.steps_to(&wanted);
        let stranded = held.table.stranded_by(&wanted);
        if steps.is_empty() {
            return self.committed(Programmed { table: wanted, ..held }, 0, &stranded);
        }
        if let Err(error) = self.nft.commit(&script(&steps)) {
            warn!(network = self.network, %error, "nft refused a change: programming the network anew");
            return self.rebuild(wanted, generation()?);
        }
        let operations = steps.len();
        let generation = following(held.generation);
        self.committed(Programmed { generation, table: wanted, ..held }, operations, &stranded)
    }

    fn rebuild(&mut self, wanted: Table, generation: u32) -> Result<Changes> {
        let steps = wanted.rebuild();
        self.nft.commit(&script(&steps))?;
        let operations = steps.len();
        let generation = following(generation);
        let look_again = Answerers::none();
        let programmed =
            Programmed { namespace: self.namespace, table: wanted, generation, look_again };
        let changes = self.committed(programmed, operations, &Answerers::Any)?;
        Ok(Changes { rebuilt: true, ..changes })
    }

    /// Remembers a transaction and ends the connections that it stranded.
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
