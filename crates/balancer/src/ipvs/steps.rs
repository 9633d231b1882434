//! From one set of IPVS services to another, in steps that the kernel knows.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
};

use ipvs_rs::{Family, ServiceKey};

/// A service's firewall mark.
pub(super) type Mark = NonZeroU32;
/// Services by mark: their backends' weights by address.
pub(super) type Services = BTreeMap<Mark, BTreeMap<Ipv4Addr, u32>>;

/// One request to IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    AddService(Mark),
    /// Gives a service back the scheduler and flags that it should have.
    ResetService(Mark),
    DeleteService(ServiceKey),
    AddBackend(Mark, Ipv4Addr, u32),
    Weigh(Mark, Ipv4Addr, u32),
    DeleteBackend(Mark, SocketAddr),
}

/// What must be done before nftables leads packets there, and what after it no longer does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) before: Vec<Step>,
    pub(super) after: Vec<Step>,
}

impl Steps {
    /// From what the kernel holds to what it should.
    pub(super) fn between(held: &Services, wanted: &Services) -> Self {
        let mut steps = Self::default();
        let none = BTreeMap::new();
        for (mark, backends) in wanted {
            let old = held.get(mark).unwrap_or_else(|| {
                steps.before.push(Step::AddService(*mark));
                &none
            });
            steps.change(*mark, old, backends);
        }
        let gone = held.keys().filter(|mark| !wanted.contains_key(*mark));
        steps.after.extend(gone.map(|mark| Step::DeleteService(key(*mark))));
        steps
    }

    fn change(&mut self, mark: Mark, old: &BTreeMap<Ipv4Addr, u32>, new: &BTreeMap<Ipv4Addr, u32>) {
        for (addr, weight) in new {
            match old.get(addr) {
                None => self.before.push(Step::AddBackend(mark, *addr, *weight)),
                Some(held) if held != weight => self.before.push(Step::Weigh(mark, *addr, *weight)),
                Some(_) => {}
            }
        }
        let gone = old.keys().filter(|addr| !new.contains_key(*addr));
        self.after.extend(gone.map(|addr| Step::DeleteBackend(mark, any_port(*addr))));
    }

    pub(super) fn len(&self) -> usize {
        self.before.len() + self.after.len()
    }
}

/// The key of a mark's service.
pub(super) fn key(mark: Mark) -> ServiceKey {
    ServiceKey::mark(Family::V4, mark)
}

/// Port 0: the one that the client asked for.
pub(super) fn any_port(addr: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((addr, 0))
}

/// What was wrong with the kernel's services if a step is needed to repair them.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService(mark) => write!(f, "ipvs service {} was gone", key(*mark)),
            Self::ResetService(mark) => write!(f, "ipvs service {} was changed", key(*mark)),
            Self::DeleteService(key) => write!(f, "ipvs service {key} was added"),
            Self::AddBackend(mark, addr, _) => {
                write!(f, "destination {addr} of ipvs service {} was gone", key(*mark))
            }
            Self::Weigh(mark, addr, _) => {
                write!(
                    f,
                    "the weight of destination {addr} of ipvs service {} was changed",
                    key(*mark)
                )
            }
            Self::DeleteBackend(mark, address) => {
                write!(f, "destination {address} of ipvs service {} was added", key(*mark))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn services() -> impl Strategy<Value = Services> {
        let mark = (1u32..6).prop_map(|mark| Mark::new(mark).expect("not 0"));
        let backends =
            prop::collection::btree_map((0u32..6).prop_map(Ipv4Addr::from_bits), 0u32..3, 0..5);
        prop::collection::btree_map(mark, backends, 0..5)
    }

    /// Does what the kernel does, or fails where it would.
    fn apply(services: &mut Services, step: Step) {
        let ServiceKey::Mark { mark: deleted, .. } = (match step {
            Step::DeleteService(key) => key,
            _ => key(Mark::MAX),
        }) else {
            panic!("not by mark: {step:?}");
        };
        let known = "the service exists";
        match step {
            Step::AddService(mark) => assert_eq!(services.insert(mark, BTreeMap::new()), None),
            Step::ResetService(_) => panic!("nothing is reset between right services"),
            Step::DeleteService(_) => assert!(services.remove(&deleted).is_some()),
            Step::AddBackend(mark, addr, weight) => {
                assert_eq!(services.get_mut(&mark).expect(known).insert(addr, weight), None);
            }
            Step::Weigh(mark, addr, weight) => {
                assert_ne!(services.get_mut(&mark).expect(known).insert(addr, weight), None);
            }
            Step::DeleteBackend(mark, address) => {
                let SocketAddr::V4(address) = address else { panic!("IPv6") };
                assert!(services.get_mut(&mark).expect(known).remove(address.ip()).is_some());
            }
        }
    }

    proptest! {
        #[test]
        fn steps_lead_from_any_services_to_any_others(held in services(), wanted in services()) {
            let steps = Steps::between(&held, &wanted);
            let mut services = held.clone();
            steps.before.iter().for_each(|step| apply(&mut services, *step));
            // Before nftables changes, everything old and everything new is there.
            for (mark, backends) in held.iter().chain(&wanted) {
                prop_assert!(backends.keys().all(|addr| services[mark].contains_key(addr)));
            }
            steps.after.iter().for_each(|step| apply(&mut services, *step));
            prop_assert_eq!(&services, &wanted);
            prop_assert_eq!(steps.len() == 0, held == wanted);
        }
    }
}
