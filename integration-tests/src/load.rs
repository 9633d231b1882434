//! Calls that go on while something changes.

use crate::{Calls, Client, Task, eventually};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Runs each of `lines` (commands of the sample image that print a summary) in each of `from`, over and over, from
/// before `change` until after it; gives all summaries.
///
/// # Panics
/// When calls cannot be begun.
#[track_caller]
pub fn calls_while(
    client: &Client,
    from: &[Task],
    lines: &[&str],
    change: impl FnOnce(),
) -> Vec<Calls> {
    calls_by_while(|task, line| client.calls(task, line), from, lines, change)
}

/// The same with another way to make calls: `call` runs a line in a task.
///
/// # Panics
/// When calls cannot be begun.
#[track_caller]
pub fn calls_by_while(
    call: impl Fn(&Task, &str) -> Calls + Sync,
    from: &[Task],
    lines: &[&str],
    change: impl FnOnce(),
) -> Vec<Calls> {
    let changed = AtomicBool::new(false);
    let begun = AtomicUsize::new(0);
    let caller = |task: &Task, line: &str| {
        let mut made = vec![call(task, line)];
        begun.fetch_add(1, Ordering::Relaxed);
        // The round in which it changes is not the last.
        while !changed.load(Ordering::Acquire) {
            made.push(call(task, line));
        }
        made.push(call(task, line));
        made
    };
    thread::scope(|scope| {
        // Also when this thread panics the callers come to their end, else the scope would wait for them for ever.
        let stop = StopOnDrop(&changed);
        let caller = &caller;
        let callers: Vec<_> = from
            .iter()
            .flat_map(|task| lines.iter().map(move |line| (task, *line)))
            .map(|(task, line)| scope.spawn(move || caller(task, line)))
            .collect();
        eventually("calls", || match callers.len() - begun.load(Ordering::Relaxed) {
            0 => Ok(()),
            missing => Err(format!("{missing} of {} callers to come", callers.len())),
        });
        change();
        drop(stop);
        let join = |caller: thread::ScopedJoinHandle<'_, _>| caller.join().expect("summaries");
        callers.into_iter().flat_map(join).collect()
    })
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
