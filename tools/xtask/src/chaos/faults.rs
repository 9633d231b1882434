//! What happens, and to whom.

use std::fmt;

use anyhow::{Context, Result};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use swarm_playground::{Cut, Node};

use super::swarm::Swarm;

type Outcome = swarm_playground::Result<()>;

/// What happens to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// `kill -9` of `swarmd`; its containers go on.
    Kill,
    /// SIGTERM to `swarmd`.
    Stop,
    /// Everything on the host ends at once.
    PowerCut,
    /// SIGSTOP to all processes, then SIGCONT, by the cgroup's freezer.
    Freeze,
    /// No frame in or out.
    CutOff,
    /// It hears nobody.
    Deaf,
    /// It is heard by nobody.
    Mute,
}

impl Fault {
    const ALL: [Fault; 7] = [
        Fault::Kill,
        Fault::Stop,
        Fault::PowerCut,
        Fault::Freeze,
        Fault::CutOff,
        Fault::Deaf,
        Fault::Mute,
    ];

    pub(super) fn choose(chance: &mut StdRng) -> Fault {
        Fault::ALL[chance.random_range(0..Fault::ALL.len())]
    }

    pub(super) fn inflict(self, host: &Node) -> Outcome {
        match self {
            Fault::Kill => host.kill_daemon(),
            Fault::Stop => host.stop_daemon(),
            Fault::PowerCut => host.kill(),
            Fault::Freeze => host.pause(),
            Fault::CutOff => host.cut(Cut::Both),
            Fault::Deaf => host.cut(Cut::ToHost),
            Fault::Mute => host.cut(Cut::FromHost),
        }
    }

    pub(super) fn undo(self, host: &Node) -> Outcome {
        match self {
            Fault::Kill | Fault::Stop => host.start_daemon(),
            Fault::PowerCut => host.start().and_then(|()| host.wait_for_daemon()),
            Fault::Freeze => host.resume(),
            Fault::CutOff | Fault::Deaf | Fault::Mute => host.heal(),
        }
    }

    /// Whether `swarmd`'s socket is another one afterwards.
    pub(super) fn ends_processes(self) -> bool {
        matches!(self, Fault::Kill | Fault::Stop | Fault::PowerCut)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Kill => "kill -9 swarmd of",
            Fault::Stop => "stop swarmd of",
            Fault::PowerCut => "power cut of",
            Fault::Freeze => "freeze",
            Fault::CutOff => "cut off",
            Fault::Deaf => "deafen",
            Fault::Mute => "mute",
        })
    }
}

/// To whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Victims {
    Leader,
    Follower,
    Worker,
    AllManagers,
}

impl Victims {
    /// All managers at once less often: nothing else is learned meanwhile.
    pub(super) fn choose(chance: &mut StdRng) -> Victims {
        match chance.random_range(0..10) {
            0..4 => Victims::Leader,
            4..6 => Victims::Follower,
            6..9 => Victims::Worker,
            _ => Victims::AllManagers,
        }
    }

    pub(super) fn hosts(self, swarm: &Swarm, chance: &mut StdRng) -> Result<Vec<Node>> {
        let leader = swarm.leader()?;
        let one = |hosts: Vec<Node>, chance: &mut StdRng| {
            hosts.choose(chance).cloned().map(|host| vec![host]).context("no such host")
        };
        let is_leader = |host: &Node| host.name() == leader;
        match self {
            Victims::Leader => {
                one(swarm.managers().into_iter().filter(is_leader).collect(), chance)
            }
            Victims::Follower => {
                let followers = swarm.managers().into_iter().filter(|host| !is_leader(host));
                one(followers.collect(), chance)
            }
            Victims::Worker => one(swarm.workers(), chance),
            Victims::AllManagers => Ok(swarm.managers()),
        }
    }
}

impl fmt::Display for Victims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Victims::Leader => "leader",
            Victims::Follower => "follower",
            Victims::Worker => "worker",
            Victims::AllManagers => "all managers",
        })
    }
}
