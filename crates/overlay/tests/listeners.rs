//! What listens in a task's namespace is seen from outside, and nothing else.

mod lab;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use lab::{Lab, connect, listen, sandbox};
use swarm_netns::Namespace;
use swarm_overlay::Listeners;

fn at(netns: &Path, address: &str) -> TcpListener {
    let bind = || TcpListener::bind(address);
    Namespace::open(netns).unwrap().run_blocking(bind).unwrap().unwrap()
}

fn addresses(listeners: &mut Listeners) -> BTreeSet<SocketAddr> {
    listeners.now().unwrap().into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_of_the_task_are_seen_and_no_others() {
    let lab = Lab::new();
    let overlay = lab.overlay('A').await;
    let task = overlay.create_sandbox(&sandbox("t1", &[], true)).await.unwrap().netns;
    let other = overlay.create_sandbox(&sandbox("t2", &[], true)).await.unwrap().netns;
    let mut listeners = overlay.listeners("t1").await.unwrap();
    let _elsewhere = at(&other, "0.0.0.0:81");
    assert_eq!(addresses(&mut listeners), BTreeSet::new());

    let open = [at(&task, "127.0.0.1:53"), at(&task, "0.0.0.0:80"), at(&task, "[::1]:8080")];
    let expected: BTreeSet<_> = open.iter().map(|socket| socket.local_addr().unwrap()).collect();
    assert_eq!(addresses(&mut listeners), expected);
    // A connection is no listener, at neither end.
    let _connection = connect(&task, "127.0.0.1:80".parse().unwrap()).unwrap();
    assert_eq!(addresses(&mut listeners), expected);

    drop(open);
    assert_eq!(addresses(&mut listeners), BTreeSet::new());
    // More than one datagram holds.
    let many: Vec<TcpListener> = (0..1000).map(|_| listen(&task)).collect();
    assert_eq!(addresses(&mut listeners).len(), many.len());
    assert!(overlay.listeners("t3").await.is_err());
}
