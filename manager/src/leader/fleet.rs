//! What the leader hears of the nodes: how long each has been silent and what its data plane is at.
//! Not replicated: a new leader hears it anew from the managers' session reports.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use swarm_model::NodeId;
use swarm_proto::membership::SessionReport;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::leader::plan::NodeFacts;

/// Reports come four times a second, this manager's own at least: a longer pause is a stall of this process, as of a
/// machine that swaps, is suspended or moved, in which it could not have heard of anybody.
const STALL: Duration = Duration::from_secs(1);

/// Nodes by what was last heard of them; cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    heard: Arc<Mutex<Heard>>,
    changed: watch::Sender<()>,
}

struct Heard {
    nodes: BTreeMap<NodeId, Seen>,
    /// When this process was last seen to run.
    ran_at: Instant,
}

impl Heard {
    /// Does not count as anybody's silence the time that this process did not run.
    fn allow_for_stall(&mut self, now: Instant) {
        let pause = now.saturating_duration_since(self.ran_at);
        self.ran_at = now;
        if pause > STALL {
            self.nodes.values_mut().for_each(|seen| seen.heard_at += pause);
        }
    }
}

#[derive(Clone, Copy)]
struct Seen {
    heard_at: Instant,
    in_force: u64,
    /// The node's version in the state when that was looked at last.
    version: u64,
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet::new()
    }
}

impl Fleet {
    /// Nothing heard yet.
    pub fn new() -> Fleet {
        let heard = Heard { nodes: BTreeMap::new(), ran_at: Instant::now() };
        Fleet { heard: Arc::new(Mutex::new(heard)), changed: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a manager's report.
    pub fn report(&self, report: &SessionReport) {
        let now = Instant::now();
        let mut heard = self.lock();
        heard.allow_for_stall(now);
        for session in &report.sessions {
            let heard_at =
                now.checked_sub(Duration::from_millis(session.silence_ms)).unwrap_or(now);
            let in_force = session.lagging_at.unwrap_or(report.revision);
            let entry = heard.nodes.entry(session.node_id.as_str().into());
            let entry = entry.or_insert(Seen { heard_at, in_force, version: 0 });
            // A node that moved to another manager is in two reports for a moment: the newer counts.
            if heard_at >= entry.heard_at {
                *entry = Seen { heard_at, in_force, ..*entry };
            } else {
                entry.in_force = entry.in_force.max(in_force);
            }
        }
        drop(heard);
        self.changed.send_replace(());
    }

    /// Starts anew, as a leader does: each node, of that version, counts as heard of as long ago as is said beside it.
    pub fn begin(&self, nodes: impl Iterator<Item = (NodeId, u64, Duration)>) {
        let now = Instant::now();
        let seen = |version, silence| {
            let heard_at = now.checked_sub(silence).unwrap_or(now);
            Seen { heard_at, in_force: 0, version }
        };
        let fresh = nodes.map(|(id, version, silence)| (id, seen(version, silence))).collect();
        *self.lock() = Heard { nodes: fresh, ran_at: now };
        self.changed.send_replace(());
    }

    /// These nodes, of these versions, are ready. Each counts as heard of now if it has changed: one that comes back
    /// is ready before any report says so, and one that dies before any report names it is missed all the same.
    pub fn expect<'a>(&self, ready: impl Iterator<Item = (&'a NodeId, u64)>) {
        let heard_at = Instant::now();
        let mut heard = self.lock();
        for (node, version) in ready {
            match heard.nodes.get_mut(node) {
                Some(seen) if seen.version == version => {}
                Some(seen) => *seen = Seen { heard_at, version, ..*seen },
                None => {
                    heard.nodes.insert(node.clone(), Seen { heard_at, in_force: 0, version });
                }
            }
        }
    }

    /// Forgets all other nodes: they were removed.
    pub fn keep(&self, known: impl Fn(&NodeId) -> bool) {
        self.lock().nodes.retain(|node, _| known(node));
    }

    /// Hears of new reports.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What is known now.
    pub fn facts(&self) -> BTreeMap<NodeId, NodeFacts> {
        let now = Instant::now();
        let mut heard = self.lock();
        heard.allow_for_stall(now);
        let nodes = heard.nodes.iter();
        nodes
            .map(|(id, seen)| {
                let silence = now.saturating_duration_since(seen.heard_at);
                (id.clone(), NodeFacts { silence, in_force: seen.in_force })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(seconds: u64, now: Instant) -> Seen {
        Seen { heard_at: now - Duration::from_secs(seconds), in_force: 0, version: 0 }
    }

    #[test]
    fn a_stall_of_this_process_is_nobodys_silence() {
        let start = Instant::now() + Duration::from_secs(100);
        let nodes = BTreeMap::from([(NodeId::from("a"), silent(1, start))]);
        let mut heard = Heard { nodes, ran_at: start };
        let silence = |heard: &Heard, now: Instant| now - heard.nodes[&NodeId::from("a")].heard_at;

        let late = start + Duration::from_secs(30);
        heard.allow_for_stall(late);
        assert_eq!(silence(&heard, late), Duration::from_secs(1));
        // While it runs, silence counts.
        let mut now = late;
        for _ in 0..8 {
            now += Duration::from_millis(250);
            heard.allow_for_stall(now);
        }
        assert_eq!(silence(&heard, now), Duration::from_secs(3));
    }

    #[test]
    fn a_node_that_comes_back_is_not_silent_before_the_first_report() {
        let (fleet, node) = (Fleet::new(), NodeId::from("a"));
        let silence = || fleet.facts()[&node].silence.as_secs();
        fleet.begin(std::iter::once((node.clone(), 1, Duration::from_secs(9))));
        fleet.expect(std::iter::once((&node, 1)));
        assert_eq!(silence(), 9);
        fleet.expect(std::iter::once((&node, 2)));
        assert_eq!(silence(), 0);
    }
}
