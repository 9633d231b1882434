//! Who may call what, over mTLS: hosts without a certificate may join, workers do a worker's part, and
//! everything else is for managers that are part of the swarm.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::{MANAGER, Swarm, session};
use swarm_model::{FeatureLevel, Timestamp};
use swarm_pki::{NodeIdentity, Role, new_key_and_csr};
use swarm_proto::control::control_client::ControlClient;
use swarm_proto::control::{
    Empty as Nothing, JoinTokenRequest, RemoveNodeRequest, UnlockKeyRequest, UpdateNodeRequest,
    UpdateSwarmRequest,
};
use swarm_proto::dispatch::dispatcher_client::DispatcherClient;
use swarm_proto::membership::membership_client::MembershipClient;
use swarm_proto::membership::peer_client::PeerClient;
use swarm_proto::membership::{
    BecomeVoterRequest, Empty, IssueResponse, ProposeRequest, RenewRequest, SessionReport,
};
use swarm_proto::raft as pb;
use swarm_proto::raft::raft_client::RaftClient;
use swarm_proto::removal::is_removed;
use swarm_state::Command;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn code<T>(result: Result<T, Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// The outcome of each call that only managers may make.
async fn managers_calls(channel: &Channel) -> Vec<(&'static str, Code)> {
    let mut raft = RaftClient::new(channel.clone());
    let mut peer = PeerClient::new(channel.clone());
    let mut control = ControlClient::new(channel.clone());
    let mut membership = MembershipClient::new(channel.clone());
    let (appends, snapshot) = (tokio_stream::empty(), tokio_stream::empty());
    let reports = tokio_stream::empty::<SessionReport>();
    let token = JoinTokenRequest { role: "manager".to_owned(), rotate: false };
    let voter = BecomeVoterRequest { raft_id: 99, addr: "127.0.0.1:1".to_owned() };
    // Requests for a manager 99, so that none of those let through has an effect.
    let other = 99;
    let nothing = Command { now: Timestamp(1), changes: Vec::new() };
    let command = nothing.seal(FeatureLevel::FIRST, "a test");
    vec![
        ("raft append", code(raft.append(appends).await)),
        (
            "raft heartbeat",
            code(raft.heartbeat(pb::AppendRequest { target: other, ..Default::default() }).await),
        ),
        (
            "raft vote",
            code(raft.vote(pb::VoteRequest { target: other, ..Default::default() }).await),
        ),
        ("raft snapshot", code(raft.snapshot(snapshot).await)),
        (
            "raft transfer",
            code(
                raft.transfer_leader(pb::TransferLeaderRequest {
                    target: other,
                    ..Default::default()
                })
                .await,
            ),
        ),
        ("raft read", code(raft.read_index(pb::ReadIndexRequest { target: 1 }).await)),
        ("propose", code(peer.propose(ProposeRequest { command: command.into() }).await)),
        ("report sessions", code(peer.report_sessions(reports).await)),
        ("join token", code(control.join_token(token).await)),
        ("list nodes", code(control.list_nodes(Nothing {}).await)),
        ("backup", code(control.backup(Nothing {}).await)),
        ("update node", code(control.update_node(UpdateNodeRequest::default()).await)),
        ("unlock key", code(control.unlock_key(UnlockKeyRequest { rotate: false }).await)),
        ("update swarm", code(control.update_swarm(UpdateSwarmRequest { autolock: false }).await)),
        ("rotate network keys", code(control.rotate_network_keys(Nothing {}).await)),
        ("become voter", code(membership.become_voter(voter).await)),
    ]
}

fn all_are(calls: &[(&'static str, Code)], expected: Code) {
    for (call, code) in calls {
        assert_eq!(*code, expected, "{call}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_managers_ask_of_each_other_is_refused_to_all_others() {
    let swarm = Swarm::new().await;
    let anonymous = managers_calls(&swarm.caller(None).await).await;
    all_are(&anonymous, Code::Unauthenticated);
    let (_, worker) = swarm.join(&swarm.tokens.worker, "192.0.2.9:2377").await.unwrap();
    all_are(&managers_calls(&worker).await, Code::PermissionDenied);

    let manager = managers_calls(&swarm.certified(MANAGER, Role::Manager).await).await;
    let ok = manager.iter().filter(|(_, code)| *code == Code::Ok).map(|(call, _)| *call);
    let ok: Vec<&str> = ok.collect();
    assert_eq!(
        ok,
        [
            "raft append",
            "raft read",
            "propose",
            "report sessions",
            "join token",
            "list nodes",
            "backup",
            "unlock key",
            "update swarm"
        ]
    );
    let rotate = manager.iter().find(|(call, _)| *call == "rotate network keys");
    assert_eq!(rotate, Some(&("rotate network keys", Code::InvalidArgument)), "there are none");
    let voter = manager.iter().find(|(call, _)| *call == "become voter");
    assert_eq!(voter, Some(&("become voter", Code::PermissionDenied)), "no such manager");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_removed_loses_its_say_before_its_certificate_expires() {
    let swarm = Swarm::new().await;
    let (joined, former) = swarm.join(&swarm.tokens.manager, "192.0.2.9:2377").await.unwrap();
    let mut client = ControlClient::new(former);
    client.list_nodes(Nothing {}).await.unwrap();
    let mut own = ControlClient::new(swarm.certified(MANAGER, Role::Manager).await);
    let remove = RemoveNodeRequest { name: joined.node_id, force: true };
    own.remove_node(remove).await.unwrap();
    assert_eq!(code(client.list_nodes(Nothing {}).await), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_demoted_loses_its_say_and_its_vote_and_gets_a_workers_certificate() {
    let swarm = Swarm::new().await;
    let (joined, former) = swarm.join(&swarm.tokens.manager, "192.0.2.9:2377").await.unwrap();
    ControlClient::new(former.clone()).list_nodes(Nothing {}).await.unwrap();
    let mut own = ControlClient::new(swarm.certified(MANAGER, Role::Manager).await);
    let demote = |name: &str| UpdateNodeRequest {
        name: name.to_owned(),
        role: "worker".to_owned(),
        ..UpdateNodeRequest::default()
    };
    own.update_node(demote(&joined.node_id)).await.unwrap();
    let calls = ControlClient::new(former.clone()).list_nodes(Nothing {}).await;
    assert_eq!(code(calls), Code::FailedPrecondition);
    let voter = BecomeVoterRequest { raft_id: joined.raft_id, addr: "192.0.2.9:2377".to_owned() };
    let mut membership = MembershipClient::new(former);
    assert_eq!(code(membership.become_voter(voter).await), Code::FailedPrecondition);
    let (key, csr_pem) = new_key_and_csr().unwrap();
    let renewed = membership.renew(RenewRequest { csr_pem }).await.unwrap().into_inner();
    let identity = NodeIdentity::from_pem(&renewed.cert_pem, &key).unwrap();
    assert_eq!(identity.role(), Role::Worker);
    let last = own.update_node(demote(MANAGER)).await.unwrap_err();
    assert_eq!(last.code(), Code::FailedPrecondition, "{last}");
    assert_eq!(last.message(), "attempting to demote the last manager of the swarm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_joins_with_a_token_and_a_sound_request_only() {
    let swarm = Swarm::new().await;
    let nodes = || swarm.manager.store().read().nodes().count();
    let token = swarm.tokens.worker.clone();
    let refused = |result: Result<(IssueResponse, Channel), Status>| result.unwrap_err();
    assert_eq!(refused(swarm.join("hunter2", "192.0.2.9:1").await).code(), Code::InvalidArgument);
    let wrong = token.chars().rev().skip_while(|c| *c != '-').collect::<String>();
    let wrong: String = wrong.chars().rev().chain("0".repeat(25).chars()).collect();
    assert_eq!(refused(swarm.join(&wrong, "192.0.2.9:1").await).code(), Code::PermissionDenied);
    assert_eq!(refused(swarm.join(&token, "nowhere").await).code(), Code::InvalidArgument);
    let long = "9".repeat(64 << 10);
    assert_eq!(refused(swarm.join(&token, &long).await).code(), Code::OutOfRange);
    assert_eq!(nodes(), 1, "none of them left a trace");
    let (joined, _) = swarm.join(&token, "[2001:db8::1]:2377").await.unwrap();
    assert_eq!((nodes(), joined.role.as_str()), (2, "worker"));
    assert_eq!(joined.managers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_a_certificate_can_do_nothing_but_join() {
    let swarm = Swarm::new().await;
    let nobody = swarm.caller(None).await;
    let mut membership = MembershipClient::new(nobody.clone());
    assert_eq!(code(membership.renew(RenewRequest::default()).await), Code::Unauthenticated);
    assert_eq!(code(membership.leave(Empty {}).await), Code::Unauthenticated);
    let mut dispatcher = DispatcherClient::new(nobody);
    let session = dispatcher.session(tokio_stream::empty()).await;
    assert_eq!(code(session), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_of_a_removed_node_is_closed_and_the_node_is_told() {
    let swarm = Swarm::new().await;
    let (joined, worker) = swarm.join(&swarm.tokens.worker, "192.0.2.9:2377").await.unwrap();
    assert_eq!(code(session(&worker, "", 1).await), Code::InvalidArgument, "it has no name");
    let (_open, mut incoming) = session(&worker, "host", 1).await.unwrap();
    assert!(incoming.message().await.unwrap().is_some());

    let mut control = ControlClient::new(swarm.certified(MANAGER, Role::Manager).await);
    let remove = RemoveNodeRequest { name: joined.node_id.clone(), force: true };
    control.remove_node(remove).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            match incoming.message().await {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        }
    });
    let told = told.await.expect("the session goes on").expect("the session ends without a word");
    assert_eq!(told.code(), Code::PermissionDenied, "{told}");
    assert!(told.message().contains(&joined.node_id), "{told}");
    assert!(is_removed(&told, &joined.node_id), "{told:?}");
    let again =
        session(&worker, "host", 1).await.map(drop).expect_err("a session with a removed node");
    assert_eq!(again.code(), Code::PermissionDenied, "{again}");
    assert!(is_removed(&again, &joined.node_id), "{again:?}");
    let mut membership = MembershipClient::new(worker);
    assert_eq!(code(membership.renew(RenewRequest::default()).await), Code::PermissionDenied);
}
