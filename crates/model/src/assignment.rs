//! What a worker is told: the tasks placed on it, and of the networks that it carries, what its
//! data plane and DNS need. A worker never sees more of the replicated state than this.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    Attachment, EspKey, FeatureLevel, NetworkId, NodeId, Ports, ServiceId, Task, TaskId, TaskSpec,
    TaskState,
};

/// Everything one node is told, by key. Two views compare and differ item by item.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeView {
    /// The items.
    pub items: BTreeMap<ItemKey, Item>,
}

/// The key of an [`Item`]. Items of one network are neighbours. Only additions are allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ItemKey {
    /// A network that this node carries.
    Network(NetworkId),
    /// A service in such a network.
    Service(NetworkId, ServiceId),
    /// A task's address in such a network, wherever the task runs.
    Endpoint(NetworkId, TaskId),
    /// A task placed on this node.
    Task(TaskId),
    /// A node that carries an encrypted network which this one carries too.
    Tunnel(NodeId),
}

impl ItemKey {
    /// The network the item is part of; none for a task or a tunnel.
    pub fn network(&self) -> Option<&NetworkId> {
        match self {
            ItemKey::Network(id) | ItemKey::Service(id, _) | ItemKey::Endpoint(id, _) => Some(id),
            ItemKey::Task(_) | ItemKey::Tunnel(_) => None,
        }
    }
}

/// A fact for a worker. Only additions are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// See [`ItemKey::Network`].
    Network(NetworkView),
    /// See [`ItemKey::Service`].
    Service(ServiceView),
    /// See [`ItemKey::Endpoint`].
    Endpoint(EndpointView),
    /// See [`ItemKey::Task`].
    Task(Arc<Assignment>),
    /// See [`ItemKey::Tunnel`].
    Tunnel(TunnelView),
}

impl Item {
    /// The feature level that a worker must speak to understand it.
    pub fn level(&self) -> FeatureLevel {
        match self {
            Item::Network(_)
            | Item::Service(_)
            | Item::Endpoint(_)
            | Item::Task(_)
            | Item::Tunnel(_) => FeatureLevel::FIRST,
        }
    }
}

/// A task as its node is told of it: what to run, and what is wanted of it. Nothing that the node said itself is part of
/// it: so a node is told nothing because of its own reports, but that the end of a task was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The task's id.
    pub id: TaskId,
    /// The service's name.
    pub service_name: String,
    /// The slot it fills.
    pub slot: u64,
    /// What it runs.
    pub spec: Arc<TaskSpec>,
    /// Its addresses.
    pub networks_attachments: Vec<Attachment>,
    /// As [`Task::ready_timeout`].
    pub ready_timeout: u64,
    /// What its node is to do with it.
    pub wanted: Wanted,
    /// Whether its node has said that it was started.
    pub began: Began,
}

/// Whether the managers know of a start. A node is told with whatever else it is told, never for this alone: it knows what
/// it said. So any two are equal. It matters to a node that has lost the container, or that a restored state takes back.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Began(pub bool);

impl PartialEq for Began {
    fn eq(&self, _: &Began) -> bool {
        true
    }
}

impl Eq for Began {}

impl Assignment {
    /// The task's name, as [`Task::name`].
    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.service_name, self.slot, self.id)
    }
}

impl From<&Task> for Assignment {
    fn from(task: &Task) -> Assignment {
        Assignment {
            id: task.id.clone(),
            service_name: task.service_name.clone(),
            slot: task.slot,
            spec: Arc::clone(&task.spec),
            networks_attachments: task.networks_attachments.clone(),
            ready_timeout: task.ready_timeout,
            wanted: Wanted::of(task),
            began: Began(task.status.state >= TaskState::Starting),
        }
    }
}

/// What a node is to do with a task. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Run it.
    Run,
    /// Stop it, and say so.
    Stop,
    /// It has ended, as the managers know: keep its logs until it is forgotten.
    Keep,
}

impl Wanted {
    /// What is wanted of `task`.
    pub fn of(task: &Task) -> Wanted {
        if task.is_finished() {
            Wanted::Keep
        } else if task.desired_state > TaskState::Running {
            Wanted::Stop
        } else {
            Wanted::Run
        }
    }
}

/// A network as a worker programs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// The network's name.
    pub name: String,
    /// VXLAN network identifier (24 bits).
    pub vni: u32,
    /// UDP port of VXLAN.
    pub port: u16,
    /// The subnet.
    pub subnet: IpNet,
    /// The address of the bridge on every node.
    pub gateway: IpAddr,
    /// Bytes; already less the encapsulation.
    pub mtu: u32,
    /// Whether it gives no way out of the swarm.
    pub internal: bool,
    /// Whether its packets to `port` of other nodes must be encrypted.
    #[serde(default)]
    pub encrypted: bool,
}

