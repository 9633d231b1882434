//! Rules of nodes: roles and Raft ids, labels.

use swarm_model::{NetworkSpec, Node, NodeDescription, NodeRole, NodeState, NodeStatus, Timestamp};
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
        let add =
            Change::AddNode { id: id.into(), role, hostname, addr, engine: Default::default() };
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
        engine: Default::default(),
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
        let add = Change::AddNode {
            id: id.into(),
            role: NodeRole::Manager,
            hostname,
            addr,
            engine: Default::default(),
        };
        apply_one(&mut state, add).unwrap();
    }
    let take_over = |id: &str, raft_id| Change::TakeOver {
        id: id.into(),
        hostname: "host".into(),
        addr: "192.0.2.9:2377".into(),
        raft_id,
        engine: Default::default(),
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

/// A worker that joined, and what it says of itself next.
fn described(state: &mut State, id: &str, description: NodeDescription) -> Node {
    if state.node(&id.into()).is_none() {
        let (hostname, addr) = (format!("host-{id}"), "192.0.2.1:2377".to_owned());
        let add = Change::AddNode {
            id: id.into(),
            role: NodeRole::Worker,
            hostname,
            addr,
            engine: Default::default(),
        };
        apply_one(state, add).unwrap();
    }
    let description = Box::new(description);
    let describe =
        Change::DescribeNode { id: id.into(), description, addr: "192.0.2.1".to_owned() };
    apply_one(state, describe).unwrap();
    (**state.node(&id.into()).unwrap()).clone()
}

#[test]
fn a_complaint_is_no_sign_of_life() {
    let mut state = State::new();
    let known = NodeDescription {
        routes: Some(vec![]),
        underlay_mtu: Some(1500),
        ..NodeDescription::default()
    };
    described(&mut state, "n", known.clone());
    let status = |state: &State| state.node(&"n".into()).unwrap().status.clone();
    let note = |reason: &str| Change::NoteNodeTrouble { id: "n".into(), reason: reason.into() };
    apply_one(&mut state, note("nft is stuck")).unwrap();
    assert_eq!(
        (status(&state).state, &*status(&state).message),
        (NodeState::Ready, "nft is stuck")
    );
    apply_one(&mut state, note("")).unwrap();
    assert_eq!((status(&state).state, &*status(&state).message), (NodeState::Ready, ""));

    for why in ["not heard of for 2.1 s", "left the swarm"] {
        let down =
            Change::SetNodeState { id: "n".into(), state: NodeState::Down, message: why.into() };
        apply_one(&mut state, down).unwrap();
        let before: NodeStatus = status(&state);
        for reason in ["nft is stuck", ""] {
            assert!(matches!(apply_one(&mut state, note(reason)), Err(Rejected::OutOfDate(_))));
            assert_eq!(status(&state), before, "{reason:?}");
        }
        described(&mut state, "n", known.clone());
    }
    let stranger = Change::NoteNodeTrouble { id: "x".into(), reason: "?".into() };
    assert!(matches!(apply_one(&mut state, stranger), Err(Rejected::NotFound(_))));
}

#[test]
fn what_a_node_cannot_find_out_is_as_it_was_and_never_none() {
    let mut state = State::new();
    let unknown = NodeDescription::default;
    let never = described(&mut state, "n", unknown());
    assert!(never.status.message.starts_with("its routes and the MTU"), "{never:?}");
    let create = |state: &mut State, name: &str| {
        let spec =
            NetworkSpec { name: name.into(), driver: "overlay".into(), ..Default::default() };
        apply_one(state, Change::CreateNetwork { id: name.into(), spec }).unwrap();
        state.network(&name.into()).unwrap().subnet.to_string()
    };
    assert_eq!(create(&mut state, "a"), "10.0.1.0/24", "it does not block others");
    let trouble = |reason: &str| Change::NoteNodeTrouble { id: "n".into(), reason: reason.into() };
    apply_one(&mut state, trouble("nft is stuck")).unwrap();
    apply_one(&mut state, trouble("")).unwrap();
    assert_eq!(
        state.node(&"n".into()).unwrap().status.message,
        never.status.message,
        "it is still so"
    );

    let routes = Some(vec!["10.0.2.0/25".parse().unwrap()]);
    let known = NodeDescription { routes, underlay_mtu: Some(1400), ..unknown() };
    assert_eq!(described(&mut state, "n", known.clone()).status.message, "");
    let later = described(&mut state, "n", NodeDescription { hostname: "new".into(), ..unknown() });
    assert_eq!(later.description, NodeDescription { hostname: "new".into(), ..known });
    assert_eq!(later.status.message, "");
    assert_eq!(create(&mut state, "b"), "10.0.3.0/24", "clear of the route it had");
    assert_eq!(state.overlay_mtu(false), 1350);
    let none = NodeDescription { routes: Some(vec![]), ..unknown() };
    assert_eq!(described(&mut state, "n", none).description.routes, Some(vec![]), "none is known");
    assert_eq!(create(&mut state, "c"), "10.0.2.0/24");
}
