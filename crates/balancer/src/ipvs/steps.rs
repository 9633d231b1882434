//! From one set of IPVS services to another, in steps that the kernel knows.

use std::{
    collections::BTreeMap,
    fmt,
    net::{SocketAddr, SocketAddrV4},
};

use ipvs_rs::ServiceKey;

/// The services: their backends' weights. Port 0 of a backend is the one that the client asked for.
pub(super) type Services = BTreeMap<ServiceKey, Backends>;
pub(super) type Backends = BTreeMap<SocketAddrV4, u32>;

/// One request to IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    AddService(ServiceKey),
    /// Gives a service back the scheduler and flags that it should have.
    ResetService(ServiceKey),
    DeleteService(ServiceKey),
    AddBackend(ServiceKey, SocketAddrV4, u32),
    Weigh(ServiceKey, SocketAddrV4, u32),
    DeleteBackend(ServiceKey, SocketAddr),
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
        let none = Backends::new();
        for (key, backends) in wanted {
            let old = held.get(key).unwrap_or_else(|| {
                steps.before.push(Step::AddService(*key));
                &none
            });
            steps.change(*key, old, backends);
        }
        let gone = held.keys().filter(|key| !wanted.contains_key(*key));
        steps.after.extend(gone.map(|key| Step::DeleteService(*key)));
        steps
    }

    fn change(&mut self, key: ServiceKey, old: &Backends, new: &Backends) {
        for (addr, weight) in new {
            match old.get(addr) {
                None => self.before.push(Step::AddBackend(key, *addr, *weight)),
                Some(held) if held != weight => self.before.push(Step::Weigh(key, *addr, *weight)),
                Some(_) => {}
            }
        }
        let gone = old.keys().filter(|addr| !new.contains_key(*addr));
        self.after.extend(gone.map(|addr| Step::DeleteBackend(key, SocketAddr::V4(*addr))));
    }

    pub(super) fn len(&self) -> usize {
        self.before.len() + self.after.len()
    }
}

/// What was wrong with the kernel's services if a step is needed to repair them.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService(key) => write!(f, "ipvs service {key} was gone"),
            Self::ResetService(key) => write!(f, "ipvs service {key} was changed"),
            Self::DeleteService(key) => write!(f, "ipvs service {key} was added"),
            Self::AddBackend(key, addr, _) => {
                write!(f, "destination {addr} of ipvs service {key} was gone")
            }
            Self::Weigh(key, addr, _) => {
                write!(f, "the weight of destination {addr} of ipvs service {key} was changed")
            }
            Self::DeleteBackend(key, address) => {
                write!(f, "destination {address} of ipvs service {key} was added")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, num::NonZeroU32};

    use ipvs_rs::Family;
    use proptest::prelude::*;

    use super::*;

    fn services() -> impl Strategy<Value = Services> {
        let mark = (1u32..4).prop_map(|mark| NonZeroU32::new(mark).expect("not 0"));
        let key = prop_oneof![
            mark.prop_map(|mark| ServiceKey::mark(Family::V4, mark)),
            (80u16..83).prop_map(|port| ServiceKey::tcp((Ipv4Addr::LOCALHOST, port))),
        ];
        let addr = (0u32..3, 0u16..2);
        let addr = addr.prop_map(|(ip, port)| SocketAddrV4::new(Ipv4Addr::from_bits(ip), port));
        let backends = prop::collection::btree_map(addr, 0u32..3, 0..5);
        prop::collection::btree_map(key, backends, 0..5)
    }

    /// Does what the kernel does, or fails where it would.
    fn apply(services: &mut Services, step: Step) {
        let known = "the service exists";
        match step {
            Step::AddService(key) => assert_eq!(services.insert(key, Backends::new()), None),
            Step::ResetService(_) => panic!("nothing is reset between right services"),
            Step::DeleteService(key) => assert!(services.remove(&key).is_some()),
            Step::AddBackend(key, addr, weight) => {
                assert_eq!(services.get_mut(&key).expect(known).insert(addr, weight), None);
            }
            Step::Weigh(key, addr, weight) => {
                assert_ne!(services.get_mut(&key).expect(known).insert(addr, weight), None);
            }
            Step::DeleteBackend(key, address) => {
                let SocketAddr::V4(address) = address else { panic!("IPv6") };
                assert!(services.get_mut(&key).expect(known).remove(&address).is_some());
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
            for (key, backends) in held.iter().chain(&wanted) {
                prop_assert!(backends.keys().all(|addr| services[key].contains_key(addr)));
            }
            steps.after.iter().for_each(|step| apply(&mut services, *step));
            prop_assert_eq!(&services, &wanted);
            prop_assert_eq!(steps.len() == 0, held == wanted);
        }
    }
}
