//! `ca --rotate-network-keys`, and what `network inspect` says of keys: never one itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use swarm_model::{ESP_CIPHER, Network, Node, NodeId, NodeState, Rotation, Timestamp};
use swarm_proto::control::control_client::ControlClient;
use swarm_proto::control::{Changed, Document, InspectNetworkRequest};
use swarm_state::{Change, State};
use tonic::Status;

use super::Control;
use crate::clock;
use crate::leader::lead::DEAD_AFTER;
use crate::leader::plan::{Facts, behind};

impl Control {
    pub(super) async fn rotate_network_keys_now(&self) -> Result<Changed, Status> {
        let outcome = self.proposer.propose_one(Change::RotateNetworkKeys).await?;
        Ok(Changed { id: String::new(), revision: outcome.revision, warnings: vec![] })
    }

    /// The leader's answer about an encrypted network, if another manager leads: only the leader knows
    /// which nodes have which keys.
    pub(super) async fn ask_leader(
        &self,
        request: &InspectNetworkRequest,
    ) -> Result<Option<Document>, Status> {
        let Some(leader) = self.other_leader()? else { return Ok(None) };
        let mut client = ControlClient::new(self.peers.channel(&leader)?);
        Ok(Some(client.inspect_network(request.clone()).await?.into_inner()))
    }

    /// Adds `Encryption`, and to each of `Peers` how far its keys are.
    pub(super) fn show_encryption(&self, state: &State, network: &Network, value: &mut Value) {
        let now = clock::now();
        let speaks = self.store.dialect().engine.feature_level;
        let facts = Facts { now, nodes: self.fleet.facts(), dead_after: DEAD_AFTER, speaks };
        value["Encryption"] = encryption(state, &facts);
        value["Peers"] = peers(state, network, &facts);
    }
}

fn encryption(state: &State, facts: &Facts) -> Value {
    let ring = state.key_ring();
    let Some(key) = ring.key(ring.sending) else {
        return json!({ "Cipher": ESP_CIPHER, "Rotation": "there is no key yet" });
    };
    json!({
        "Cipher": ESP_CIPHER,
        "KeyGeneration": key.generation,
        "KeyCreatedAt": key.created_at,
        "KeyAge": age(key.created_at, facts.now),
        "Rotation": rotation(state, facts),
    })
}

/// Hours, minutes and seconds, as Go prints them.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(since).as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
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

fn peers(state: &State, network: &Network, facts: &Facts) -> Value {
    let late: BTreeSet<&NodeId> =
        behind(state, facts, state.key_ring().sending_revision).map(|node| &node.id).collect();
    let nodes = state.carriers(&network.id);
    let peers = nodes.filter_map(|id| state.node(id)).map(|node| {
        let mut peer = super::shape::peer(node);
        peer["Keys"] = json!(keys_of(node, late.contains(&node.id), state.key_ring().sending));
        peer
    });
    peers.collect()
}

/// How far a node is with the keys that are sent with.
fn keys_of(node: &Node, late: bool, sending: u32) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_at_a_glance() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (61, "1m1s"), (3600, "1h0m0s"), (43_205, "12h0m5s")]
        {
            let now = Timestamp(5_000_000_000 + seconds * 1_000_000_000);
            assert_eq!(age(Timestamp(5_000_000_000), now), text);
        }
    }
}
