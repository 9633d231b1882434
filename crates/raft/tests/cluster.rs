//! Three managers in one process: elections, membership, reads.
#![allow(missing_docs)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{Node, cluster, eventually, leader, options};
use swarm_raft::{MembershipError, Options, ProposeError, Role};
use tempfile::tempdir;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_manager_leads_and_answers() {
    let dir = tempdir().unwrap();
    let node = Node::start(options(7, dir.path())).await;
    assert!(!node.raft.is_initialized().await.unwrap());
    assert_eq!(node.status().role, Role::Uninitialized);
    node.raft.bootstrap("here:1").await.unwrap();
    assert!(node.raft.is_initialized().await.unwrap());
    assert_eq!(node.raft.bootstrap("here:1").await, Err(MembershipError::Initialized));

    let (first, answer) = node.raft.propose(Bytes::from_static(b"a")).await.unwrap();
    assert_eq!(&answer[..], b"1");
    let (second, answer) = node.raft.propose(Bytes::from_static(b"b")).await.unwrap();
    assert_eq!(&answer[..], b"2");
    assert!(first < second);
    let status =
        node.wait("the second revision", |status| status.last_applied == Some(second)).await;
    assert_eq!(status.leader.unwrap().addr, "here:1");
    assert_eq!(node.raft.remove(7).await, Err(MembershipError::LastVoter(7)));
    assert_eq!(node.raft.transfer_leadership(None).await, Err(MembershipError::Alone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_manager_applies_the_same_commands() {
    let dir = tempdir().unwrap();
    let nodes = cluster(dir.path(), 3, |_| {}).await;
    let proposals = (0..500).map(|i| {
        let raft = nodes[0].raft.clone();
        async move { raft.propose(Bytes::from(format!("command {i}"))).await.unwrap() }
    });
    let revisions = futures::future::join_all(proposals).await;
    let last = revisions.iter().map(|(revision, _)| *revision).max().unwrap();
    for node in &nodes {
        node.wait("the last command", |status| status.last_applied >= Some(last)).await;
        assert_eq!(node.journal.commands(), nodes[0].journal.commands());
    }
    assert_eq!(nodes[0].journal.commands().len(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_command_is_replicated_and_a_larger_one_refused() {
    let dir = tempdir().unwrap();
    let nodes = cluster(dir.path(), 3, |_| {}).await;
    let large: Bytes =
        (0..swarm_raft::MAX_COMMAND).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
    for _ in 0..3 {
        nodes[0].raft.propose(large.clone()).await.unwrap();
    }
    let too_large = vec![0; swarm_raft::MAX_COMMAND + 1].into();
    assert!(matches!(nodes[0].raft.propose(too_large).await, Err(ProposeError::TooLarge { .. })));
    for node in nodes {
        eventually("three large commands", || node.journal.commands().len() == 3).await;
        let node = node.restart().await;
        eventually("three large commands after a restart", || node.journal.commands().len() == 3)
            .await;
        assert!(node.journal.commands().iter().all(|command| *command == large));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader() {
    let dir = tempdir().unwrap();
    let nodes = cluster(dir.path(), 3, |_| {}).await;
    let error = nodes[1].raft.propose(Bytes::from_static(b"x")).await.unwrap_err();
    let ProposeError::NotLeader { leader: Some(leader) } = error else { panic!("{error}") };
    assert_eq!((leader.id, leader.addr), (1, nodes[0].addr.clone()));
    let error = nodes[2].raft.add_voter(9, "nowhere:1").await.unwrap_err();
    assert!(
        matches!(error, MembershipError::Propose(ProposeError::NotLeader { leader: Some(leader) }) if leader.id == 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_barrier_makes_a_followers_state_current() {
    let dir = tempdir().unwrap();
    let nodes = cluster(dir.path(), 3, |_| {}).await;
    for i in 0..30 {
        let command = format!("write {i}");
        nodes[0].propose(&command).await;
        let reader = &nodes[1 + i % 2];
        reader.raft.read_barrier().await.unwrap();
        assert!(reader.journal.contains(command.as_bytes()), "{command} is not seen");
    }
    nodes[0].raft.read_barrier().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_when_asked() {
    let dir = tempdir().unwrap();
    let nodes = cluster(dir.path(), 3, |_| {}).await;
    nodes[0].raft.transfer_leadership(Some(3)).await.unwrap();
    nodes[2].wait("leadership", |status| status.role == Role::Leader).await;
    nodes[2].propose("by the new leader").await;
    assert_eq!(nodes[2].raft.transfer_leadership(Some(9)).await, Err(MembershipError::Unknown(9)));
    nodes[2].raft.transfer_leadership(None).await.unwrap();
    let now = leader(&nodes).await;
    nodes[now].propose("by the next").await;
}

/// The other manager is away and lacks an entry, so that nobody but the one that hands over can be elected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_successor_is_away_leads_again() {
    let dir = tempdir().unwrap();
    let adjust = |options: &mut Options| options.timeout = Duration::from_secs(1);
    let mut nodes = cluster(dir.path(), 2, adjust).await;
    let (options, addr) = nodes.remove(1).stop().await;
    let unconfirmed = nodes[0].raft.propose(Bytes::from_static(b"held by one")).await;
    assert!(unconfirmed.is_err(), "{unconfirmed:?}");
    let error = nodes[0].raft.transfer_leadership(Some(2)).await.unwrap_err();
    assert_eq!(error, MembershipError::Transfer(2));

    nodes.push(Node::try_start(options, &addr).await.unwrap());
    let goes_on = async {
        while nodes[0].raft.propose(Bytes::from_static(b"by the one that went on")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await; // before the next try
        }
    };
    tokio::time::timeout(Duration::from_secs(20), goes_on).await.expect("it leads again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_leaders_end() {
    let dir = tempdir().unwrap();
    let mut nodes = cluster(dir.path(), 3, |_| {}).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let place = leader(&nodes).await;
        let writes = (0..40).map(|i| {
            let raft = nodes[place].raft.clone();
            async move {
                let command = Bytes::from(format!("round {round} write {i}"));
                raft.propose(command.clone()).await.map(|_| command)
            }
        });
        let writes = tokio::spawn(futures::future::join_all(writes.collect::<Vec<_>>()));
        let node = nodes.remove(place).restart().await;
        acknowledged.extend(writes.await.unwrap().into_iter().flatten());
        nodes.insert(place, node);
    }
    let place = leader(&nodes).await;
    acknowledged.push(Bytes::from_static(b"last"));
    nodes[place].propose("last").await;
    for node in &nodes {
        eventually("the last write", || node.journal.contains(b"last")).await;
        for command in &acknowledged {
            assert!(node.journal.contains(command), "{command:?} is lost on manager {}", node.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_barrier_waits_for_the_next_leader() {
    let dir = tempdir().unwrap();
    let mut nodes = cluster(dir.path(), 3, |_| {}).await;
    let place = leader(&nodes).await;
    nodes[place].propose("before").await;
    nodes.remove(place).stop().await;
    for reader in &nodes {
        reader.raft.read_barrier().await.unwrap();
        assert!(reader.journal.contains(b"before"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_accepted_and_it_says_so() {
    let dir = tempdir().unwrap();
    let mut nodes = cluster(dir.path(), 3, |_| {}).await;
    nodes.pop().unwrap().stop().await;
    let second = nodes.pop().unwrap().stop().await;
    let survivor = nodes.pop().unwrap();
    survivor.wait("the loss of the majority", |status| status.quorum_lost_since.is_some()).await;
    let error = survivor.raft.propose(Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error, ProposeError::NoQuorum { reachable: 1, voters: 3 });
    assert!(survivor.raft.read_barrier().await.is_err());

    let back = Node::try_start(second.0, &second.1).await.unwrap();
    let nodes = [survivor, back];
    for node in &nodes {
        node.wait("a majority", |status| {
            status.quorum_lost_since.is_none() && status.leader.is_some()
        })
        .await;
    }
    let place = leader(&nodes).await;
    nodes[place].propose("again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_a_leader_without_a_majority_says_so() {
    let dir = tempdir().unwrap();
    let mut nodes = cluster(dir.path(), 5, |_| {}).await;
    let mut survivors = vec![nodes.swap_remove(leader(&nodes).await), nodes.swap_remove(0)];
    let mut stopped = Vec::new();
    for node in nodes {
        stopped.push(node.stop().await);
    }
    for node in &survivors {
        node.wait("the loss of the majority", |status| status.quorum_lost_since.is_some()).await;
    }
    // It leads on, and the other hears what it tries.
    assert!(survivors[0].raft.propose(Bytes::from_static(b"x")).await.is_err());
    assert!(survivors[1].status().quorum_lost_since.is_some(), "{:?}", survivors[1].status());

    let third = stopped.pop().unwrap();
    survivors.push(Node::try_start(third.0, &third.1).await.unwrap());
    for node in &survivors {
        node.wait("a majority", |status| {
            status.quorum_lost_since.is_none() && status.leader.is_some()
        })
        .await;
    }
    let place = leader(&survivors).await;
    survivors[place].propose("again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_are_added_and_removed() {
    let dir = tempdir().unwrap();
    let mut nodes = cluster(dir.path(), 3, |_| {}).await;
    nodes[0].raft.add_voter(2, nodes[1].addr.clone()).await.unwrap();
    assert_eq!(nodes[0].raft.remove(9).await, Err(MembershipError::Unknown(9)));

    let fourth = Node::start(options(4, dir.path())).await;
    nodes[0].propose("before").await;
    nodes[0].raft.add_voter(4, fourth.addr.clone()).await.unwrap();
    eventually("the log on the new manager", || fourth.journal.contains(b"before")).await;

    nodes[0].raft.remove(2).await.unwrap();
    nodes[1].wait("its removal", |status| status.role == Role::Removed).await;
    let removed = nodes.remove(1).restart().await;
    removed.wait("its removal after a restart", |status| status.role == Role::Removed).await;
    let error = removed.raft.propose(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { .. }), "{error}");

    let status = nodes[0].wait("three voters", |status| status.voters.len() == 3).await;
    assert_eq!(status.voters.iter().map(|voter| voter.id).collect::<Vec<_>>(), [1, 3, 4]);

    // The leader removes itself: the others go on.
    nodes[0].raft.remove(1).await.unwrap();
    let rest = [nodes.remove(1), fourth];
    for node in &rest {
        node.wait("another leader", |status| {
            status.leader.as_ref().is_some_and(|leader| leader.id != 1)
        })
        .await;
    }
    let place = leader(&rest).await;
    rest[place].propose("without the first").await;
    nodes[0].wait("its removal", |status| status.role == Role::Removed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_manager_is_not_given_a_vote() {
    let dir = tempdir().unwrap();
    let nodes =
        cluster(dir.path(), 1, |options| options.catch_up = Duration::from_millis(500)).await;
    // The port is taken, so that no other test's manager gets it, and nobody listens on it.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nowhere = silent.local_addr().unwrap().to_string();
    let error = nodes[0].raft.add_voter(2, nowhere).await.unwrap_err();
    assert!(matches!(error, MembershipError::CatchUp { id: 2, .. }), "{error}");
    let status = nodes[0].status();
    assert_eq!((status.voters.len(), status.learners.len()), (1, 0));
    nodes[0].propose("still leading").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_moves_to_another_address() {
    let dir = tempdir().unwrap();
    let mut nodes = cluster(dir.path(), 3, |_| {}).await;
    let (options, _old) = nodes.pop().unwrap().stop().await;
    let moved = Node::try_start(options, "127.0.0.1:0").await.unwrap();
    nodes[0].raft.update_addr(3, moved.addr.clone()).await.unwrap();
    nodes[0].propose("after the move").await;
    eventually("the log at the new address", || moved.journal.contains(b"after the move")).await;
    moved
        .wait("a leader", |status| status.leader.as_ref().is_some_and(|leader| leader.id == 1))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_but_one_learns_that_it_was_removed() {
    let dir = tempdir().unwrap();
    let nodes = cluster(dir.path(), 2, |_| {}).await;
    nodes[0].raft.remove(2).await.unwrap();
    nodes[1].wait("its removal", |status| status.role == Role::Removed).await;
    nodes[0].propose("alone").await;
}
