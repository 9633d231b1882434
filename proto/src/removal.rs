//! How a manager tells a node that the swarm has removed it: by a mark of its own, since a node that hears this stops
//! all its tasks. Any other refusal, whatever its code and words, is no reason to.

use tonic::Status;
use tonic::metadata::BinaryMetadataValue;

/// The key of the mark; its value is the node's id.
const KEY: &str = "swarm-removed-bin";

/// What a removed node is told: it is for good. Only a manager may say so whose replica is at least as new as the node's
/// coming to it: one that lags behind may merely not know the node yet.
pub fn removed(node: &str) -> Status {
    let mut status = Status::permission_denied(format!("node {node} was removed from the swarm"));
    let id = BinaryMetadataValue::from_bytes(node.as_bytes());
    status.metadata_mut().insert_bin(KEY, id);
    status
}

/// Whether a manager has said that this node was removed.
pub fn is_removed(status: &Status, node: &str) -> bool {
    let mark = status.metadata().get_bin(KEY).and_then(|mark| mark.to_bytes().ok());
    mark.is_some_and(|id| id == node.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mark_with_the_own_id_says_removed() {
        let told = removed("n");
        assert!(is_removed(&told, "n") && !is_removed(&told, "m"));
        let same_words = Status::permission_denied(told.message());
        assert!(!is_removed(&same_words, "n"));
    }
}
