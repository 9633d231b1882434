//! Which nodes carry which networks: a node that carries a network has it in its kernel and in its DNS. What a node is
//! told of networks, whom a change in one concerns, who encrypts for whom and who is waited for follow from this. A
//! node carries the networks that its unfinished tasks are attached to.

use std::collections::BTreeSet;

use swarm_model::{NetworkId, NodeId};

use crate::tables::State;

impl State {
    /// The networks that a node carries.
    pub fn carries(&self, node: &NodeId) -> BTreeSet<NetworkId> {
        let attachments = self.tasks_on(node).flat_map(|task| &task.networks_attachments);
        attachments.map(|attachment| attachment.network.id.clone()).collect()
    }

    /// The nodes that carry a network, live ones and others, by id. [`crate::Touched::Carriers`] says that they changed.
    pub fn carriers(&self, network: &NetworkId) -> impl Iterator<Item = &NodeId> {
        self.tasks.nodes_in(network)
    }
}
