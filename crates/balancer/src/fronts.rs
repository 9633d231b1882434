//! Where clients call the services of a network, and which tracked connections may exist there. Both engines judge
//! connections by this; they differ only in how a balanced one is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use crate::{
    PortMap, Ports, Protocol, VirtualService,
    netlink::{Answerers, Entry},
};

/// Where clients call a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Front {
    /// A VIP, by TCP and UDP on every port.
    All(Ipv4Addr),
    /// One port of a VIP.
    Port(Ipv4Addr, Protocol, u16),
}

/// The backends' port, with its protocol; none for the one that was called.
pub(crate) type Target = Option<(Protocol, u16)>;

impl Front {
    pub(crate) fn vip(self) -> Ipv4Addr {
        match self {
            Self::All(vip) | Self::Port(vip, _, _) => vip,
        }
    }
}

impl VirtualService<Ipv4Addr> {
    /// Where it is called, each with where it leads at the backends.
    pub(crate) fn fronts(&self) -> Vec<(Front, Target)> {
        let front = |map: &PortMap| {
            let PortMap { protocol, port, target } = *map;
            (Front::Port(self.vip, protocol, port), Some((protocol, target)))
        };
        match &self.ports {
            Ports::All => vec![(Front::All(self.vip), None)],
            Ports::Only(maps) => maps.iter().map(front).collect(),
        }
    }

    /// Whether any backend takes new connections.
    pub(crate) fn takes(&self) -> bool {
        self.backends.iter().any(|backend| backend.weight > 0)
    }
}

/// What is behind each front of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fronts(BTreeMap<Front, Behind>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Behind {
    target: Target,
    /// All backends, the draining ones too.
    backends: BTreeSet<Ipv4Addr>,
    /// Whether any of them takes new connections.
    takes: bool,
}

impl Behind {
    fn answers(&self, entry: &Entry) -> bool {
        self.backends.contains(&entry.answerer)
            && entry.answerer_port == self.target.map_or(entry.port, |(_, port)| port)
    }
}

impl Fronts {
    pub(crate) fn add(&mut self, service: &VirtualService<Ipv4Addr>) {
        let backends: BTreeSet<Ipv4Addr> =
            service.backends.iter().map(|backend| backend.addr).collect();
        for (front, target) in service.fronts() {
            let behind = Behind { target, backends: backends.clone(), takes: service.takes() };
            self.0.insert(front, behind);
        }
    }

    /// Who answers the connections that a change to `new` leaves behind, [`Fronts::disowns`] to judge.
    pub(crate) fn stranded_by(&self, new: &Self) -> Answerers {
        let lost = self.0.iter().flat_map(|(front, old)| {
            let kept = new.0.get(front).filter(|kept| kept.target == old.target);
            let stays = move |addr: &&Ipv4Addr| kept.is_some_and(|k| k.backends.contains(*addr));
            old.backends.iter().filter(move |addr| !stays(addr)).copied()
        });
        // What came for a front before it took connections may have been tracked as the namespace's own.
        let takes = |front: &Front| self.0.get(front).is_some_and(|behind| behind.takes);
        let first = new.0.iter().filter(|(front, behind)| behind.takes && !takes(front));
        Answerers::These(lost.chain(first.map(|(front, _)| front.vip())).collect())
    }

    /// Whether a tracked connection contradicts what should be programmed. A balanced connection is disowned if no
    /// backend of its front has the address and port that answer it. Any other is disowned if its front takes
    /// connections now: it was tracked as the namespace's own. The namespace has no other destination NAT.
    pub(crate) fn disowns(&self, entry: &Entry, balanced: bool) -> bool {
        let behind = self.behind(entry);
        if balanced {
            return behind.is_none_or(|behind| !behind.answers(entry));
        }
        behind.is_some_and(|behind| behind.takes)
    }

    fn behind(&self, entry: &Entry) -> Option<&Behind> {
        let protocol = Protocol::of(entry.protocol)?;
        let vip = entry.destination;
        let all = self.0.get(&Front::All(vip));
        all.or_else(|| self.0.get(&Front::Port(vip, protocol, entry.port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, ports::only};

    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);

    fn fronts(ports: Ports, backends: &[(Ipv4Addr, u16)]) -> Fronts {
        let backend = |(addr, weight): &(Ipv4Addr, u16)| Backend {
            addr: *addr,
            weight: *weight,
            local: true,
        };
        let mut fronts = Fronts::default();
        fronts.add(&VirtualService {
            id: "1".into(),
            name: "web".into(),
            mark: Some(2),
            vip: VIP,
            ports,
            backends: backends.iter().map(backend).collect(),
        });
        fronts
    }

    fn connection(port: u16, answerer: (Ipv4Addr, u16), protocol: u8) -> Entry {
        let mut entry = Entry::balanced(VIP, answerer.0, protocol);
        (entry.port, entry.answerer_port) = (port, answerer.1);
        entry
    }

    #[test]
    fn connections_to_gone_backends_are_stranded_and_disowned() {
        let old = fronts(Ports::All, &[(A, 1), (B, 1)]);
        let new = fronts(Ports::All, &[(B, 0)]);
        assert_eq!(old.stranded_by(&new), Answerers::These([A].into()));
        assert!(new.disowns(&Entry::balanced(VIP, A, UDP), true));
        assert!(!new.disowns(&Entry::balanced(VIP, B, UDP), true), "draining");
        let elsewhere = Ipv4Addr::new(10, 0, 1, 3);
        assert!(new.disowns(&Entry::balanced(elsewhere, A, TCP), true), "its service is gone");
    }

    #[test]
    fn what_was_tracked_as_the_namespaces_own_is_disowned_once_there_are_backends() {
        let own = |protocol| Entry::balanced(VIP, VIP, protocol);
        let (refused, first) = (fronts(Ports::All, &[(A, 0)]), fronts(Ports::All, &[(A, 1)]));
        assert_eq!(refused.stranded_by(&first), Answerers::These([VIP].into()));
        assert!(first.disowns(&own(UDP), false) && !refused.disowns(&own(UDP), false));
        assert!(!first.disowns(&own(1), false), "an echo is answered by the namespace");
    }

    #[test]
    fn a_connection_is_of_its_port_and_target_alone() {
        let now = fronts(only(&[(Protocol::Tcp, 80, 8080)]), &[(A, 1)]);
        assert!(!now.disowns(&connection(80, (A, 8080), TCP), true));
        assert!(now.disowns(&connection(80, (A, 80), TCP), true), "another target");
        assert!(now.disowns(&connection(81, (A, 8080), TCP), true), "not listed");
        assert!(now.disowns(&connection(80, (A, 8080), UDP), true), "not listed for UDP");
        assert!(now.disowns(&connection(80, (VIP, 80), TCP), false), "balanced by now");
        assert!(!now.disowns(&connection(81, (VIP, 81), TCP), false), "nobody else's");
    }

    #[test]
    fn a_port_that_leads_elsewhere_strands_its_connections() {
        let backends = [(A, 1), (B, 0)];
        let now = fronts(only(&[(Protocol::Tcp, 80, 8080)]), &backends);
        let both = Answerers::These([A, B].into());
        assert_eq!(now.stranded_by(&now), Answerers::none());
        let elsewhere = only(&[(Protocol::Tcp, 80, 8081)]);
        for (ports, why) in [(elsewhere, "another target"), (only(&[]), "no port")] {
            let Answerers::These(stranded) = now.stranded_by(&fronts(ports, &backends)) else {
                panic!("named ones only");
            };
            assert_eq!(Answerers::These(stranded), both, "{why}");
        }
    }
}
