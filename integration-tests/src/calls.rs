//! What the sample image's tools say, run inside a task: who answered calls, what names mean.

use crate::client::text;
use crate::{Client, Task};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The summary of a number of calls.
#[derive(Debug, Clone, Deserialize)]
pub struct Calls {
    /// How many were made.
    pub calls: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Who answered: host name of the task, and how often.
    pub hosts: BTreeMap<String, u64>,
    /// The client addresses that servers saw, and how often.
    pub clients: BTreeMap<String, u64>,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
}

impl Calls {
    /// That none failed, and that all of `tasks` answered in turn, to within one, and nobody else.
    ///
    /// # Panics
    /// When it is not so.
    #[track_caller]
    pub fn assert_shared(&self, tasks: &[Task]) {
        self.assert_none_failed();
        let expected: BTreeSet<_> = tasks.iter().map(Task::hostname).collect();
        assert_eq!(self.hosts.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
        let share = self.calls / tasks.len() as u64;
        for (host, count) in &self.hosts {
            assert!(count.abs_diff(share) <= 1, "{host} answered {count}: {self:?}");
        }
    }

    /// That none failed.
    ///
    /// # Panics
    /// When one did.
    #[track_caller]
    pub fn assert_none_failed(&self) {
        assert_eq!((self.failed, &self.errors), (0, &BTreeMap::new()), "{self:?}");
    }

    /// [`Calls::assert_shared`], and that all tasks saw `client`.
    ///
    /// # Panics
    /// When it is not so.
    #[track_caller]
    pub fn assert_balanced(&self, tasks: &[Task], client: Ipv4Addr) {
        self.assert_shared(tasks);
        assert_eq!(self.clients, BTreeMap::from([(client.to_string(), self.calls)]));
    }
}

/// A DNS answer, as the last message of an exchange had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Such as `NOERROR`.
    pub rcode: String,
    /// `udp` or `tcp`.
    pub transport: String,
    /// Whether an answer over UDP was truncated, be it asked again over TCP or not.
    pub truncated: bool,
    /// Bytes of the message.
    pub size: usize,
    /// Data of the records.
    pub data: Vec<String>,
}

impl Answer {
    /// The addresses in it.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.data.iter().filter_map(|data| data.parse().ok()).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let headers: Vec<Vec<&str>> = text
            .lines()
            .filter_map(|line| line.strip_prefix(";; "))
            .map(|line| line.split([' ', ',', ';', ':']).filter(|w| !w.is_empty()).collect())
            .collect();
        // NAME TYPE RCODE TRANSPORT flags FLAG... COUNT answers SIZE bytes
        let last = headers.last().filter(|words| words.len() > 8)?;
        let records = text.lines().filter(|line| !line.starts_with(";; "));
        let data = |line: &str| line.splitn(4, ' ').nth(3).map(str::to_owned);
        Some(Self {
            rcode: last[2].to_owned(),
            transport: last[3].to_owned(),
            truncated: headers.iter().any(|words| words.contains(&"tc")),
            size: last[last.len() - 2].parse().ok()?,
            data: records.filter_map(data).collect(),
        })
    }
}

/// What a task sees of its networks.
impl Client {
    /// `count` HTTP calls from a task, each on a new connection.
    #[track_caller]
    pub fn call(&self, from: &Task, url: &str, count: u32) -> Calls {
        self.calls(from, &format!("/whoami get --summary -n {count} {url}"))
    }

    /// `count` UDP calls from a task to `HOST:PORT`, each from a port of its own.
    #[track_caller]
    pub fn call_udp(&self, from: &Task, target: &str, count: u32) -> Calls {
        self.calls(from, &format!("/whoami udp --summary -n {count} {target}"))
    }

    /// Calls by a command of the sample image that prints a summary.
    #[track_caller]
    pub fn calls(&self, from: &Task, line: &str) -> Calls {
        let output = self.exec(from, line);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!("{} on {}: {line}: {e}: {}", from.name, from.node, text(&output.stderr))
        })
    }

    /// Asks for a name's A records from a task, over UDP, and over TCP if the answer is truncated.
    #[track_caller]
    pub fn resolve(&self, from: &Task, name: &str) -> Answer {
        self.resolve_with(from, "", name)
    }

    /// The same with flags of `whoami resolve`.
    #[track_caller]
    pub fn resolve_with(&self, from: &Task, flags: &str, name: &str) -> Answer {
        let output = self.exec(from, &format!("/whoami resolve {flags} {name}"));
        let stdout = text(&output.stdout);
        Answer::parse(&stdout).unwrap_or_else(|| {
            panic!("{name} from {}: no answer: {stdout}{}", from.name, text(&output.stderr))
        })
    }

    /// Whether a host answers one ping from a task.
    #[track_caller]
    pub fn pings(&self, from: &Task, host: &str) -> bool {
        self.exec(from, &format!("/whoami ping {host}")).status.success()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let text = ";; tasks.web A NOERROR udp flags: qr aa tc rd ra; 29 answers, 512 bytes\n\
                    ;; tasks.web A NOERROR tcp flags: qr aa rd ra; 2 answers, 836 bytes\n\
                    tasks.web. 0 A 10.0.1.10\ntasks.web. 0 A 10.0.1.9\n";
        let answer = Answer::parse(text).unwrap();
        assert_eq!(answer.addresses().len(), 2);
        let expected = ("NOERROR", "tcp", true, 836);
        let Answer { rcode, transport, truncated, size, .. } = &answer;
        assert_eq!((rcode.as_str(), transport.as_str(), *truncated, *size), expected);
        let none = Answer::parse(";; x A NXDOMAIN udp flags: qr; 0 answers, 20 bytes\n").unwrap();
        assert_eq!((none.rcode.as_str(), none.data.len()), ("NXDOMAIN", 0));
        assert_eq!(Answer::parse(""), None);
    }
}
