//! Who leads, and what operators ask of it when hosts are lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_manager::Manager;
use swarm_proto::control::RemoveNodeRequest;
use swarm_proto::control::control_server::Control as _;
use swarm_raft::Role;
use tonic::Request;

use crate::ledger::Ledger;
use crate::node::{Fate, Node};

/// A manager that leads, or thinks that it does.
pub(crate) fn leader(nodes: &[Node]) -> Option<(&Node, Arc<Manager>)> {
    nodes.iter().find_map(|node| {
        let manager = node.manager()?;
        let leads = manager.raft().status().borrow().role == Role::Leader;
        leads.then_some((node, manager))
    })
}

/// `node rm --force`, asked of the leader, for the hosts that do not come back or shall not, and for nodes that no host is:
/// it lost its power as it joined.
pub(crate) fn remove_lost(nodes: &[Node], ledger: &Ledger) {
    let Some((leader, manager)) = leader(nodes) else { return };
    let lost = nodes.iter().filter(|node| matches!(node.fate, Fate::Lost | Fate::Removed));
    let mut names: Vec<String> = lost.filter_map(Node::node_id).collect();
    let here = nodes.iter().filter(|node| node.fate == Fate::Here);
    // Of a host that is about to join it is not known yet which node it is.
    if let Some(known) = here.map(Node::node_id).collect::<Option<BTreeSet<_>>>() {
        let absent = ledger.state.nodes().filter(|node| !node.is_alive());
        names.extend(absent.map(|node| node.id.to_string()).filter(|id| !known.contains(id)));
    }
    names.retain(|name| ledger.state.node(&name.as_str().into()).is_some());
    for name in names {
        let control = manager.handle().control();
        leader.spawn(async move {
            // It is refused while a manager does not count as down, and asked again.
            let _ =
                control.remove_node(Request::new(RemoveNodeRequest { name, force: true })).await;
        });
    }
}
