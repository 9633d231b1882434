//! Rotation of the root: the next authority issues at once, and replaces the present one only when no node is left
//! without a certificate of it.

use crate::support::{cluster, node_id, rotation, tls_info, tokens};
use swarm_model::{JoinTokens, NodeRole, Timestamp};
use swarm_state::{Change, Command, Rejected, State};

fn apply(state: &mut State, change: Change) -> Result<(), Rejected> {
    let revision = state.revision() + 1;
    let (results, _) =
        state.apply(revision, Command { now: Timestamp(revision as i64), changes: vec![change] });
    results.into_iter().next().unwrap().map(|_| ())
}

fn add(n: u8) -> Change {
    Change::AddNode {
        id: node_id(n),
        role: NodeRole::Worker,
        hostname: format!("host{n}"),
        addr: "192.0.2.1:2377".into(),
        engine: Default::default(),
    }
}

fn certify(n: u8, key: &str) -> Change {
    Change::SetNodeTls { id: node_id(n), tls_info: tls_info(key) }
}

fn version(state: &State) -> u64 {
    state.cluster().unwrap().meta.version.index
}

fn rotate(state: &mut State, key: &str) {
    let next = rotation(version(state), key);
    apply(state, Change::RotateRoot(Box::new(next))).unwrap();
}

fn finish(state: &mut State) -> Result<(), Rejected> {
    let rotation = state.cluster().unwrap().root_rotation.as_ref();
    let revision = rotation.map_or(0, |rotation| rotation.revision);
    apply(state, Change::FinishRootRotation { revision })
}

fn swarm() -> State {
    let mut state = State::new();
    apply(&mut state, Change::CreateCluster(Box::new(cluster()))).unwrap();
    for n in 0..3 {
        apply(&mut state, add(n)).unwrap();
        apply(&mut state, certify(n, "first")).unwrap();
    }
    state
}

fn waits_for(state: &State) -> Vec<&str> {
    state.without_next_certificate().map(|node| node.id.as_str()).collect()
}

#[test]
fn the_former_root_stays_until_every_node_has_a_certificate_of_the_next() {
    let mut state = swarm();
    assert_eq!(waits_for(&state), Vec::<&str>::new(), "no rotation waits for nobody");
    assert!(finish(&mut state).is_err(), "there is none");
    rotate(&mut state, "next");
    let now = state.cluster().unwrap();
    assert_eq!(
        (&*now.issuing_ca().cert_pem, &*now.trusted_roots()),
        ("cert next", "certcert next")
    );
    assert_eq!(now.join_tokens, tokens("next"), "at once");
    assert_eq!(waits_for(&state), ["node0", "node1", "node2"]);
    for n in 0..3 {
        assert!(finish(&mut state).is_err(), "{:?} are missing", waits_for(&state));
        apply(&mut state, certify(n, "next")).unwrap();
    }
    // One that joins meanwhile counts too; one that is removed does not.
    apply(&mut state, add(3)).unwrap();
    assert!(finish(&mut state).is_err());
    apply(&mut state, Change::RemoveNode { id: node_id(3), force: true }).unwrap();
    finish(&mut state).unwrap();
    let now = state.cluster().unwrap();
    assert_eq!((&*now.root_ca.key_pem, &*now.trusted_roots()), ("key next", "cert next"));
    assert_eq!((now.root_rotation.as_ref(), &now.join_tokens), (None, &tokens("next")));
}

#[test]
fn a_second_rotation_replaces_the_target_of_the_first() {
    let mut state = swarm();
    rotate(&mut state, "second");
    let first = state.cluster().unwrap().root_rotation.clone().unwrap().revision;
    for n in 0..3 {
        apply(&mut state, certify(n, "second")).unwrap();
    }
    rotate(&mut state, "third");
    assert_eq!(state.cluster().unwrap().trusted_roots(), "certcert third");
    assert_eq!(waits_for(&state).len(), 3, "certificates of the second are not enough");
    for n in 0..3 {
        apply(&mut state, certify(n, "third")).unwrap();
    }
    let outdated = apply(&mut state, Change::FinishRootRotation { revision: first });
    assert!(matches!(outdated, Err(Rejected::OutOfDate(_))), "that was decided for the second");
    finish(&mut state).unwrap();
    assert_eq!(state.cluster().unwrap().root_ca.cert_pem, "cert third");
}

#[test]
fn what_was_made_for_another_authority_is_refused() {
    let mut state = swarm();
    let late = rotation(version(&state), "late");
    rotate(&mut state, "next");
    let refused = apply(&mut state, Change::RotateRoot(Box::new(late)));
    assert!(matches!(refused, Err(Rejected::OutOfDate(_))), "signed by a former authority");
    let mut of_next = tokens("x");
    of_next.worker = "SWMTKN-1-next-s".into();
    let refused = apply(&mut state, Change::SetJoinTokens(of_next));
    assert!(matches!(refused, Err(Rejected::OutOfDate(_))), "tokens of another digest");
}

#[test]
fn a_join_token_that_was_rotated_does_not_come_back() {
    let mut state = swarm();
    let now = state.cluster().unwrap().join_tokens.clone();
    let worker = JoinTokens { worker: tokens("y").worker, ..now.clone() };
    let manager = JoinTokens { manager: tokens("y").manager, ..now };
    apply(&mut state, Change::SetJoinTokens(worker.clone())).unwrap();
    let refused = apply(&mut state, Change::SetJoinTokens(manager));
    assert!(matches!(refused, Err(Rejected::OutOfDate(_))), "it has the worker token of before");
    assert_eq!(state.cluster().unwrap().join_tokens, worker);
}
