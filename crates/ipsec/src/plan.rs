//! The steps from what the kernel holds to what it should hold. Pure.
//!
//! The order makes every moment safe: the default deny comes first and goes last; an outbound policy appears after the
//! association it names and goes before it; what receives is there before what sends is switched.
//!
//! A key must never encrypt again from sequence number 1, nor a receiver forget what it has seen. So an outbound key that
//! was used before (is *spent*) is only kept, never added; and the associations of a peer that has no tunnel any more stay
//! for a while, without policies and thus unused, since the peer may come back before its keys are replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    desired::{Desired, Key, Sa, Tunnel},
    table::{Association, Direction, NewSa, PolicyId, Protection, Rule, SaId, Selector, Table},
};

/// Seconds after which the associations of a peer without tunnel go: keys are replaced well within.
const KEPT: u64 = 24 * 3600;

/// One change of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Adds it, or replaces it in one go.
    SetPolicy(PolicyId, Rule),
    DeletePolicy(PolicyId),
    AddSa(NewSa),
    DeleteSa(SaId),
    /// Deletes one that was kept in vain.
    ForgetSa(SaId),
    /// Lets packets leave that were routed through an association which goes next.
    Settle,
}

/// A step, and the peer whose further steps must not be taken if it fails; without one, all others.
pub(crate) type Planned = (Option<IpAddr>, Step);

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Only closes what may be open; comes first.
    pub(crate) guard: Vec<Planned>,
    pub(crate) steps: Vec<Planned>,
    /// Peers that nothing is sent to, since the key given for it is spent; with that key's fingerprint.
    pub(crate) refused: Vec<(IpAddr, u64)>,
}

impl Plan {
    pub(crate) fn new(
        held: &Table,
        desired: &Desired,
        spent: impl Fn(&Key) -> bool,
        now: u64,
    ) -> Self {
        let mut wanted = Wanted::default();
        let mut refused = Vec::new();
        for tunnel in &desired.tunnels {
            wanted.receive(desired, tunnel);
            let Some(sa) = &tunnel.sending else { continue };
            let new = outbound(desired, tunnel, sa);
            if !holds(held, &new) && spent(&sa.key) {
                refused.push((tunnel.remote, sa.key.fingerprint()));
            } else {
                wanted.send(new);
            }
        }
        let mut planner =
            Planner { held, desired, wanted, now, deleted: BTreeSet::new(), steps: vec![] };
        planner.guard();
        let guard = std::mem::take(&mut planner.steps);
        planner.build_up();
        planner.tear_down();
        Self { guard, steps: planner.steps, refused }
    }

    /// Takes away everything of ours; the deny goes last.
    pub(crate) fn nothing(held: &Table) -> Vec<Step> {
        let is_deny = |(direction, selector): &&PolicyId| selector.remote(*direction).is_none();
        let (denials, peers): (Vec<_>, Vec<_>) = held.policies.keys().partition(is_deny);
        let delete = |ids: Vec<&PolicyId>| -> Vec<Step> {
            ids.into_iter().map(|id| Step::DeletePolicy(*id)).collect()
        };
        let associations = held.associations.keys().map(|id| Step::DeleteSa(*id));
        delete(peers).into_iter().chain(associations).chain(delete(denials)).collect()
    }

    /// Fingerprints of the keys that will encrypt for the first time.
    pub(crate) fn fresh(&self, local: IpAddr) -> impl Iterator<Item = u64> {
        self.steps.iter().filter_map(move |(_, step)| match step {
            Step::AddSa(sa) if sa.source == local => Some(sa.key.fingerprint()),
            _ => None,
        })
    }
}

fn outbound(desired: &Desired, tunnel: &Tunnel, sa: &Sa) -> NewSa {
    NewSa {
        id: SaId { destination: tunnel.remote, spi: sa.spi },
        source: desired.local,
        reqid: tunnel.reqid,
        port: desired.port,
        key: sa.key.clone(),
    }
}

fn inbound(desired: &Desired, tunnel: &Tunnel, sa: &Sa) -> NewSa {
    let id = SaId { destination: desired.local, spi: sa.spi };
    NewSa { id, source: tunnel.remote, ..outbound(desired, tunnel, sa) }
}

fn holds(held: &Table, wanted: &NewSa) -> bool {
    held.associations.get(&wanted.id).is_some_and(|association| association.is(wanted))
}

/// The peers' part of what should be.
#[derive(Default)]
struct Wanted {
    policies: BTreeMap<PolicyId, Rule>,
    associations: BTreeMap<SaId, NewSa>,
}

impl Wanted {
    fn receive(&mut self, desired: &Desired, tunnel: &Tunnel) {
        let selector = Selector::between(tunnel.remote, desired.local, desired.port);
        let rule = Rule::Protect { reqid: tunnel.reqid, spi: None };
        self.policies.insert((Direction::In, selector), rule);
        let associations = tunnel.receiving.iter().map(|sa| inbound(desired, tunnel, sa));
        self.associations.extend(associations.map(|sa| (sa.id, sa)));
    }

    fn send(&mut self, sa: NewSa) {
        let selector = Selector::between(sa.source, sa.id.destination, sa.port);
        let rule = Rule::Protect { reqid: sa.reqid, spi: Some(sa.id.spi) };
        self.policies.insert((Direction::Out, selector), rule);
        self.associations.insert(sa.id, sa);
    }
}

