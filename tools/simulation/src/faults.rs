//! What goes wrong, and when: drawn from the seed.

use swarm_pki::Role;
use swarm_raft::Role as RaftRole;

use crate::disk::FAST;
use crate::leader::remove_lost;
use crate::ledger::Ledger;
use crate::net::{GOOD, HostId, Net, Quality};
use crate::node::{Fate, Node};
use crate::random::Random;

/// Makes things go wrong, and heals them.
pub(crate) struct Faults {
    random: Random,
    /// When the next one comes, in milliseconds.
    next: u64,
    /// When what went wrong is right again.
    repairs: Vec<(u64, Repair)>,
    pub(crate) count: u64,
}

#[derive(Clone, Debug)]
enum Repair {
    Start(HostId),
    Thaw(HostId),
    Network,
    Quality,
    Disk(HostId),
    Kernel(HostId),
}

impl Faults {
    pub(crate) fn new(mut random: Random, from: u64) -> Faults {
        let next = from + random.within(100..1500);
        Faults { random, next, repairs: Vec::new(), count: 0 }
    }

    /// Does what is due; says what, for people who follow a seed.
    pub(crate) fn step(
        &mut self,
        now: u64,
        nodes: &mut [Node],
        net: &Net,
        ledger: &Ledger,
        may_remove: bool,
    ) -> Vec<String> {
        let mut said = self.repair(now, nodes, net);
        if now >= self.next {
            self.next = now + self.random.within(20..1500);
            self.count += 1;
            said.push(self.strike(now, nodes, net, ledger, may_remove));
        }
        said
    }

    fn repair(&mut self, now: u64, nodes: &mut [Node], net: &Net) -> Vec<String> {
        let (due, later) = self.repairs.drain(..).partition(|(at, _)| *at <= now);
        self.repairs = later;
        let due: Vec<(u64, Repair)> = due;
        due.into_iter()
            .map(|(_, repair)| {
                apply(&repair, now, nodes, net);
                format!("repaired: {repair:?}")
            })
            .collect()
    }

    /// Everything is right again.
    pub(crate) fn heal(&mut self, now: u64, nodes: &mut [Node], net: &Net) {
        for (_, repair) in std::mem::take(&mut self.repairs) {
            apply(&repair, now, nodes, net);
        }
    }

    fn strike(
        &mut self,
        now: u64,
        nodes: &mut [Node],
        net: &Net,
        ledger: &Ledger,
        may_remove: bool,
    ) -> String {
        let here = |node: &&Node| node.fate == Fate::Here;
        let hosts: Vec<HostId> = nodes.iter().filter(here).map(|node| node.host).collect();
        let managers: Vec<HostId> =
            nodes.iter().filter(here).filter(|n| n.role == Role::Manager).map(|n| n.host).collect();
        let host = self.random.pick(&hosts).copied().unwrap_or(1);
        let manager = self.random.pick(&managers).copied().unwrap_or(1);
        let soon = now + self.random.within(100..4_000);
        match self.random.within(0..100) {
            0..18 => {
                node(nodes, host).kill();
                self.repairs.push((soon, Repair::Start(host)));
                format!("host {host}: swarmd is killed")
            }
            18..30 => {
                node(nodes, host).cut_power();
                self.repairs.push((soon, Repair::Start(host)));
                format!("host {host}: loses power")
            }
            30..35 => {
                for host in &managers {
                    node(nodes, *host).cut_power();
                    let back = soon + self.random.within(0..500);
                    self.repairs.push((back, Repair::Start(*host)));
                }
                "all managers lose power".to_owned()
            }
            35..55 => {
                self.repairs.push((soon, Repair::Network));
                self.partition(host, &hosts, net)
            }
            55..63 => {
                node(nodes, host).frozen = true;
                let end = now + self.random.within(50..3_500);
                self.repairs.push((end, Repair::Thaw(host)));
                format!("host {host}: stands still")
            }
            63..71 => {
                let most = self.random.within(20..600);
                node(nodes, manager).disk.set_sync_time((10, most));
                self.repairs.push((soon, Repair::Disk(manager)));
                format!("host {manager}: its disk takes up to {most} ms")
            }
            71..79 => {
                let latency = (1, self.random.within(20..150));
                let quality = Quality { latency, loss: self.random.within(0..20) };
                net.set_quality(quality);
                self.repairs.push((soon, Repair::Quality));
                format!("the network is bad: {quality:?}")
            }
            79..86 => {
                node(nodes, host).kernel.set_failing(true);
                self.repairs.push((soon, Repair::Kernel(host)));
                format!("host {host}: its kernel refuses")
            }
            86..93 => {
                node(nodes, host).kernel.kill_one();
                format!("host {host}: a container dies")
            }
            93..95 => transfer(nodes),
            95..97 => self.join(now, nodes),
            _ if may_remove => self.remove(host, nodes, ledger),
            _ => transfer(nodes),
        }
    }

