//! How long things take. The bars are far above what an idle machine needs: they catch a change of order, not of percent.

mod lab;

use std::time::{Duration, Instant};

use lab::{Lab, addr, network, sandbox, vtep};
use swarm_overlay::{Changes, Network, Remote};

fn large(endpoints: u32) -> Network {
    let mut net = network("net", 4097, 'A', &[], &[]);
    net.subnet = "10.0.0.0/16".parse().unwrap();
    net.remote = (0..endpoints)
        .map(|i| Remote {
            addr: [10, 0, 2 + (i / 250) as u8, (i % 250) as u8].into(),
            vtep: vtep('B'),
        })
        .collect();
    net
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_thousand_endpoints_changes_in_milliseconds() {
    let lab = Lab::new();
    let a = lab.overlay('A').await;
    let mut net = large(1000);
    let started = Instant::now();
    let all = a.ensure(&net).await.unwrap();
    println!("1000 endpoints: {:?}, {all}", started.elapsed());
    assert_eq!((all.fdb, all.neighbours), (1000, 2000));

    let mut times = Vec::new();
    for round in 0..10 {
        net.remote.swap_remove(round);
        let started = Instant::now();
        let change = a.ensure(&net).await.unwrap();
        times.push(started.elapsed());
        let one = Changes { fdb: 1, neighbours: 2, ..Changes::default() };
        assert_eq!(change, one);
    }
    times.sort_unstable();
    println!("one endpoint of 1000: {:?} in the middle, {:?} at worst", times[5], times[9]);
    assert!(times[5] < Duration::from_millis(250), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_sandboxes_are_made_and_removed_at_once() {
    let lab = Lab::new();
    let a = lab.overlay('A').await;
    let lasts: Vec<u8> = (10..60).collect();
    a.ensure(&network("net", 4097, 'A', &lasts, &[])).await.unwrap();
    let started = Instant::now();
    let work = lasts.iter().map(|last| {
        let a = a.clone();
        let wanted = sandbox(&format!("t{last}"), &[("net", addr(*last))], true);
        tokio::spawn(async move { a.create_sandbox(&wanted).await })
    });
    for made in work.collect::<Vec<_>>() {
        made.await.unwrap().unwrap();
    }
    let made = started.elapsed();
    assert_eq!(a.list().unwrap().sandboxes.len(), 50);

    let started = Instant::now();
    let work = lasts.iter().map(|last| {
        let a = a.clone();
        let task = format!("t{last}");
        tokio::spawn(async move { a.remove_sandbox(&task).await })
    });
    for removed in work.collect::<Vec<_>>() {
        removed.await.unwrap().unwrap();
    }
    println!("50 sandboxes: made in {made:?}, removed in {:?}", started.elapsed());
    assert!(made < Duration::from_secs(5), "{made:?}");
}
