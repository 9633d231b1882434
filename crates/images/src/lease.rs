//! Leases: what somebody is using and must not be collected, though the index does not (or no longer) name it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::digest::Digest;

/// Counts of the leases on image ids and layers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(Arc<Mutex<HashMap<Digest, usize>>>);

/// Keeps what it was taken for until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Leases,
    digests: Vec<Digest>,
}

impl Leases {
    pub(crate) fn take(&self, digests: impl IntoIterator<Item = Digest>) -> Lease {
        let digests: Vec<_> = digests.into_iter().collect();
        let mut counts = self.lock();
        for digest in &digests {
            *counts.entry(*digest).or_default() += 1;
        }
        drop(counts);
        Lease { leases: self.clone(), digests }
    }

    /// The counts; while the guard lives no lease begins or ends.
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        // Each change under this lock is whole, so a panic elsewhere leaves the counts sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut counts = self.leases.lock();
        for digest in &self.digests {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_overlapping_leases() {
        let (leases, digest) = (Leases::default(), Digest::of(b"x"));
        let (first, second) = (leases.take([digest, digest]), leases.take([digest]));
        drop(first);
        assert!(leases.lock().contains_key(&digest));
        drop(second);
        assert!(leases.lock().is_empty());
    }
}
