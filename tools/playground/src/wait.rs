//! Waiting for a condition instead of for a time.

use crate::{Error, Result};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Polls `check` until it yields `Ok(value)`; its `Err` says what is still missing and becomes part of the time-out error.
///
/// # Errors
/// [`Error::Timeout`] with the last answer of `check` when `timeout` has passed.
pub fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut check: impl FnMut() -> std::result::Result<T, String>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let last = match check() {
            Ok(value) => return Ok(value),
            Err(last) => last,
        };
        if Instant::now() >= deadline {
            return Err(Error::Timeout { what: what.to_owned(), after: timeout, last });
        }
        // The interval between two looks at a condition that has no event to wait for.
        std::thread::sleep(INTERVAL);
    }
}
