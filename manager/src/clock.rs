//! Time and chance, for the parts that are not pure.

use std::time::SystemTime;

use swarm_model::{Id, NetworkSecret, Timestamp};

/// The moment, by this host's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().plus(since)
}

/// A new id.
pub fn new_id<T: Id>() -> T {
    T::from_random(rand::random())
}

/// What the next generation of keys of encrypted networks is derived from.
pub fn new_secret() -> NetworkSecret {
    NetworkSecret(rand::random())
}
