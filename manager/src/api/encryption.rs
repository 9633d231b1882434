//! The keys of encrypted networks: their rotation, and what is told of them, which is never one itself.

use std::collections::BTreeSet;

use swarm_model::{Network, Node, NodeId, NodeState, Rotation};
use swarm_state::{Change, State};

use super::types::{Changed, Encryption, NetworkPeer, SendingKey};
use super::{Api, networks};
use crate::clock;
use crate::error::ApiError;
use crate::leader::lead::DEAD_AFTER;
use crate::leader::plan::{Facts, behind};

impl Api {
    /// Asks for new keys of encrypted networks; [`Api::inspect_network`] tells how far that is.
    pub async fn rotate_network_keys(&self) -> Result<Changed, ApiError> {
        let revision = self.proposer.propose_one(Change::RotateNetworkKeys).await?.revision;
        Ok(Changed { revision, ..Changed::default() })
    }

    /// The keys of an encrypted network, and how far each node that carries it is with them. Only the leader knows
    /// which nodes have which: `state` is asked if this manager leads.
    pub(super) async fn keys_of(
        &self,
        state: &State,
        network: &Network,
    ) -> Result<(Vec<NetworkPeer>, Encryption), ApiError> {
        if let Some(mut leader) = self.other_leader()? {
            return leader.keys_of(&network.id).await;
        }
        let now = clock::now();
        let speaks = self.store.dialect().engine.feature_level;
        let facts = Facts { now, nodes: self.fleet.facts(), dead_after: DEAD_AFTER, speaks };
        Ok((peers(state, network, &facts), encryption(state, &facts)))
    }
}

fn encryption(state: &State, facts: &Facts) -> Encryption {
    let ring = state.key_ring();
    let Some(key) = ring.key(ring.sending) else {
        return Encryption { key: None, rotation: "there is no key yet".into() };
    };
    let key = SendingKey { generation: key.generation, created_at: key.created_at };
    Encryption { key: Some(key), rotation: rotation(state, facts) }
}

/// How far a rotation is, in words; empty if there is none.
fn rotation(state: &State, facts: &Facts) -> String {
    let ring = state.key_ring();
    let (text, revision) = match ring.rotation() {
        Rotation::Idle if ring.rotation_requested => return "about to begin".into(),
        Rotation::Idle => return String::new(),
        Rotation::Announced(generation, revision) => {
            (format!("generation {generation} is announced"), revision)
        }
        Rotation::Retiring(generation, revision) => {
            (format!("generation {generation} is still accepted"), revision)
        }
    };
    let late = behind(state, facts, revision).map(|node| node.description.hostname.as_str());
    let late: BTreeSet<&str> = late.collect();
    if late.is_empty() {
        return text;
    }
    format!("{text}, waiting for {}", late.into_iter().collect::<Vec<_>>().join(", "))
}

fn peers(state: &State, network: &Network, facts: &Facts) -> Vec<NetworkPeer> {
    let sending = state.key_ring().sending;
    let late: BTreeSet<&NodeId> =
        behind(state, facts, state.key_ring().sending_revision).map(|node| &node.id).collect();
    networks::peers(state, network, |node| Some(progress(node, late.contains(&node.id), sending)))
}

/// How far a node is with the keys that are sent with.
fn progress(node: &Node, late: bool, sending: u32) -> String {
    let why = |text: &str| match node.status.message.as_str() {
        "" => text.to_owned(),
        message => format!("{text}: {message}"),
    };
    if node.status.state != NodeState::Ready {
        why("node is down")
    } else if !node.has_esp() {
        format!("none: {}", node.description.encryption.reason)
    } else if late {
        why(&format!("generation {sending} is not in force yet"))
    } else {
        format!("generation {sending} in force")
    }
}
