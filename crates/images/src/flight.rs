//! Single flight: callers that want the same thing at the same time share one run of the work.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

/// Work in progress, by key. The work stops when the last caller that waits for it goes away.
pub(crate) struct Flights<K, T: Clone> {
    running: Mutex<HashMap<K, WeakShared<BoxFuture<'static, T>>>>,
}

impl<K, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self { running: Mutex::default() }
    }
}

impl<K: Hash + Eq, T: Clone> Flights<K, T> {
    /// Joins the run for `key`, or starts one with what `work` gives.
    pub(crate) async fn run<F>(&self, key: K, work: impl FnOnce() -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.join(key, work).await
    }

    fn join<F>(&self, key: K, work: impl FnOnce() -> F) -> Shared<BoxFuture<'static, T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        // The map is only ever changed by single calls, so a panic elsewhere leaves it sound.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, flight| flight.upgrade().is_some_and(|flight| flight.peek().is_none()));
        if let Some(flight) = running.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        let flight = work().boxed().shared();
        running.extend(flight.downgrade().map(|weak| (key, weak)));
        flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn callers_at_once_share_and_later_ones_start_again() {
        let flights = Flights::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let work = || {
            let runs = Arc::clone(&runs);
            async move {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::SeqCst)
            }
        };
        let results =
            futures::join!(flights.run(1, work), flights.run(1, work), flights.run(2, work));
        assert_eq!((results.0, results.1), (0, 0));
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!(flights.run(1, work).await, 2);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_does_not_stop_the_others() {
        let flights = Flights::default();
        let (release, gate) = tokio::sync::oneshot::channel::<()>();
        let mut first = Box::pin(flights.run(1, || async { gate.await.is_ok() }));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(flights.run(1, || async { false }));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        release.send(()).unwrap();
        assert!(second.await);
    }
}