/// A service in a network as a worker programs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// The service's name.
    pub name: String,
    /// More names in this network.
    pub aliases: Vec<String>,
    /// The virtual address; none for `dnsrr`.
    pub vip: Option<IpAddr>,
    /// The ports of the virtual address.
    #[serde(default, skip_serializing_if = "Ports::are_all")]
    pub ports: Ports,
}

/// A task's address in a network as a worker programs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// The address.
    pub addr: IpAddr,
    /// The node the task is on.
    pub node: NodeId,
    /// Where VXLAN packets for it go; none as long as its node has not said.
    pub vtep: Option<IpAddr>,
    /// The service it belongs to.
    pub service: ServiceId,
    /// The task's name, `service.slot.id`.
    pub task_name: String,
    /// Its part in DNS and balancing.
    pub state: EndpointState,
}

/// An endpoint's part in DNS and balancing. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointState {
    /// Reachable, but no traffic is sent to it yet.
    Starting,
    /// In DNS and in the balancers.
    Ready,
    /// In neither; connections it has may end.
    Draining,
    /// Its node is dead: in neither, and its connections are cut.
    Lost,
}

/// How this node and another one encrypt what they send each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelView {
    /// The other node's data-path address.
    pub vtep: IpAddr,
    /// Ties policies and keys together in the kernel; no other node's, and not 0.
    pub reqid: u32,
    /// The incarnation of this node that the keys were made for: in another one they must not be used.
    pub incarnation: u64,
    /// What this node sends with.
    pub sending: SecurityAssociation,
    /// What this node accepts: of each generation that the other one may send with.
    pub receiving: Vec<SecurityAssociation>,
}

/// A security association of ESP (RFC 4303).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityAssociation {
    /// The index that tells it from others of the same receiver.
    pub spi: u32,
    /// Its key.
    pub key: EspKey,
}

/// The change from one view to another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ViewDelta {
    /// The revision the worker is at once it has programmed this.
    pub revision: u64,
    /// Whether this replaces all that was before.
    pub full: bool,
    /// New and changed items.
    pub upsert: Vec<(ItemKey, Item)>,
    /// Items gone.
    pub remove: Vec<ItemKey>,
}

impl ViewDelta {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        !self.full && self.upsert.is_empty() && self.remove.is_empty()
    }
}

impl NodeView {
    /// The change that makes `self` into `newer`.
    pub fn delta_to(&self, newer: &NodeView, revision: u64) -> ViewDelta {
        let upsert = newer
            .items
            .iter()
            .filter(|(key, item)| self.items.get(key) != Some(item))
            .map(|(key, item)| (key.clone(), item.clone()))
            .collect();
        let remove =
            self.items.keys().filter(|key| !newer.items.contains_key(key)).cloned().collect();
        ViewDelta { revision, full: false, upsert, remove }
    }

    /// The change that makes anything into `self`.
    pub fn as_full_delta(&self, revision: u64) -> ViewDelta {
        let upsert = self.items.iter().map(|(key, item)| (key.clone(), item.clone())).collect();
        ViewDelta { revision, full: true, upsert, remove: Vec::new() }
    }

    /// Applies a change.
    pub fn apply(&mut self, delta: ViewDelta) {
        if delta.full {
            self.items.clear();
        }
        for key in &delta.remove {
            self.items.remove(key);
        }
        self.items.extend(delta.upsert);
    }

    /// The items of one network.
    pub fn of_network<'a>(
        &'a self,
        network: &'a NetworkId,
    ) -> impl Iterator<Item = (&'a ItemKey, &'a Item)> + 'a {
        self.items.iter().filter(move |(key, _)| key.network() == Some(network))
    }

    /// The tasks placed on the node.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Assignment>> {
        self.items.values().filter_map(|item| match item {
            Item::Task(task) => Some(task),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn view() -> impl Strategy<Value = NodeView> {
        let item = (0u8..6, 0u8..3).prop_map(|(id, name)| {
            let service = ServiceView {
                name: name.to_string(),
                aliases: vec![],
                vip: None,
                ports: Ports::All,
            };
            (ItemKey::Service("net".into(), id.to_string().into()), Item::Service(service))
        });
        proptest::collection::vec(item, 0..8)
            .prop_map(|items| NodeView { items: items.into_iter().collect() })
    }

    proptest! {
        #[test]
        fn a_delta_makes_the_old_view_into_the_new(old in view(), new in view()) {
            let mut changed = old.clone();
            changed.apply(old.delta_to(&new, 1));
            prop_assert_eq!(&changed, &new);
            let mut reset = old;
            reset.apply(new.as_full_delta(1));
            prop_assert_eq!(&reset, &new);
        }
    }
}
