//! What nodes are told, worked out once for all of them. A network's part of a view is the same for every node that
//! carries it, and so is the change from one of its states to the next: with a thousand nodes on it, one endpoint
//! costs one comparison, not a thousand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use swarm_model::{Item, ItemKey, NetworkId, NodeId, NodeView, ViewDelta};

use crate::replica::store::Store;

/// A network's part of a view. Never changed: whoever holds the same one was told the same.
type Content = Arc<NodeView>;

/// The views of all nodes; cheap to clone.
#[derive(Clone)]
pub(crate) struct Views {
    store: Store,
    networks: Arc<Mutex<BTreeMap<NetworkId, Network>>>,
}

/// The newest content of a network.
struct Network {
    /// The revision that changed it last.
    changed_at: u64,
    content: Content,
    /// The change that led here, from the content before: what most nodes need.
    last: Option<(Content, Arc<ViewDelta>)>,
}

/// What one node was told last.
#[derive(Default)]
pub(crate) struct Told {
    own: NodeView,
    networks: BTreeMap<NetworkId, Content>,
    /// The revision that changed anybody's tunnels last, and this node's.
    tunnels: (u64, Content),
}

impl Views {
    pub(crate) fn new(store: Store) -> Views {
        Views { store, networks: Arc::default() }
    }

    /// The change from what a node was told to what it should be told now, and that. Everything, if it was told nothing.
    pub(crate) fn changes(&self, node: &NodeId, told: Option<&Told>) -> (ViewDelta, Told) {
        let nothing = Told::default();
        let before = told.unwrap_or(&nothing);
        let (revision, now) = self.newest(node, told);
        let mut delta = before.own.delta_to(&now.own, revision);
        delta.full = told.is_none();
        for (id, content) in &now.networks {
            self.add(&mut delta, id, before.networks.get(id), content);
        }
        for (id, content) in &before.networks {
            if !now.networks.contains_key(id) {
                delta.remove.extend(content.items.keys().cloned());
            }
        }
        let (before, tunnels) = (&before.tunnels.1, &now.tunnels.1);
        if !Arc::ptr_eq(before, tunnels) {
            let change = before.delta_to(tunnels, revision);
            delta.upsert.extend(change.upsert);
            delta.remove.extend(change.remove);
        }
        (delta, now)
    }

    /// What a node should be told, all of one revision, and that.
    fn newest(&self, node: &NodeId, told: Option<&Told>) -> (u64, Told) {
        let (state, changed_at) = self.store.read_with_changes();
        // What the node may not understand yet counts as not there.
        let level = state.feature_level();
        let spoken = |mut items: BTreeMap<ItemKey, Item>| {
            items.retain(|_, item| item.level() <= level);
            NodeView { items }
        };
        let mut cached = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        cached.retain(|id, _| state.network(id).is_some());
        let contents = state.carries(node).into_iter().map(|id| {
            let changed_at = changed_at.networks.get(&id).copied().unwrap_or_default();
            let network = cached.get(&id).filter(|network| network.changed_at == changed_at);
            if let Some(network) = network {
                return (id, Arc::clone(&network.content));
            }
            let content = Arc::new(spoken(state.network_items(&id)));
            let newer = Network::following(cached.remove(&id), changed_at, content);
            let content = Arc::clone(&newer.content);
            cached.insert(id.clone(), newer);
            (id, content)
        });
        let networks = contents.collect();
        let tunnels = match told {
            Some(told) if told.tunnels.0 == changed_at.tunnels => told.tunnels.clone(),
            // Keys are derived, which is worth doing only if any may have changed.
            _ => (changed_at.tunnels, Arc::new(spoken(state.tunnels(node)))),
        };
        let own = spoken(state.own_items(node));
        (state.revision(), Told { own, networks, tunnels })
    }

    /// Adds the change of one network to a node's.
    fn add(&self, delta: &mut ViewDelta, id: &NetworkId, told: Option<&Content>, now: &Content) {
        let change = match told {
            None => Arc::new(now.as_full_delta(delta.revision)),
            Some(told) if Arc::ptr_eq(told, now) => return,
            Some(told) => self
                .last_change(id, told, now)
                .unwrap_or_else(|| Arc::new(told.delta_to(now, delta.revision))),
        };
        delta.upsert.extend(change.upsert.iter().cloned());
        delta.remove.extend(change.remove.iter().cloned());
    }

    fn last_change(&self, id: &NetworkId, from: &Content, to: &Content) -> Option<Arc<ViewDelta>> {
        let cached = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let network = cached.get(id).filter(|network| Arc::ptr_eq(&network.content, to))?;
        let (before, change) = network.last.as_ref()?;
        Arc::ptr_eq(before, from).then(|| Arc::clone(change))
    }
}

impl Network {
    /// What follows `before`; its content stays if nothing differs.
    fn following(before: Option<Network>, changed_at: u64, content: Content) -> Network {
        let Some(before) = before else { return Network { changed_at, content, last: None } };
        let change = before.content.delta_to(&content, changed_at);
        if change.is_empty() {
            return Network { changed_at, ..before };
        }
        Network { changed_at, content, last: Some((before.content, Arc::new(change))) }
    }
}

#[cfg(test)]
mod tests;
