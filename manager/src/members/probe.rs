//! Asks the other managers whether they are there.

use std::time::Duration;

use swarm_pki::{Connector, ExpectedPeer};
use swarm_raft::{Member, Status};
use tokio::task::JoinSet;

/// The other voters that did not show within `patience` that they run and are no longer locked.
pub(crate) async fn missing(
    connector: &Connector,
    status: &Status,
    patience: Duration,
) -> Vec<Member> {
    let mut calls = JoinSet::new();
    for voter in status.voters.iter().filter(|voter| voter.id != status.id).cloned() {
        let connector = connector.clone();
        calls.spawn(async move {
            let answers = connector.answers(&voter.addr, ExpectedPeer::Manager, patience).await;
            (!answers).then_some(voter)
        });
    }
    let mut missing: Vec<Member> = calls.join_all().await.into_iter().flatten().collect();
    missing.sort_by_key(|voter| voter.id);
    missing
}