struct Planner<'a> {
    held: &'a Table,
    desired: &'a Desired,
    wanted: Wanted,
    now: u64,
    /// Policies that are gone by now.
    deleted: BTreeSet<PolicyId>,
    steps: Vec<Planned>,
}

impl Planner<'_> {
    /// The default deny; then takes away outbound policies that should not be or whose association is not as it should be.
    fn guard(&mut self) {
        let denials = self.denials();
        for id in &denials {
            if self.held.policies.get(id) != Some(&Some(Rule::Deny)) {
                self.steps.push((None, Step::SetPolicy(*id, Rule::Deny)));
            }
        }
        for (id, rule) in self.held.policies.iter().filter(|(id, _)| !denials.contains(id)) {
            let wrong = match rule {
                None => true,
                Some(Rule::Protect { spi, .. }) => {
                    id.0 == Direction::Out && !self.is_sound(id, *spi)
                }
                Some(Rule::Deny) => false,
            };
            if wrong {
                self.delete_policy(*id);
            }
        }
    }

    fn denials(&self) -> Vec<PolicyId> {
        let selector = Selector::any(self.desired.local.is_ipv6(), self.desired.port);
        let both = [(Direction::In, selector), (Direction::Out, selector)];
        if self.desired.deny { both.to_vec() } else { vec![] }
    }

    /// Whether an outbound policy of a peer may stay until it is set anew.
    fn is_sound(&self, id: &PolicyId, spi: Option<u32>) -> bool {
        let (Some(destination), Some(spi)) = (id.1.destination, spi) else { return false };
        let to_be_replaced = |wanted: &NewSa| !holds(self.held, wanted);
        let id_of_sa = SaId { destination, spi };
        self.wanted.policies.contains_key(id)
            && self.held.associations.contains_key(&id_of_sa)
            && !self.wanted.associations.get(&id_of_sa).is_some_and(to_be_replaced)
    }

    fn build_up(&mut self) {
        for direction in [Direction::In, Direction::Out] {
            let wanted = self.wanted.associations.values();
            let missing =
                wanted.filter(|sa| self.direction(sa) == direction && !holds(self.held, sa));
            for sa in missing.cloned().collect::<Vec<_>>() {
                let peer =
                    Some(if direction == Direction::In { sa.source } else { sa.id.destination });
                if self.held.associations.contains_key(&sa.id) || self.held.larval.contains(&sa.id)
                {
                    self.steps.push((peer, Step::DeleteSa(sa.id)));
                }
                self.steps.push((peer, Step::AddSa(sa)));
            }
            for (id, rule) in self.wanted.policies.iter().filter(|(id, _)| id.0 == direction) {
                let same = self.held.policies.get(id) == Some(&Some(*rule));
                if !same || self.deleted.contains(id) {
                    self.steps.push((id.1.remote(direction), Step::SetPolicy(*id, *rule)));
                }
            }
        }
    }

    fn direction(&self, sa: &NewSa) -> Direction {
        if sa.source == self.desired.local { Direction::Out } else { Direction::In }
    }

    fn tear_down(&mut self) {
        let denials = self.denials();
        let unwanted =
            |id: &&PolicyId| !self.wanted.policies.contains_key(id) && !denials.contains(id);
        let (last, first): (Vec<PolicyId>, Vec<PolicyId>) = (self.held.policies.keys())
            .filter(unwanted)
            .filter(|id| !self.deleted.contains(id))
            .partition(|(direction, selector)| selector.remote(*direction).is_none());
        first.into_iter().for_each(|id| self.delete_policy(id));
        let (stale, idle): (Vec<_>, Vec<_>) = (self.held.associations.iter())
            .filter(|(id, _)| !self.wanted.associations.contains_key(id))
            .partition(|(id, association)| self.is_stale(id, association));
        if stale.iter().any(|(_, association)| association.source == self.desired.local) {
            self.steps.push((None, Step::Settle));
        }
        for (id, association) in stale {
            self.steps.push((Some(self.remote(id, association)), Step::DeleteSa(*id)));
        }
        let is_old = |idle: &Association| self.now.saturating_sub(idle.added) > KEPT;
        for (id, idle) in idle.into_iter().filter(|(_, idle)| is_old(idle)) {
            self.steps.push((Some(self.remote(id, idle)), Step::ForgetSa(*id)));
        }
        last.into_iter().for_each(|id| self.delete_policy(id));
    }

    fn remote(&self, id: &SaId, association: &Association) -> IpAddr {
        let outbound = association.source == self.desired.local;
        if outbound { id.destination } else { association.source }
    }

    /// Whether an association that is not wanted should go at once.
    fn is_stale(&self, id: &SaId, association: &Association) -> bool {
        let outbound = association.source == self.desired.local;
        let ours = outbound || id.destination == self.desired.local;
        let usable =
            association.protection != Protection::Strange && association.port == self.desired.port;
        let remote = self.remote(id, association);
        let tunnel = self.desired.tunnels.iter().find(|tunnel| tunnel.remote == remote);
        !ours || !usable || tunnel.is_some_and(|tunnel| !outbound || tunnel.sending.is_some())
    }

    fn delete_policy(&mut self, id: PolicyId) {
        self.deleted.insert(id);
        self.steps.push((id.1.remote(id.0), Step::DeletePolicy(id)));
    }
}

#[cfg(test)]
mod tests;
