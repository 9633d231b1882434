//! A cluster goes on with one manager.

mod support;

use bytes::Bytes;
use support::{Node, cluster, options};
use swarm_raft::{Alone, Options, Role, begin_with, go_on_alone};

async fn alone(options: Options, applied: u64) -> Node {
    let next_id = 9;
    let id = go_on_alone(
        &options.dir,
        &options.key,
        Alone { next_id, applied, addr: "127.0.0.1:1".into() },
    );
    let id = id.await.unwrap();
    assert!(id >= next_id);
    let node = Node::start(Options { id, ..options.clone() }).await;
    node.wait("the survivor to lead", |status| status.role == Role::Leader).await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_keeps_everything_and_takes_new_managers() {
    let root = tempfile::tempdir().unwrap();
    let nodes = cluster(root.path(), 3, |options| options.snapshot_every = 50).await;
    let mut last = 0;
    for n in 0..120 {
        last = nodes[0].propose(format!("before {n}")).await;
    }
    let mut nodes = nodes.into_iter();
    let (leader, survivor) = (nodes.next().unwrap(), nodes.next().unwrap());
    survivor.wait("all entries", |status| status.last_applied >= Some(last)).await;
    drop(nodes);
    let (lost, lost_addr) = leader.stop().await;
    let (options, _) = survivor.stop().await;

    let survivor = alone(options.clone(), last).await;
    assert_eq!(survivor.status().voters.len(), 1);
    assert!(survivor.journal.contains(b"before 0") && survivor.journal.contains(b"before 119"));
    survivor.propose("after").await;

    // One of the former cluster cannot disturb it.
    let former = Node::try_start(lost, &lost_addr).await.unwrap();
    let mut newcomer = support::options(20, root.path());
    newcomer.snapshot_every = 50;
    let newcomer = Node::start(newcomer).await;
    survivor.raft.add_voter(20, newcomer.addr.clone()).await.unwrap();
    survivor.propose("with a newcomer").await;
    newcomer.wait("its vote", |status| status.voters.len() == 2).await;
    support::eventually("the newcomer's log", || newcomer.journal.contains(b"with a newcomer"))
        .await;
    assert_eq!(newcomer.journal.commands(), survivor.journal.commands());
    assert!(!former.journal.contains(b"after"));

    // And a restart finds what it was.
    let survivor = survivor.restart().await;
    survivor.wait("a leader", |status| status.leader.is_some() && status.voters.len() == 2).await;
    assert!(survivor.journal.contains(b"before 0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_begins_with_a_saved_state() {
    let root = tempfile::tempdir().unwrap();
    let options = options(7, root.path());
    // As the journal encodes it: one command of revision 41.
    let mut state = 41u64.to_le_bytes().to_vec();
    state.extend_from_slice(&5u64.to_le_bytes());
    state.extend_from_slice(b"saved");
    let addr = "127.0.0.1:1".to_owned();
    begin_with(&options.dir, &options.key, 7, addr, 41, Bytes::from(state)).await.unwrap();
    let node = Node::start(options).await;
    node.wait("a leader", |status| status.role == Role::Leader).await;
    assert!(node.propose("next").await > 41, "revisions grow");
    assert_eq!(node.journal.commands(), [&b"saved"[..], b"next"]);
    let node = node.restart().await;
    node.wait("a leader", |status| status.role == Role::Leader).await;
    support::eventually("both commands", || node.journal.commands().len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_was_a_manager_does_not_go_on() {
    let root = tempfile::tempdir().unwrap();
    let alone = Alone { next_id: 2, applied: 0, addr: "127.0.0.1:1".into() };
    let error = go_on_alone(root.path(), &support::key(1), alone).await.unwrap_err();
    assert!(error.to_string().contains("in no cluster"), "{error}");
}
