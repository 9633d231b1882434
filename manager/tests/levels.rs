//! Feature levels: nothing above the swarm's is proposed, nobody below it is let in, and a manager that cannot read the
//! log says so and serves nothing.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::{MANAGER, Swarm, dialect, session};
use swarm_model::{FeatureLevel, NodeState, Timestamp};
use swarm_pki::Role;
use swarm_proto::control::control_client::ControlClient;
use swarm_proto::control::{Document, Empty as Nothing, RemoveNodeRequest};
use swarm_proto::dispatch::to_node;
use swarm_proto::membership::membership_client::MembershipClient;
use swarm_proto::membership::peer_client::PeerClient;
use swarm_proto::membership::{ProposeRequest, RenewRequest};
use swarm_state::{Change, Command};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn level(number: u32) -> FeatureLevel {
    FeatureLevel::new(number).unwrap()
}

async fn create_network(channel: &Channel, name: &str) -> Result<(), Status> {
    let json = format!("{{\"Name\":\"{name}\"}}").into_bytes().into();
    ControlClient::new(channel.clone()).create_network(Document { json }).await.map(drop)
}

async fn propose(channel: &Channel, command: Vec<u8>) -> Result<(), Status> {
    let request = ProposeRequest { command: command.into() };
    PeerClient::new(channel.clone()).propose(request).await.map(drop)
}

/// Waits until a condition on the replica holds.
async fn eventually(swarm: &Swarm, what: &str, condition: impl Fn(&swarm_state::State) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition(&swarm.manager.store().read()) {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_is_refused_until_all_nodes_speak_it() {
    let swarm = Swarm::speaking(dialect(1)).await.restart(dialect(2)).await;
    let own = swarm.certified(MANAGER, Role::Manager).await;
    let (joined, worker) =
        swarm.join_speaking(&swarm.tokens.worker, "192.0.2.9:2377", 1).await.unwrap();
    let _own_session = session(&own, "new", 2).await.unwrap();
    let old = session(&worker, "old", 1).await.unwrap();
    let refused = create_network(&own, "n").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(
        refused.message(),
        "needs feature level 2: the swarm is at 1, held back by old (swarmd 0.1.0, level 1)"
    );
    // Of a manager that does not look, the leader does not take it either.
    let change = Change::RemoveNetwork { id: "n".into() };
    let command = Command { now: Timestamp(1), changes: vec![change] };
    let refused = propose(&own, command.seal(level(2), "0.2.0")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let spec = swarm_model::NetworkSpec::default();
    let changes = vec![Change::CreateNetwork { id: "n".into(), spec }];
    let above = Command { now: Timestamp(1), changes };
    for (nonsense, code) in [
        (b"nonsense".to_vec(), Code::InvalidArgument),
        (command.seal(level(3), "0.3.0"), Code::InvalidArgument),
        (swarm_state::Envelope::seal(level(1), "v", b"nonsense"), Code::InvalidArgument),
        (above.seal(level(1), "0.2.0"), Code::InvalidArgument),
    ] {
        let refused = propose(&own, nonsense).await.unwrap_err();
        assert_eq!(refused.code(), code, "it would end every manager: {refused}");
    }

    drop(old);
    let (_old, mut told) = session(&worker, "old", 2).await.unwrap();
    eventually(&swarm, "level 2", |state| state.feature_level() == level(2)).await;
    create_network(&own, "n").await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, async {
        loop {
            let message = told.message().await.unwrap().unwrap().message;
            if let Some(to_node::Message::Standing(standing)) = message
                && standing.feature_level == 2
            {
                break;
            }
        }
    });
    heard.await.expect("the node is not told of the level");

    // The way back is closed.
    let back = session(&worker, "old", 1).await.map(drop).expect_err("a session below the level");
    assert_eq!(back.code(), Code::FailedPrecondition, "{back}");
    assert_eq!(
        back.message(),
        "this node speaks feature level 1 (swarmd 0.1.0), the swarm is at 2: upgrade swarmd on it"
    );
    let late = swarm.join_speaking(&swarm.tokens.manager, "192.0.2.8:2377", 1).await.unwrap_err();
    assert_eq!(late.message(), back.message());
    let nodes = swarm.manager.store().read().nodes().count();
    assert_eq!(nodes, 2, "it left no trace: {}", joined.node_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_holds_the_level_back_until_it_is_removed() {
    let swarm = Swarm::speaking(dialect(1)).await.restart(dialect(2)).await;
    let own = swarm.certified(MANAGER, Role::Manager).await;
    let (joined, _) = swarm.join_speaking(&swarm.tokens.worker, "192.0.2.9:2377", 2).await.unwrap();
    let _own_session = session(&own, "new", 2).await.unwrap();
    eventually(&swarm, "the manager's node", |state| {
        state.node(&MANAGER.into()).is_some_and(|node| node.status.state == NodeState::Ready)
    })
    .await;
    let refused = create_network(&own, "n").await.unwrap_err();
    assert!(refused.message().contains("held back by host (it is not there"), "{refused}");
    let remove = RemoveNodeRequest { name: joined.node_id, force: false };
    ControlClient::new(own.clone()).remove_node(remove).await.unwrap();
    eventually(&swarm, "level 2", |state| state.feature_level() == level(2)).await;
    create_network(&own, "n").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_cannot_read_the_log_serves_nothing_and_says_what_it_needs() {
    let swarm = Swarm::speaking(dialect(2)).await;
    let own = swarm.certified(MANAGER, Role::Manager).await;
    create_network(&own, "n").await.unwrap();
    let revision = swarm.manager.store().read().revision();
    drop(own);

    let swarm = swarm.restart(dialect(1)).await;
    let mut status = swarm.manager.raft().status();
    let failed = status.wait_for(|status| matches!(status.role, swarm_raft::Role::Failed(_)));
    tokio::time::timeout(PATIENCE, failed).await.expect("it goes on").unwrap();
    let why = swarm.manager.store().unreadable().unwrap().to_owned();
    let (before, after) = why.split_once(" (at revision ").unwrap();
    assert_eq!(before, "this manager speaks feature level 1, the swarm's log");
    let after = after.split_once(") ").unwrap().1;
    assert_eq!(after, "needs 2 (written by swarmd 0.2.0): upgrade swarmd on this node");
    assert!(swarm.manager.handle().trouble().await.starts_with(&why));
    let own = swarm.certified(MANAGER, Role::Manager).await;
    let refusals = [
        create_network(&own, "m").await.unwrap_err(),
        ControlClient::new(own.clone()).list_nodes(Nothing {}).await.unwrap_err(),
        session(&own, "host", 1).await.map(drop).expect_err("a session"),
        MembershipClient::new(own.clone()).renew(RenewRequest::default()).await.unwrap_err(),
        swarm.join(&swarm.tokens.worker, "192.0.2.9:2377").await.unwrap_err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.message(), why);
    }

    let swarm = swarm.restart(dialect(2)).await;
    eventually(&swarm, "all that was", |state| state.revision() >= revision).await;
    assert_eq!(swarm.manager.store().unreadable(), None);
    let own = swarm.certified(MANAGER, Role::Manager).await;
    create_network(&own, "m").await.unwrap();
    assert_eq!(swarm.manager.store().read().networks().count(), 2);
}