    fn join(&mut self, now: u64, nodes: &mut [Node]) -> String {
        match nodes.iter_mut().find(|node| node.fate == Fate::ToCome) {
            Some(node) => {
                node.start(now);
                format!("host {}: joins as a {:?}", node.host, node.role)
            }
            None => transfer(nodes),
        }
    }

    /// One manager at most, of three or more; and a worker must remain.
    fn remove(&mut self, host: HostId, nodes: &mut [Node], ledger: &Ledger) -> String {
        let role = node(nodes, host).role;
        let of_role =
            |fate: Fate| nodes.iter().filter(|n| n.role == role && n.fate == fate).count();
        let spared = match role {
            Role::Manager => of_role(Fate::Here) < 3 || of_role(Fate::Lost) > 0,
            Role::Worker => of_role(Fate::Here) < 2,
        };
        if spared || node(nodes, host).node_id().is_none() {
            return transfer(nodes);
        }
        let lives = role == Role::Worker && self.random.chance(50);
        if lives {
            node(nodes, host).fate = Fate::Removed;
        } else {
            node(nodes, host).cut_power();
            node(nodes, host).fate = Fate::Lost;
        }
        remove_lost(nodes, ledger);
        format!(
            "host {host}: is removed{}",
            if lives { ", though it lives" } else { ", being lost" }
        )
    }

    fn partition(&mut self, host: HostId, hosts: &[HostId], net: &Net) -> String {
        let others = hosts.iter().copied().filter(|other| *other != host);
        match self.random.within(0..4) {
            0 => {
                others.for_each(|other| net.block(host, other));
                format!("host {host}: is heard by nobody")
            }
            1 => {
                others.for_each(|other| net.block(other, host));
                format!("host {host}: hears nobody")
            }
            2 => {
                others.for_each(|other| {
                    net.block(other, host);
                    net.block(host, other);
                });
                format!("host {host}: is cut off")
            }
            _ => {
                let side: Vec<HostId> =
                    hosts.iter().copied().filter(|_| self.random.chance(50)).collect();
                for a in &side {
                    for b in hosts.iter().filter(|b| !side.contains(b)) {
                        net.block(*a, *b);
                        net.block(*b, *a);
                    }
                }
                format!("hosts {side:?} are cut off from the others")
            }
        }
    }
}

fn node(nodes: &mut [Node], host: HostId) -> &mut Node {
    nodes.iter_mut().find(|node| node.host == host).expect("hosts do not vanish")
}

fn transfer(nodes: &[Node]) -> String {
    for node in nodes {
        let Some(manager) = node.manager() else { continue };
        if manager.raft().status().borrow().role == RaftRole::Leader {
            let raft = manager.raft().clone();
            node.spawn(async move {
                // It may fail, with nobody to hand over to.
                let _ = raft.transfer_leadership(None).await;
            });
            return format!("host {}: hands leadership over", node.host);
        }
    }
    "nobody leads who could hand over".to_owned()
}

fn apply(repair: &Repair, now: u64, nodes: &mut [Node], net: &Net) {
    match repair {
        Repair::Start(host) => node(nodes, *host).start(now),
        Repair::Thaw(host) => node(nodes, *host).frozen = false,
        Repair::Network => net.unblock_all(),
        Repair::Quality => net.set_quality(GOOD),
        Repair::Disk(host) => node(nodes, *host).disk.set_sync_time(FAST),
        Repair::Kernel(host) => node(nodes, *host).kernel.set_failing(false),
    }
}
