//! What a user should know of the managers: how many may be lost, and who is missing.

use swarm_model::Node;
use swarm_raft::{Member, Role, Status};
use swarm_state::State;

/// What is wrong with the managers, or may soon be, in words; empty if all is well.
pub fn warnings(raft: &Status, state: &State) -> Vec<String> {
    let voters = raft.voters.len();
    let mut warnings = Vec::new();
    if raft.quorum_lost_since.is_some() {
        return warnings; // that is an error, and says more
    }
    if voters > 1 && voters.is_multiple_of(2) {
        warnings.push(format!(
            "{voters} managers survive the loss of {}, as {} would: use an odd number",
            (voters - 1) / 2,
            voters - 1
        ));
    }
    let missing: Vec<&Member> =
        raft.voters.iter().filter(|voter| !answers(voter, raft, state)).collect();
    let majority = voters / 2 + 1;
    if !missing.is_empty() && voters - missing.len() <= majority {
        warnings.push(format!(
            "the quorum is at risk: of {voters} managers {} {} reachable and {majority} are needed, so one more loss ends all changes; missing: {}; bring it back, or if it is lost for good remove it (swarmctl node rm --force) and add another",
            voters - missing.len(),
            if voters - missing.len() == 1 { "is" } else { "are" },
            named(missing.iter().copied(), state).join(", "),
        ));
    }
    warnings
}

/// That there is no quorum, since when, who does not answer, and what to do; empty if there is one. `missing`
/// are the managers that were just found not to answer.
pub fn quorum_lost(raft: &Status, state: &State, missing: &[Member]) -> String {
    let Some(since) = raft.quorum_lost_since else { return String::new() };
    let voters = raft.voters.len();
    let missing = match missing {
        [] => "all of them answer again".to_owned(),
        missing => format!("missing: {}", named(missing, state).join(", ")),
    };
    format!(
        "the swarm has had no quorum for {} s: {} of its {voters} managers must be reachable; {missing}; services go on, but nothing can be changed until they are back; if they are lost for good: swarmctl init --force-new-cluster on one that is left",
        since.elapsed().as_secs(),
        voters / 2 + 1,
    )
}

/// That managers which have just been found not to answer are yet to hear of a changed unlock key; empty if there are none.
pub(crate) fn former_key_needed(state: &State, missing: &[Member]) -> Vec<String> {
    if missing.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "keep the former unlock key: these managers do not answer now, and need it once more when they come back: {}",
        named(missing, state).join(", ")
    )]
}

/// Whether a manager answers the leader, or else, without one, was last known to be there as a node.
pub(crate) fn answers(voter: &Member, raft: &Status, state: &State) -> bool {
    if voter.id == raft.id && matches!(raft.role, Role::Failed(_)) {
        return false;
    }
    match raft.leader {
        Some(_) => !raft.missing.contains(&voter.id),
        None => node_of(voter, state).is_none_or(|node| node.is_alive()),
    }
}

fn node_of<'a>(voter: &Member, state: &'a State) -> Option<&'a Node> {
    let is_it = |node: &&std::sync::Arc<Node>| {
        node.manager_status.as_ref().is_some_and(|manager| manager.raft_id == voter.id)
    };
    state.nodes().find(is_it).map(AsRef::as_ref)
}

fn named<'a>(members: impl IntoIterator<Item = &'a Member>, state: &State) -> Vec<String> {
    let name = |member: &Member| match node_of(member, state) {
        Some(node) => format!("{} at {}", node.description.hostname, member.addr),
        None => member.to_string(),
    };
    members.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use swarm_model::{NodeRole, Timestamp};
    use swarm_state::{Change, Command};
    use tokio::time::Instant;

    use super::*;

    fn addr(n: u64) -> String {
        format!("192.0.2.{n}:2377")
    }

    /// A swarm of managers, as its leader sees it.
    fn swarm(managers: u64, reachable: &[u64]) -> (Status, State) {
        let mut state = State::new();
        for n in 1..=managers {
            let add = Change::AddNode {
                id: format!("id{n}").into(),
                role: NodeRole::Manager,
                hostname: format!("host-{n}"),
                addr: addr(n),
                engine: Default::default(),
            };
            state.apply(n, Command { now: Timestamp(1), changes: vec![add] });
        }
        let status = Status {
            id: 1,
            role: Role::Leader,
            term: 1,
            leader: Some(Member { id: 1, addr: addr(1) }),
            last_applied: None,
            committed: None,
            voters: (1..=managers).map(|id| Member { id, addr: addr(id) }).collect(),
            learners: vec![],
            quorum_lost_since: None,
            reachable: reachable.to_vec(),
            missing: (1..=managers).filter(|id| !reachable.contains(id)).collect(),
        };
        (status, state)
    }

    fn said(managers: u64, reachable: &[u64]) -> String {
        let (status, state) = swarm(managers, reachable);
        warnings(&status, &state).join("\n")
    }

    #[test]
    fn an_odd_number_of_managers_that_answer_is_well() {
        assert_eq!(said(1, &[1]), "");
        assert_eq!(said(3, &[1, 2, 3]), "");
        assert_eq!(said(5, &[1, 2, 3, 4]), "", "one more may go");
    }

    #[test]
    fn an_even_number_and_a_bare_majority_are_warned_of() {
        assert!(said(4, &[1, 2, 3, 4]).contains("use an odd number"));
        let risk = said(3, &[1, 3]);
        assert!(risk.contains("at risk") && risk.contains("host-2 at 192.0.2.2:2377"), "{risk}");
        assert!(!risk.contains("host-3"), "{risk}");
        assert!(said(5, &[1, 2, 3]).contains("host-4 at 192.0.2.4:2377, host-5"));
    }

    #[test]
    fn without_a_leader_the_last_known_nodes_count() {
        let (mut status, mut state) = swarm(3, &[]);
        (status.role, status.leader, status.missing) = (Role::Follower, None, vec![]);
        for (n, state_now) in [(1, "Ready"), (2, "Down"), (3, "Ready")] {
            let node_state = match state_now {
                "Ready" => swarm_model::NodeState::Ready,
                _ => swarm_model::NodeState::Down,
            };
            let id = format!("id{n}").into();
            let change = Change::SetNodeState { id, state: node_state, message: String::new() };
            state.apply(10 + n, Command { now: Timestamp(1), changes: vec![change] });
        }
        let said = warnings(&status, &state).join("\n");
        assert!(said.contains("missing: host-2 at 192.0.2.2:2377;"), "{said}");
    }

    #[test]
    fn a_lost_quorum_names_who_is_missing_and_the_way_out() {
        let (mut status, state) = swarm(3, &[1]);
        assert_eq!(quorum_lost(&status, &state, &[]), "");
        status.quorum_lost_since = Some(Instant::now() - Duration::from_secs(7));
        let said = quorum_lost(&status, &state, &status.voters[1..]);
        for part in ["for 7 s", "2 of its 3", "host-2 at", "host-3 at", "--force-new-cluster"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(warnings(&status, &state).is_empty());
    }

    #[test]
    fn who_has_not_heard_of_a_new_unlock_key_is_named_in_one_line() {
        let (status, state) = swarm(3, &[1]);
        assert!(former_key_needed(&state, &[]).is_empty());
        let said = former_key_needed(&state, &status.voters[1..]);
        let [line] = &*said else { panic!("{said:?}") };
        assert!(line.contains("keep the former unlock key") && line.lines().count() == 1, "{line}");
        assert!(line.ends_with(": host-2 at 192.0.2.2:2377, host-3 at 192.0.2.3:2377"), "{line}");
    }
}
