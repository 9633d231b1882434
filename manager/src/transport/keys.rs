//! What `network inspect` says of an encrypted network's keys: told to users, and by the leader to other managers, which read
//! it again.

use serde::{Deserialize, Serialize};
use swarm_model::{ESP_CIPHER, Timestamp};

use crate::api::types::{Encryption, NetworkPeer, SendingKey};
use crate::clock;

/// The part of `network inspect` that only the leader knows. A leader of another version may tell more, or less.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Told {
    pub(super) peers: Vec<Peer>,
    pub(super) encryption: Document,
}

/// One of `Peers`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Peer {
    name: String,
    #[serde(rename = "IP")]
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<String>,
}

impl Peer {
    pub(super) fn of(peer: &NetworkPeer) -> Peer {
        let NetworkPeer { hostname, addr, keys } = peer.clone();
        Peer { name: hostname, ip: addr, keys }
    }

    pub(super) fn read(self) -> NetworkPeer {
        NetworkPeer { hostname: self.name, addr: self.ip, keys: self.keys }
    }
}

/// `Encryption`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Document {
    cipher: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_generation: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_age: Option<String>,
    rotation: String,
}

impl Document {
    pub(super) fn of(encryption: &Encryption) -> Document {
        let key = encryption.key.as_ref();
        Document {
            cipher: ESP_CIPHER.to_owned(),
            key_generation: key.map(|key| key.generation),
            key_created_at: key.map(|key| key.created_at),
            key_age: key.map(|key| age(key.created_at, clock::now())),
            rotation: encryption.rotation.clone(),
        }
    }

    pub(super) fn read(self) -> Encryption {
        let key = self.key_generation.zip(self.key_created_at);
        let key = key.map(|(generation, created_at)| SendingKey { generation, created_at });
        Encryption { key, rotation: self.rotation }
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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

    #[test]
    fn what_the_leader_tells_is_read_as_it_was_meant() {
        let key = SendingKey { generation: 3, created_at: Timestamp(1_000_000_000) };
        for key in [Some(key), None] {
            let encryption = Encryption { key, rotation: "about to begin".into() };
            let peer = |keys| NetworkPeer { hostname: "a".into(), addr: "192.0.2.1".into(), keys };
            let peers = vec![peer(Some("generation 3 in force".into())), peer(None)];
            let document = json!({
                "Name": "net",
                "Peers": peers.iter().map(Peer::of).collect::<Vec<_>>(),
                "Encryption": Document::of(&encryption),
            });
            let told: Told = serde_json::from_value(document).unwrap();
            assert_eq!(told.encryption.read(), encryption);
            assert_eq!(told.peers.into_iter().map(Peer::read).collect::<Vec<_>>(), peers);
        }
    }
}
