//! What a playground shall be.

use crate::{Binaries, Error, Result};
use ipnet::Ipv4Net;
use std::path::PathBuf;

/// Longest name: host names `<name>-<number>` stay short and control sockets below the 108 bytes of a unix address.
const MAX_NAME: usize = 24;
/// `.1` to `.250` of the subnet; `.254` is the machine.
pub(crate) const MAX_NODES: usize = 250;

/// Options of [`Playground::up`](crate::Playground::up).
#[derive(Debug, Clone)]
pub struct Options {
    /// Lower-case letters, digits and dashes; hosts are called `<name>-1`, `<name>-2`, ...
    pub name: String,
    /// Number of hosts, at least 1.
    pub nodes: usize,
    /// How many of them are managers; `None`: 1 of fewer than 3 hosts, else 3.
    pub managers: Option<usize>,
    /// The daemon that every host runs.
    pub swarmd: PathBuf,
    /// `swarmctl`, which makes the swarm.
    pub swarmctl: PathBuf,
    /// `swarm-playground`: the hosts' init.
    pub playground: PathBuf,
    /// The `whoami` to load on every node as image `whoami:latest`; `None`: no sample image.
    pub whoami: Option<PathBuf>,
    /// The hosts' LAN, at least a /24; `None`: the first /24 of 10.123.0.0/16 that clashes with nothing.
    pub subnet: Option<Ipv4Net>,
    /// `HOST:PORT` of registries to be talked to in clear text.
    pub insecure_registries: Vec<String>,
    /// Whether to wait for the daemons and make one swarm of them; else the daemons are started and that is all.
    pub form_swarm: bool,
}

impl Options {
    /// Three hosts in one swarm with the sample image.
    #[must_use]
    pub fn new(name: impl Into<String>, binaries: &Binaries) -> Self {
        Self {
            name: name.into(),
            nodes: 3,
            managers: None,
            swarmd: binaries.swarmd.clone(),
            swarmctl: binaries.swarmctl.clone(),
            playground: binaries.playground.clone(),
            whoami: Some(binaries.whoami.clone()),
            subnet: None,
            insecure_registries: Vec::new(),
            form_swarm: true,
        }
    }

    pub(crate) fn manager_count(&self) -> usize {
        self.managers.unwrap_or(if self.nodes < 3 { 1 } else { 3 })
    }

    pub(crate) fn validate(&self) -> Result<()> {
        validate_name(&self.name)?;
        if self.nodes == 0 || self.nodes > MAX_NODES {
            return Err(Error::Options(format!("{} nodes; it takes 1 to {MAX_NODES}", self.nodes)));
        }
        let managers = self.manager_count();
        if managers == 0 || managers > self.nodes {
            return Err(Error::Options(format!("{managers} managers among {} nodes", self.nodes)));
        }
        if let Some(subnet) = self.subnet.filter(|s| s.prefix_len() > 24) {
            return Err(Error::Options(format!("subnet {subnet} is smaller than a /24")));
        }
        Ok(())
    }
}

/// Names become parts of paths, of interface and table names and of host names.
pub(crate) fn validate_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty()
        || name.len() > MAX_NAME
        || !name.chars().all(allowed)
        || name.starts_with('-')
    {
        return Err(Error::Options(format!(
            "name {name:?} is not 1 to {MAX_NAME} lower-case letters, digits and dashes"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        let binaries = Binaries {
            swarmd: "/d".into(),
            swarmctl: "/c".into(),
            playground: "/p".into(),
            whoami: "/w".into(),
        };
        let mut options = Options::new("pg", &binaries);
        options.nodes = 3;
        options
    }

    #[test]
    fn three_managers_from_three_nodes_on() {
        let mut o = options();
        assert_eq!(o.manager_count(), 3);
        o.nodes = 2;
        assert_eq!(o.manager_count(), 1);
        o.managers = Some(3);
        assert!(o.validate().unwrap_err().to_string().contains("3 managers among 2"));
    }

    #[test]
    fn names_that_would_leave_the_state_directory_are_refused() {
        for bad in ["", "../x", "a/b", "A", "-a", "a b", "aaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert!(validate_name(bad).is_err(), "{bad:?}");
        }
        assert!(validate_name("pg-2").is_ok());
    }
}
