//! Waiting for a condition, in a test.

use std::time::Duration;

/// How long tests wait for what takes moments on an idle machine; only a lost cause takes that long on a busy one.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Polls `check` until it gives a value; its error says what is still missing.
///
/// # Panics
/// After [`PATIENCE`], with the last error of `check`.
#[track_caller]
pub fn eventually<T>(what: &str, check: impl FnMut() -> Result<T, String>) -> T {
    match swarm_playground::wait_until(what, PATIENCE, check) {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
