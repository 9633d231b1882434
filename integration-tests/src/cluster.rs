//! The cluster of a test: a playground that goes with it.

use crate::Client;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::ops::Deref;
use swarm_playground::{Binaries, Guard, Node, Options, Playground};

/// Prefix of the playgrounds of tests, whose names end with the process id of their test.
const PREFIX: &str = "it-";
/// Lines of each daemon's log that a failed test shows.
const LOG_LINES: usize = 40;

/// A playground of one test. It is a [`Client`] of its first node; it is taken down when dropped.
#[derive(Debug)]
pub struct Cluster {
    playground: Playground,
    client: Client,
    // Dropped last: logs are read before.
    _guard: Guard,
}

impl Cluster {
    /// Three managers in one swarm, with the sample image `whoami`. `test` is a short word, at most 12 characters.
    ///
    /// # Panics
    /// When the programs are not built, or the playground does not come up.
    #[must_use]
    pub fn up(test: &str) -> Self {
        Self::with(test, |_| {})
    }

    /// The same with other options.
    ///
    /// # Panics
    /// As [`Cluster::up`].
    #[must_use]
    pub fn with(test: &str, adjust: impl FnOnce(&mut Options)) -> Self {
        remove_orphans();
        let binaries = Binaries::locate().unwrap_or_else(|e| panic!("{e}"));
        let mut options = Options::new(format!("{PREFIX}{test}-{}", std::process::id()), &binaries);
        adjust(&mut options);
        let playground = Playground::up(&options).unwrap_or_else(|e| panic!("{e}"));
        let guard = playground.guard();
        let client = Client::of(playground.node(1));
        Self { playground, client, _guard: guard }
    }

    /// The playground, for what concerns its LAN.
    #[must_use]
    pub fn playground(&self) -> &Playground {
        &self.playground
    }

    /// Host `number`, from 1.
    #[must_use]
    pub fn node(&self, number: usize) -> Node {
        self.playground.node(number)
    }

    /// All hosts.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        self.playground.nodes()
    }

    /// The host of that name.
    #[must_use]
    #[track_caller]
    pub fn node_called(&self, name: &str) -> Node {
        let node = self.nodes().into_iter().find(|node| node.name() == name);
        node.unwrap_or_else(|| panic!("no node is called {name}"))
    }

    /// `swarmctl` on host `number`, from 1.
    #[must_use]
    pub fn client_of(&self, number: usize) -> Client {
        Client::of(self.node(number))
    }

    /// `swarmctl` on the first host that is not `node`.
    #[must_use]
    #[track_caller]
    pub fn client_beside(&self, node: &Node) -> Client {
        let other = self.nodes().into_iter().find(|other| other.name() != node.name());
        Client::of(other.expect("more nodes than one"))
    }

    fn show_logs(&self) {
        for node in self.nodes() {
            let log = std::fs::read_to_string(node.log_file()).unwrap_or_else(|e| e.to_string());
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- end of swarmd's log on {}:\n{}", node.name(), tail.join("\n"));
        }
    }
}

impl Deref for Cluster {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

/// Takes down what tests left that were killed before they could.
fn remove_orphans() {
    let left = Playground::list().unwrap_or_else(|e| panic!("{e}"));
    for playground in left.iter().filter(|playground| is_orphan(playground.name())) {
        if let Err(error) = Playground::down(playground.name()) {
            eprintln!("{error}");
        }
    }
}

fn is_orphan(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.rsplit_once('-'));
    let pid = owner.and_then(|(_, pid)| pid.parse().ok());
    pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::is_orphan;

    #[test]
    fn only_playgrounds_of_ended_tests_are_orphans() {
        assert!(!is_orphan(&format!("it-x-{}", std::process::id())));
        assert!(is_orphan("it-x-y-2147483647"));
        assert!(!is_orphan("pg") && !is_orphan("x-2147483647") && !is_orphan("it-x"));
    }
}
