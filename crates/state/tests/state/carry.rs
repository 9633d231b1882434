//! Which nodes carry which networks: what the state says is what a walk over its tasks says.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_model::{NetworkId, Node};
use swarm_state::{State, Touched};

/// A node carries the networks of its unfinished tasks; who carries a network is the same told the other way round, and
/// whoever listens hears when it changes.
pub(crate) fn check_carriers(before: &State, after: &State, touched: &[Touched]) {
    for node in after.nodes() {
        let here = after.tasks().filter(|task| task.is_on(&node.id) && !task.is_finished());
        let attachments = here.flat_map(|task| &task.networks_attachments);
        let attached: BTreeSet<NetworkId> = attachments.map(|a| a.network.id.clone()).collect();
        assert_eq!(after.carries(&node.id), attached);
    }
    for network in after.networks() {
        let id = &network.id;
        let carries = |node: &&Arc<Node>| after.carries(&node.id).contains(id);
        let nodes = after.nodes().filter(carries).map(|node| &node.id);
        assert!(after.carriers(id).eq(nodes), "{id}");
        let same = before.carriers(id).eq(after.carriers(id));
        assert!(same || touched.contains(&Touched::Carriers(id.clone())), "{id}: {touched:?}");
    }
}
