//! Rules of nodes: roles and Raft ids, labels.

use swarm_model::{NodeDescription, NodeRole, Timestamp};
use swarm_state::{Change, Command, Outcome, Rejected, State};

fn apply_one(state: &mut State, change: Change) -> Result<Outcome, Rejected> {
    let revision = state.revision() + 1;
    let command = Command { now: Timestamp(1), changes: vec![change] };
    state.apply(revision, command).0.remove(0)
}

fn role(state: &mut State, id: &str, role: NodeRole) -> Result<Option<u64>, Rejected> {
    let result = apply_one(state, Change::SetNodeRole { id: id.into(), role });
    result.map(|outcome| outcome.raft_id)
}

#[test]
fn a_node_promoted_again_gets_another_raft_id_and_the_last_manager_stays_one() {
    let mut state = State::new();
    for (id, role) in [("m", NodeRole::Manager), ("w", NodeRole::Worker)] {
        let (hostname, addr) = (format!("host-{id}"), "192.0.2.1:2377".to_owned());
        let add = Change::AddNode { id: id.into(), role, hostname, addr };
        apply_one(&mut state, add).unwrap();
    }
    assert!(matches!(role(&mut state, "w", NodeRole::Manager), Err(Rejected::InUse(_))), "unknown");
    let description = NodeDescription {
        hostname: "host-w".into(),
        listen_addr: "192.0.2.2:2377".into(),
        ..NodeDescription::default()
    };
    let describe = Change::DescribeNode {
        id: "w".into(),
        description: Box::new(description),
        addr: "192.0.2.2".into(),
    };
    apply_one(&mut state, describe).unwrap();
    assert_eq!(role(&mut state, "w", NodeRole::Manager), Ok(Some(2)));
    assert_eq!(role(&mut state, "w", NodeRole::Manager), Ok(Some(2)), "it is one already");
    let addr =
        |state: &State| state.node(&"w".into()).unwrap().manager_status.clone().map(|m| m.addr);
    assert_eq!(addr(&state).as_deref(), Some("192.0.2.2:2377"));

    let drop = Change::DropManager { id: "w".into() };
    assert!(apply_one(&mut state, drop.clone()).is_err(), "nobody demoted it");
    role(&mut state, "w", NodeRole::Worker).unwrap();
    assert!(state.node(&"w".into()).unwrap().manager_status.is_some(), "it votes as yet");
    assert!(role(&mut state, "w", NodeRole::Manager).is_err(), "first it leaves the quorum");
    let last = role(&mut state, "m", NodeRole::Worker).unwrap_err();
    assert_eq!(last.to_string(), "attempting to demote the last manager of the swarm");
    apply_one(&mut state, drop).unwrap();
    assert_eq!(addr(&state), None);
    assert_eq!(role(&mut state, "w", NodeRole::Manager), Ok(Some(3)));
}

#[test]
fn labels_are_added_and_removed_and_the_rest_of_the_node_stays() {
    let mut state = State::new();
    let add = Change::AddNode {
        id: "n".into(),
        role: NodeRole::Worker,
        hostname: "host".into(),
        addr: String::new(),
    };
    apply_one(&mut state, add).unwrap();
    let update = |add: &[(&str, &str)], rm: &[&str]| Change::UpdateNode {
        id: "n".into(),
        availability: None,
        label_add: add.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        label_rm: rm.iter().map(|key| (*key).to_owned()).collect(),
    };
    apply_one(&mut state, update(&[("zone", "a"), ("rack", "1")], &[])).unwrap();
    apply_one(&mut state, update(&[("zone", "b")], &["rack"])).unwrap();
    let before = state.node(&"n".into()).unwrap().spec.clone();
    assert_eq!(before.labels, [("zone".to_owned(), "b".to_owned())].into());
    let missing = apply_one(&mut state, update(&[("x", "")], &["rack"])).unwrap_err();
    assert_eq!(missing.to_string(), "label rack of node host not found");
    for bad in ["", "a b"] {
        assert!(apply_one(&mut state, update(&[(bad, "")], &[])).is_err(), "{bad:?}");
    }
    assert_eq!(state.node(&"n".into()).unwrap().spec, before);
}

#[test]
fn who_takes_over_is_the_only_manager() {
    let mut state = State::new();
    for id in ["a", "b", "c"] {
        let (hostname, addr) = (format!("host-{id}"), "192.0.2.1:2377".to_owned());
        let add = Change::AddNode { id: id.into(), role: NodeRole::Manager, hostname, addr };
        apply_one(&mut state, add).unwrap();
    }
    let take_over = |id: &str, raft_id| Change::TakeOver {
        id: id.into(),
        hostname: "host".into(),
        addr: "192.0.2.9:2377".into(),
        raft_id,
    };
    let managers = |state: &State| -> Vec<(String, u64, String)> {
        let all = state.nodes().filter(|node| node.is_manager());
        all.map(|n| (n, n.manager_status.as_ref().unwrap()))
            .map(|(node, manager)| (node.id.to_string(), manager.raft_id, manager.addr.clone()))
            .collect()
    };
    apply_one(&mut state, take_over("b", 7)).unwrap();
    assert_eq!(managers(&state), [("b".into(), 7, "192.0.2.9:2377".into())]);
    assert_eq!((state.nodes().count(), state.next_raft_id()), (3, 8));
    assert!(state.nodes().all(|n| n.is_manager() || n.manager_status.is_none()));
    // Restored on a host that was no node.
    apply_one(&mut state, take_over("d", 8)).unwrap();
    assert_eq!(managers(&state), [("d".into(), 8, "192.0.2.9:2377".into())]);
    assert_eq!(state.node(&"d".into()).unwrap().status.addr, "192.0.2.9");
}
