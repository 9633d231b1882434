//! The state as one document, for Raft snapshots. Indexes and pools are derived again on restore; only
//! what cannot be derived (where allocation goes on) is kept beside the objects.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::{
    Cluster, KeyRing, Network, NetworkId, Node, Service, ServiceId, Task, TaskSpec, codec,
};

use crate::ipam::AddressPool;
use crate::tables::State;

/// How many versions of a service its tasks are looked at for, to share their specs.
const MOST_SPECS: usize = 8;

/// A snapshot that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot restore the replicated state: {0}")]
pub struct RestoreError(pub(crate) String);

#[derive(Serialize, Deserialize)]
struct Document {
    revision: u64,
    cluster: Option<Arc<Cluster>>,
    nodes: Vec<Arc<Node>>,
    networks: Vec<Arc<Network>>,
    services: Vec<Arc<Service>>,
    tasks: Vec<Arc<Task>>,
    next_raft_id: u64,
    next_vni: u32,
    cursors: BTreeMap<NetworkId, IpAddr>,
    #[serde(default)]
    keys: KeyRing,
    #[serde(default)]
    last_ordinal: u32,
}

impl State {
    /// Encodes the state. `State` is cheap to clone (it shares its objects), so a writer need not be
    /// kept waiting: clone it, then encode the clone elsewhere.
    pub fn to_snapshot(&self) -> Vec<u8> {
        codec::encode(&Document {
            revision: self.revision,
            cluster: self.cluster.clone(),
            nodes: self.nodes.values().cloned().collect(),
            networks: self.networks.values().cloned().collect(),
            services: self.services.values().cloned().collect(),
            tasks: self.tasks.all().cloned().collect(),
            next_raft_id: self.next_raft_id,
            next_vni: self.next_vni,
            cursors: self.pools.iter().map(|(id, pool)| (id.clone(), pool.cursor())).collect(),
            keys: self.keys.clone(),
            last_ordinal: self.last_ordinal,
        })
    }

    /// Decodes what [`State::to_snapshot`] made.
    pub fn from_snapshot(bytes: &[u8]) -> Result<State, RestoreError> {
        let document: Document =
            codec::decode_whole(bytes).map_err(|e| RestoreError(e.to_string()))?;
        let mut state = State::new();
        state.revision = document.revision;
        state.cluster = document.cluster;
        state.next_raft_id = document.next_raft_id;
        state.next_vni = document.next_vni;
        state.keys = document.keys;
        state.last_ordinal = document.last_ordinal;
        for node in document.nodes {
            state.put_node(Arc::unwrap_or_clone(node));
        }
        for network in document.networks {
            let mut pool = AddressPool::new(network.subnet, network.ip_range, network.gateway)
                .map_err(|e| RestoreError(format!("network {}: {e}", network.spec.name)))?;
            if let Some(cursor) = document.cursors.get(&network.id) {
                pool.set_cursor(*cursor);
            }
            state.put_network(Arc::unwrap_or_clone(network), pool);
        }
        for service in document.services {
            for vip in &service.endpoint.virtual_ips {
                state.take(&vip.network_id, vip.addr.addr());
            }
            state.put_service(Arc::unwrap_or_clone(service));
        }
        let mut specs: BTreeMap<ServiceId, Vec<Arc<TaskSpec>>> = BTreeMap::new();
        for task in document.tasks {
            let mut task = Arc::unwrap_or_clone(task);
            // Tasks shared it when they were encoded.
            let known = specs.entry(task.service_id.clone()).or_default();
            match known.iter().find(|known| ***known == *task.spec) {
                Some(shared) => task.spec = Arc::clone(shared),
                None if known.len() < MOST_SPECS => known.push(Arc::clone(&task.spec)),
                None => {}
            }
            if !task.is_finished() {
                for attachment in &task.networks_attachments {
                    for addr in &attachment.addresses {
                        state.take(&attachment.network.id, addr.addr());
                    }
                }
            }
            state.tasks.put(task);
        }
        Ok(state)
    }

    fn take(&mut self, network: &NetworkId, addr: IpAddr) {
        if let Some(pool) = self.pools.get_mut(network) {
            pool.take(addr);
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_model::{Meta, NetworkSpec, Timestamp};

    use super::*;

    #[test]
    fn a_snapshot_with_a_network_of_ipv6_is_refused_and_names_it() {
        let network = Network {
            id: "id".into(),
            meta: Meta::created(1, Timestamp(1)),
            spec: NetworkSpec { name: "six".into(), ..NetworkSpec::default() },
            vni: 4097,
            subnet: "fd00::/64".parse().unwrap(),
            gateway: "fd00::1".parse().unwrap(),
            ip_range: "fd00::/64".parse().unwrap(),
        };
        let mut document: Document = codec::decode_whole(&State::new().to_snapshot()).unwrap();
        document.networks.push(Arc::new(network));
        let error = State::from_snapshot(&codec::encode(&document)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot restore the replicated state: network six: subnet fd00::/64 is IPv6, which is not served yet"
        );
    }
}
