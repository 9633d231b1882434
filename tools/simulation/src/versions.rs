//! Two versions of the programs, and how their users upgrade hosts one by one, and take some back. The next version
//! speaks one feature level more: for it, some of today's changes are of that level, and the version before refuses to
//! decode them, as it would what it does not know.

use std::ops::Range;

use swarm_manager::Dialect;
use swarm_model::{EngineDescription, FeatureLevel};
use swarm_state::Change;

use crate::ledger::Ledger;
use crate::net::HostId;
use crate::node::{Fate, Node};
use crate::random::Random;

/// An environment that begins so is new in the next version.
pub(crate) const NEW: &str = "NEW=";
/// How long users look on between two hosts, and how long a host is without its program meanwhile, in milliseconds.
const PAUSE: Range<u64> = 50..1_500;
const AWAY: Range<u64> = 5..2_000;
/// The same once all is repaired: they are in a hurry.
const LAST_PAUSE: Range<u64> = 20..200;
const LAST_AWAY: Range<u64> = 5..500;

/// What is installed on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The one that all hosts begin with.
    Old,
    /// The next.
    New,
}

impl Version {
    pub(crate) fn level(self) -> FeatureLevel {
        let number = match self {
            Version::Old => 1,
            Version::New => 2,
        };
        FeatureLevel::new(number).unwrap_or_default()
    }

    pub(crate) fn engine(self) -> EngineDescription {
        let engine_version = format!("{}-simulated", self.level());
        EngineDescription { engine_version, feature_level: self.level() }
    }

    pub(crate) fn dialect(self) -> Dialect {
        Dialect { engine: self.engine(), level_of }
    }
}

/// The level that a change needs, as the next version says.
pub(crate) fn level_of(change: &Change) -> FeatureLevel {
    let is_new = |env: &[String]| env.iter().any(|variable| variable.starts_with(NEW));
    match change {
        Change::CreateService { spec, .. } | Change::UpdateService { spec, .. }
            if is_new(&spec.task_template.container_spec.env) =>
        {
            Version::New.level()
        }
        other => other.level(),
    }
}

/// The users who upgrade the swarm.
pub(crate) struct Upgrade {
    random: Random,
    /// When they look again, in milliseconds.
    next: u64,
    /// The host whose program is being replaced, until it is seen as a node of its new version.
    replacing: Option<Replacing>,
}

struct Replacing {
    host: HostId,
    /// When it is started again; none once it was.
    start_at: Option<u64>,
}

impl Upgrade {
    pub(crate) fn new(mut random: Random, from: u64) -> Upgrade {
        let next = from + random.within(0..2_000);
        Upgrade { random, next, replacing: None }
    }

    /// Whether a host is between two versions: who goes by the book removes no node now.
    pub(crate) fn is_replacing(&self) -> bool {
        self.replacing.is_some()
    }

    /// Does what is due, as `docs/upgrade.md` has it; says what. Nobody takes a host back once it `must_end`.
    pub(crate) fn step(
        &mut self,
        now: u64,
        nodes: &mut [Node],
        ledger: &Ledger,
        must_end: bool,
    ) -> Option<String> {
        if let Some(replacing) = &mut self.replacing {
            let node = nodes.iter_mut().find(|node| node.host == replacing.host)?;
            if replacing.start_at.is_some_and(|at| at <= now) {
                replacing.start_at = None;
                node.start(now);
            }
            let is_back = replacing.start_at.is_none() && is_seen(node, ledger);
            if is_back || node.fate != Fate::Here {
                self.replacing = None;
            }
            return None;
        }
        if now < self.next {
            return None;
        }
        let (pause, away) = if must_end { (LAST_PAUSE, LAST_AWAY) } else { (PAUSE, AWAY) };
        self.next = now + self.random.within(pause);
        let of = |version: Version| -> Vec<HostId> {
            let here = nodes.iter().filter(|node| node.fate == Fate::Here);
            here.filter(|node| node.version == version).map(|node| node.host).collect()
        };
        let (old, new) = (of(Version::Old), of(Version::New));
        let held_back = nodes.iter().any(|node| {
            node.fate == Fate::Here && node.version == Version::Old && is_seen(node, ledger)
        });
        let may_go_back = held_back && ledger.state.feature_level() == Version::Old.level();
        let back = may_go_back && !must_end && self.random.chance(35);
        let (hosts, version) = if back { (new, Version::Old) } else { (old, Version::New) };
        let host = *self.random.pick(&hosts)?;
        let node = nodes.iter_mut().find(|node| node.host == host)?;
        node.node_id()?; // it has not joined yet: one thing at a time
        node.kill();
        node.version = version;
        self.replacing = Some(Replacing { host, start_at: Some(now + self.random.within(away)) });
        let what = if back { "taken back" } else { "upgraded" };
        Some(format!("host {host}: is {what}"))
    }
}

/// Whether the swarm knows a host as it is.
fn is_seen(node: &Node, ledger: &Ledger) -> bool {
    let known = node.node_id().and_then(|id| ledger.state.node(&id.as_str().into()).cloned());
    known.is_some_and(|known| {
        known.is_alive() && known.description.engine.feature_level == node.version.level()
    })
}
