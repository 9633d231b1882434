//! The statements of every change, applied to a model of nftables' transactions, must give the wanted table.

use std::path::PathBuf;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    Backend, PortMap, Protocol,
    netlink::{Answerers, Entry},
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What nftables would hold; refuses what the kernel refuses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Model {
    gateway: Option<Ipv4Addr>,
    chains: BTreeMap<String, Vec<Chain>>,
    routes: BTreeMap<Front, String>,
    refused: BTreeSet<Ipv4Addr>,
    local: BTreeSet<Ipv4Addr>,
}

impl Model {
    fn commit(&self, statements: &[Statement<'_>]) -> Self {
        let mut next = Some(self.clone());
        for statement in statements {
            next = next.unwrap_or_default().apply(statement);
        }
        next.expect("a table in the end")
    }

    /// `None` once the table is deleted.
    fn apply(mut self, statement: &Statement<'_>) -> Option<Self> {
        match statement {
            Statement::AddTable => {}
            Statement::DeleteTable => return None,
            Statement::Skeleton(gateway) => {
                assert_eq!(self.gateway.replace(*gateway), None, "declared twice")
            }
            Statement::FlushSnat => assert!(self.gateway.take().is_some(), "no rule to flush"),
            Statement::AddSnat(gateway) => {
                assert_eq!(self.gateway.replace(*gateway), None, "two gateways")
            }
            Statement::AddChain(id) => {
                assert!(
                    self.chains.insert((*id).to_owned(), vec![]).is_none(),
                    "chain {id} exists"
                );
            }
            Statement::FlushChain(id) => {
                self.chains.get_mut(*id).expect("the chain to flush").clear()
            }
            Statement::AddRule(id, chain) => {
                assert!(!chain.slots.is_empty(), "numgen mod 0");
                self.chains.get_mut(*id).expect("the chain of the rule").push((*chain).clone());
            }
            Statement::DeleteChain(id) => {
                assert!(!self.routes.values().any(|routed| routed == id), "chain {id} is in use");
                assert!(self.chains.remove(id).is_some(), "no chain {id}");
            }
            Statement::AddRoute(front, id) => {
                assert!(self.chains.contains_key(*id), "no chain {id} to go to");
                assert!(
                    self.routes.insert(*front, (*id).to_owned()).is_none(),
                    "{front:?} is routed already"
                );
            }
            Statement::DeleteRoute(front) => {
                assert!(self.routes.remove(front).is_some(), "{front:?} is not routed")
            }
            Statement::AddRefused(vip) => {
                assert!(self.refused.insert(*vip), "{vip} is refused already")
            }
            Statement::DeleteRefused(vip) => {
                assert!(self.refused.remove(vip), "{vip} is not refused")
            }
            Statement::AddLocal(addr) => {
                assert!(self.local.insert(*addr), "{addr} is local already")
            }
            Statement::DeleteLocal(addr) => assert!(self.local.remove(addr), "{addr} is not local"),
        }
        Some(self)
    }
}

impl From<&Table> for Model {
    fn from(table: &Table) -> Self {
        Self {
            gateway: Some(table.gateway),
            chains: table
                .chains
                .iter()
                .map(|(id, chain)| (id.clone(), vec![chain.clone()]))
                .collect(),
            routes: table.routes.clone(),
            refused: table.refused.clone(),
            local: table.local.clone(),
        }
    }
}

/// All ports, or few of them that lead to fewer.
fn ports() -> impl Strategy<Value = Ports> {
    let map = (any::<bool>(), 80u16..83, 90u16..92).prop_map(|(tcp, port, target)| {
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        PortMap { protocol, port, target }
    });
    let only = vec(map, 0..4).prop_map(|mut maps| {
        maps.sort_by_key(|map| (map.protocol, map.port));
        maps.dedup_by_key(|map| (map.protocol, map.port));
        Ports::Only(maps)
    });
    prop_oneof![Just(Ports::All), only]
}

/// Few ids, VIPs and addresses, so that successive states share, swap and reuse them.
fn networks() -> impl Strategy<Value = Network<Ipv4Addr>> {
    let backend = (0u8..6, 0u16..3, any::<bool>());
    let service = (0u8..5, 0u8..5, 0u8..2, ports(), vec(backend, 0..5));
    (1u8..3, vec(service, 0..5)).prop_map(|(gateway, services)| {
        let mut network = Network {
            id: "n".into(),
            netns: PathBuf::new(),
            gateway: [10, 0, 1, gateway].into(),
            services: vec![],
        };
        for (id, vip, name, ports, backends) in services {
            let mut service = VirtualService {
                id: format!("s{id}"),
                name: format!("name{name}"),
                mark: None,
                vip: [10, 0, 1, 100 + vip].into(),
                ports,
                backends: vec![],
            };
            for (last, weight, local) in backends {
                let addr = Ipv4Addr::from([10, 0, 1, 200 + last]);
                if service.backends.iter().all(|known| known.addr != addr) {
                    service.backends.push(Backend { addr, weight, local });
                }
            }
            if !network
                .services
                .iter()
                .any(|known| known.id == service.id || known.vip == service.vip)
            {
                network.services.push(service);
            }
        }
        network
    })
}

proptest! {
    #[test]
    fn changes_in_sequence_lead_to_each_wanted_table(wanted in vec(networks(), 1..8)) {
        let mut held = Model::default();
        let mut last: Option<Table> = None;
        for network in &wanted {
            network.check().expect("the strategy makes valid networks");
            let table = Table::of_valid(network);
            let steps = last.as_ref().map_or_else(|| table.rebuild(), |last| last.steps_to(&table));
            held = held.commit(&steps);
            prop_assert_eq!(&held, &Model::from(&table));
            last = Some(table);
        }
    }

    #[test]
    fn a_rebuild_replaces_any_table(old in networks(), new in networks()) {
        let (old, new) = (Table::of_valid(&old), Table::of_valid(&new));
        prop_assert_eq!(Model::from(&old).commit(&new.rebuild()), Model::from(&new));
    }

    #[test]
    fn nothing_to_change_is_no_statement(network in networks(), seed in any::<u64>()) {
        let mut shuffled = network.clone();
        let turn = usize::try_from(seed % 97).expect("below 97");
        let services = shuffled.services.len().max(1);
        shuffled.services.rotate_left(turn % services);
        for service in &mut shuffled.services {
            service.backends.reverse();
            if let Ports::Only(maps) = &mut service.ports {
                maps.reverse();
            }
        }
        let (table, same) = (Table::of_valid(&network), Table::of_valid(&shuffled));
        prop_assert!(table.steps_to(&same).is_empty());
        prop_assert!(table.fronts.stranded_by(&same.fronts).are_none());
    }

    #[test]
    fn only_the_services_that_differ_are_touched(network in networks(), weight in 1u16..9) {
        let mut changed = network.clone();
        let Some(service) = changed.services.first_mut() else { return Ok(()) };
        service.backends.push(Backend { addr: [10, 0, 1, 250].into(), weight, local: false });
        let fronts = changed.services[0].fronts().len();
        let (old, new) = (Table::of_valid(&network), Table::of_valid(&changed));
        // A chain and its rule, a route; and the VIP is no longer refused, the backend is local.
        prop_assert!(old.steps_to(&new).len() <= 2 + 3 * fronts, "{:?}", old.steps_to(&new));
    }

    /// Every connection that the old table could have made and the new one could not is asked for and deleted.
    #[test]
    fn no_connection_outlives_its_backend(old in networks(), new in networks()) {
        let (before, after) = (Table::of_valid(&old), Table::of_valid(&new));
        let Answerers::These(suspects) = before.fronts.stranded_by(&after.fronts) else { unreachable!("named ones only") };
        let made = connections(&new);
        for entry in connections(&old) {
            let kept = made.contains(&entry);
            prop_assert_eq!(after.fronts.disowns(&entry, true), !kept, "{:?}", entry);
            prop_assert!(kept || suspects.contains(&entry.answerer), "{:?}", entry);
        }
    }

    /// What no chain takes is refused: no packet for a VIP is left to the namespace, but where there is no service.
    #[test]
    fn what_is_not_balanced_is_refused(network in networks(), tcp in any::<bool>(), port in 80u16..84) {
        let table = Table::of_valid(&network);
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        for service in &network.services {
            let fronts = [Front::All(service.vip), Front::Port(service.vip, protocol, port)];
            let balanced = fronts.iter().any(|front| table.routes.contains_key(front));
            let named = match &service.ports {
                Ports::All => true,
                Ports::Only(maps) => maps.iter().any(|map| (map.protocol, map.port) == (protocol, port)),
            };
            prop_assert_eq!(balanced, named && service.takes());
            prop_assert!(balanced || table.refused.contains(&service.vip));
        }
    }
}

/// Some of the connections that the table of a network can have made.
fn connections(network: &Network<Ipv4Addr>) -> Vec<Entry> {
    let mut connections = Vec::new();
    for service in &network.services {
        for (front, target) in service.fronts() {
            let (protocol, port) = match front {
                Front::All(_) => (Protocol::Udp, 80),
                Front::Port(_, protocol, port) => (protocol, port),
            };
            for backend in &service.backends {
                let number = if protocol == Protocol::Tcp { TCP } else { UDP };
                let mut entry = Entry::balanced(service.vip, backend.addr, number);
                (entry.port, entry.answerer_port) = (port, target.map_or(port, |(_, port)| port));
                connections.push(entry);
            }
        }
    }
    connections
}

#[test]
fn connections_of_the_namespace_itself_are_left_alone() {
    let network = Network {
        id: "n".into(),
        netns: PathBuf::new(),
        gateway: [10, 0, 1, 1].into(),
        services: vec![VirtualService {
            id: "s".into(),
            name: "web".into(),
            mark: None,
            vip: [10, 0, 1, 2].into(),
            ports: Ports::All,
            backends: vec![Backend { addr: [10, 0, 1, 11].into(), weight: 1, local: true }],
        }],
    };
    let table = Table::of_valid(&network);
    let plain = |destination: [u8; 4], protocol| {
        Entry::balanced(destination.into(), destination.into(), protocol)
    };
    let disowns = |entry: Entry| table.fronts.disowns(&entry, false);
    assert!(!disowns(plain([10, 0, 1, 2], 1)), "echo to the VIP is answered by the namespace");
    assert!(!disowns(plain([10, 0, 1, 11], TCP)), "a direct call to a task");
    assert!(disowns(plain([10, 0, 1, 2], UDP)), "a flow older than the service");
}
