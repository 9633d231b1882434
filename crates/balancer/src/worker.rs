//! The engines' blocking half: runs on a thread inside the network's namespace, holding the network's lock. It remembers
//! what the kernel was given, changes that by the least, programs anew what someone else changed, and ends the connections
//! that contradict it.

use swarm_netns::Identity;
use tracing::{debug, warn};

use crate::{
    Changes, Repaired, Result,
    method::{Done, Method, Table},
    netlink::{Answerers, Entry, drop_connections, following, generation},
    nft::{self, Nft},
};

/// What the engine believes the kernel holds for a network; `None` if it does not know.
pub(crate) type Memory<T> = Option<Programmed<T>>;

/// The last change's outcome.
#[derive(Debug)]
pub(crate) struct Programmed<T> {
    namespace: Identity,
    table: T,
    /// The namespace's nftables generation after our transaction: any other now means that someone else committed.
    generation: u32,
    /// A packet that was under way during the change may have been tracked by the old table after we looked.
    look_again: Answerers,
}

/// One network's work.
pub(crate) struct Worker<'a, M: Method> {
    pub(crate) nft: &'a Nft,
    pub(crate) network: &'a str,
    pub(crate) namespace: Identity,
    pub(crate) memory: &'a mut Memory<M::Table>,
}

impl<M: Method> Worker<'_, M> {
    /// See [`crate::Balancer::program`].
    pub(crate) fn program(&mut self, wanted: M::Table) -> Result<Changes> {
        // Forgotten until the change is known to have succeeded: the next call then starts from scratch.
        let remembered = self.memory.take();
        let mut method = M::open()?;
        let Some(held) = remembered.filter(|held| held.namespace == self.namespace) else {
            return self.rebuild(&mut method, wanted);
        };
        if held.generation != generation()? || !method.seems_right(&held.table)? {
            warn!(
                network = self.network,
                "{} was changed by someone else: programming anew",
                M::NAME
            );
            return self.rebuild(&mut method, wanted);
        }
        self.change(&mut method, held, wanted)
    }

    /// See [`crate::Balancer::audit`].
    pub(crate) fn audit(&mut self, wanted: M::Table) -> Result<Repaired> {
        let Some(held) = self.memory.as_mut().filter(|held| held.namespace == self.namespace)
        else {
            return Ok(Repaired { drift: None, changes: self.program(wanted)? });
        };
        let mut method = M::open()?;
        let strange = method.strangeness(&held.table)?;
        if strange.is_some() || held.generation != generation()? {
            return self.repair(&mut method, strange, wanted);
        }
        let suspects = std::mem::replace(&mut held.look_again, Answerers::none());
        let mut changes = self.program(wanted)?;
        changes.connections += self.drop_disowned(&suspects)?;
        Ok(Repaired { drift: None, changes })
    }

    /// Takes away what the engine made, if there is anything.
    pub(crate) fn remove(&mut self) -> Result<()> {
        *self.memory = None;
        M::remove(self.nft)?;
        drop_connections(&Answerers::Any, M::has_balanced).map(drop)
    }

    /// Someone changed the kernel (`strange` says how, if it was not nftables): programs anew, and tells by nft's
    /// listings whether it was our table. They are only compared for the report; what they say decides nothing.
    fn repair(
        &mut self,
        method: &mut M,
        strange: Option<String>,
        wanted: M::Table,
    ) -> Result<Repaired> {
        let intended = self.memory.take().is_some_and(|held| held.table == wanted);
        let before = self.nft.list()?;
        let changes = self.rebuild(method, wanted)?;
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

    fn change(
        &mut self,
        method: &mut M,
        held: Programmed<M::Table>,
        wanted: M::Table,
    ) -> Result<Changes> {
        let stranded = held.table.fronts().stranded_by(wanted.fronts());
        let done = match method.change(self.nft, &held.table, &wanted) {
            Ok(done) => done,
            Err(error) => {
                warn!(network = self.network, %error, "a change failed: programming the network anew");
                return self.rebuild(method, wanted);
            }
        };
        let Done { operations, committed, connections } = done;
        let generation = if committed { following(held.generation) } else { held.generation };
        let programmed = Programmed { generation, table: wanted, ..held };
        let mut changes = self.committed(programmed, operations, &stranded)?;
        changes.connections += connections;
        Ok(changes)
    }

    fn rebuild(&mut self, method: &mut M, wanted: M::Table) -> Result<Changes> {
        let generation = following(generation()?);
        let operations = method.rebuild(self.nft, &wanted)?;
        let look_again = Answerers::none();
        let programmed =
            Programmed { namespace: self.namespace, table: wanted, generation, look_again };
        let changes = self.committed(programmed, operations, &Answerers::Any)?;
        Ok(Changes { rebuilt: true, ..changes })
    }

    /// Remembers a change and ends the connections that it stranded.
    fn committed(
        &mut self,
        mut programmed: Programmed<M::Table>,
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
        let fronts = programmed.table.fronts();
        let disowned = |entry: &Entry| fronts.disowns(entry, M::has_balanced(entry));
        let dropped = drop_connections(suspects, disowned);
        if dropped.is_err() {
            // The table is right, the connections are not: a rebuild looks at them again.
            *self.memory = None;
        }
        dropped
    }
}
