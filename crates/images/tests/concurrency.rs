//! Loads, looks and removals at once: an image in hand is whole until it is let go.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{TestStore, file_layer, image, oci, read, reference};
use swarm_images::Error;

const IMAGES: usize = 4;
const ROUNDS: usize = 40;

fn name(n: usize) -> String {
    format!("image:{n}")
}

fn archive(n: usize) -> Vec<u8> {
    let own = file_layer("own", n.to_string().as_bytes());
    let pair = file_layer("pair", (n / 2).to_string().as_bytes());
    oci(&image(&name(n), vec![file_layer("shared", b"shared"), pair, own]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_image_in_hand_is_whole() {
    let test = Arc::new(TestStore::new().await);
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let workers =
        (0..8).map(|worker| tokio::spawn(work(Arc::clone(&test), Arc::clone(&counts), worker)));
    for worker in futures::future::join_all(workers).await {
        worker.expect("a worker failed");
    }
    let [held, removed, refused] = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert!(enough(&counts), "{held} held, {removed} removed, {refused} refused");
    for n in 0..IMAGES {
        test.store.remove(&name(n), |_| false).await.ok();
    }
    test.assert_empty();
}

/// Whether everything that may meet has met: how soon depends on the scheduler.
fn enough(counts: &[AtomicUsize; 3]) -> bool {
    let [held, removed, refused] = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    held > ROUNDS && removed > 10 && refused > 0
}

async fn work(test: Arc<TestStore>, counts: Arc<[AtomicUsize; 3]>, worker: usize) {
    let [held, removed, refused] = &*counts;
    let add = |count: &AtomicUsize| count.fetch_add(1, Ordering::Relaxed);
    for round in 0..100 * ROUNDS {
        if round >= ROUNDS && enough(&counts) {
            return;
        }
        let n = (worker * 7 + round * round * 3 + round / 4) % IMAGES;
        match (worker + round) % 4 {
            0 => drop(test.load(archive(n)).await.expect("load")),
            1 => match test.store.remove(&name(n), |_| false).await {
                Ok(_) => {
                    add(removed);
                }
                Err(Error::InUse(_)) => {
                    add(refused);
                }
                Err(error) => assert!(matches!(error, Error::NotFound(_)), "{error}"),
            },
            _ => {
                let Ok(image) = test.store.get(&reference(&name(n))).await else { continue };
                tokio::task::yield_now().await;
                let own = read(image.layers[2].join("own"));
                let pair = read(image.layers[1].join("pair"));
                let shared = read(image.layers[0].join("shared"));
                assert_eq!(
                    (own, pair, shared),
                    (n.to_string(), (n / 2).to_string(), "shared".into())
                );
                add(held);
            }
        }
    }
}
