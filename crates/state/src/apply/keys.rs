//! The key ring of encrypted networks: generations are added, sent with and removed, in that order.

use swarm_model::{NetworkKey, NetworkSecret, NodeId};

use super::Context;
use crate::command::{Rejected, Touched};
use crate::tables::State;
use crate::tunnels::LAST_ORDINAL;

/// The most generations at once: a former and a next one.
const MOST_GENERATIONS: usize = 2;

impl State {
    pub(super) fn add_network_key(
        &mut self,
        cx: &mut Context,
        generation: u32,
        secret: NetworkSecret,
    ) -> Result<(), Rejected> {
        let newest = self.keys.newest().map_or(0, |key| key.generation);
        if newest.checked_add(1) != Some(generation) || self.keys.keys.len() >= MOST_GENERATIONS {
            return Err(out_of_date());
        }
        let key = NetworkKey { generation, secret, created_at: cx.now, revision: cx.revision };
        self.keys.keys.push(key);
        self.keys.rotation_requested = false;
        if self.keys.keys.len() == 1 {
            self.number_nodes();
            self.send_with(cx, generation);
        }
        cx.touch(Touched::NetworkKeys);
        Ok(())
    }

    pub(super) fn send_with_network_key(
        &mut self,
        cx: &mut Context,
        generation: u32,
    ) -> Result<(), Rejected> {
        if self.keys.key(generation).is_none() || generation <= self.keys.sending {
            return Err(out_of_date());
        }
        self.send_with(cx, generation);
        cx.touch(Touched::NetworkKeys);
        Ok(())
    }

    fn send_with(&mut self, cx: &Context, generation: u32) {
        self.keys.sending = generation;
        self.keys.sending_revision = cx.revision;
        self.keys.sending_since = cx.now;
    }

    pub(super) fn remove_network_key(
        &mut self,
        cx: &mut Context,
        generation: u32,
    ) -> Result<(), Rejected> {
        if self.keys.key(generation).is_none() || generation >= self.keys.sending {
            return Err(out_of_date());
        }
        self.keys.keys.retain(|key| key.generation != generation);
        cx.touch(Touched::NetworkKeys);
        Ok(())
    }

    pub(super) fn rotate_network_keys(&mut self) -> Result<(), Rejected> {
        if self.keys.keys.is_empty() {
            return Err(Rejected::Invalid(
                "there are no network keys to rotate: no network was encrypted so far".into(),
            ));
        }
        self.keys.rotation_requested = true;
        Ok(())
    }

    /// Gives every node an ordinal that has none. Not before the first key: so a log that was written
    /// before there were ordinals gives the same state as a snapshot of that time.
    fn number_nodes(&mut self) {
        let without = self.nodes().filter(|node| node.ordinal == 0);
        let without: Vec<NodeId> = without.map(|node| node.id.clone()).collect();
        for id in without {
            let Some(mut node) = self.node(&id).map(|node| (**node).clone()) else {
                continue;
            };
            // Without one it takes no part in encrypted networks: there are millions before that.
            node.ordinal = self.next_ordinal().unwrap_or_default();
            self.put_node(node);
        }
    }

    /// The ordinal of a new node; 0 as long as there is no key.
    pub(super) fn ordinal_of_new_node(&mut self) -> Result<u32, Rejected> {
        if self.keys.keys.is_empty() {
            return Ok(0);
        }
        self.next_ordinal().ok_or_else(|| {
            Rejected::Exhausted(format!("no more than {LAST_ORDINAL} nodes can ever join"))
        })
    }

    fn next_ordinal(&mut self) -> Option<u32> {
        let next = self.last_ordinal.checked_add(1).filter(|next| *next <= LAST_ORDINAL)?;
        self.last_ordinal = next;
        Some(next)
    }
}

fn out_of_date() -> Rejected {
    Rejected::OutOfDate("the ring of network keys".into())
}
