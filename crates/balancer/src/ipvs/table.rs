//! What nftables and IPVS of one network should hold, and which tracked connections may exist beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    num::NonZeroU32,
};

use ipvs_rs::{Family, ServiceKey};

use super::steps::Services;
use crate::{
    Network, Ports, Protocol, Result, VirtualService,
    fronts::{Front, Fronts},
    method,
};

/// A service's firewall mark.
type Mark = NonZeroU32;

/// The desired state of a network, in the kernel's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// The source address of tasks that reach themselves.
    gateway: Ipv4Addr,
    /// The marks of VIPs that are balanced on every port.
    marks: BTreeMap<Ipv4Addr, Mark>,
    /// VIPs that are balanced on some ports only.
    limited: BTreeSet<Ipv4Addr>,
    /// Those ports.
    ports: BTreeSet<(Ipv4Addr, Protocol, u16)>,
    /// VIPs of services that take no new connections.
    refused: BTreeSet<Ipv4Addr>,
    /// Backends that run here.
    local: BTreeSet<Ipv4Addr>,
    /// IPVS's part, the draining backends too.
    pub(super) services: Services,
    /// In neither nftables nor IPVS: they tell which tracked connections may exist.
    fronts: Fronts,
}

impl Table {
    fn empty(gateway: Ipv4Addr) -> Self {
        Self {
            gateway,
            marks: BTreeMap::new(),
            limited: BTreeSet::new(),
            ports: BTreeSet::new(),
            refused: BTreeSet::new(),
            local: BTreeSet::new(),
            services: Services::new(),
            fronts: Fronts::default(),
        }
    }

    /// None if the service lacks the mark that it needs.
    fn add(&mut self, service: &VirtualService<Ipv4Addr>) -> Option<()> {
        let backends = &service.backends;
        if service.ports != Ports::All {
            self.limited.insert(service.vip);
        }
        if !service.takes() {
            self.refused.insert(service.vip);
        }
        self.local
            .extend(backends.iter().filter(|backend| backend.local).map(|backend| backend.addr));
        for (front, target) in service.fronts() {
            let key = self.let_through(front, service.mark.and_then(Mark::new))?;
            let port = target.map_or(0, |(_, port)| port);
            let weights = backends
                .iter()
                .map(|backend| (SocketAddrV4::new(backend.addr, port), u32::from(backend.weight)));
            self.services.insert(key, weights.collect());
        }
        self.fronts.add(service);
        Some(())
    }

    /// Has nftables let what comes for a front through to IPVS; the key of the service that takes it there. None if the
    /// mark is missing that it needs.
    fn let_through(&mut self, front: Front, mark: Option<Mark>) -> Option<ServiceKey> {
        match front {
            Front::All(vip) => {
                self.marks.insert(vip, mark?);
                Some(ServiceKey::mark(Family::V4, mark?))
            }
            Front::Port(vip, protocol, port) => {
                self.ports.insert((vip, protocol, port));
                Some(match protocol {
                    Protocol::Tcp => ServiceKey::tcp((vip, port)),
                    Protocol::Udp => ServiceKey::udp((vip, port)),
                })
            }
        }
    }

    /// Statements that replace whatever nft table there is by this one's.
    pub(super) fn rebuild(&self) -> Vec<String> {
        let mut statements = vec![
            "add table ip swarm".into(),
            "delete table ip swarm".into(),
            skeleton(self.gateway),
        ];
        statements.extend(Self::empty(self.gateway).statements_to(self));
        statements
    }

    /// Statements that lead from this table's nft table to that of `new`.
    pub(super) fn statements_to(&self, new: &Self) -> Vec<String> {
        let mut statements = Vec::new();
        if self.gateway != new.gateway {
            statements.push("flush chain ip swarm postrouting".into());
            statements.push(format!("add rule ip swarm postrouting {}", snat(new.gateway)));
        }
        for (vip, _) in self.marks.iter().filter(|(vip, mark)| new.marks.get(*vip) != Some(*mark)) {
            statements.push(element("delete", "marks", vip));
        }
        for (vip, mark) in
            new.marks.iter().filter(|(vip, mark)| self.marks.get(*vip) != Some(*mark))
        {
            statements.push(element("add", "marks", format_args!("{vip} : {mark:#x}")));
        }
        let vip = Ipv4Addr::to_string;
        let port = |(vip, protocol, port): &(Ipv4Addr, Protocol, u16)| {
            format!("{vip} . {protocol} . {port}")
        };
        let pair = |addr: &Ipv4Addr| format!("{addr} . {addr}");
        statements.extend(differences("limited", &self.limited, &new.limited, vip));
        statements.extend(differences("ports", &self.ports, &new.ports, port));
        statements.extend(differences("refused", &self.refused, &new.refused, vip));
        statements.extend(differences("local_pairs", &self.local, &new.local, pair));
        statements
    }
}

/// A statement on an element of a set or map.
fn element(action: &str, set: &str, text: impl std::fmt::Display) -> String {
    format!("{action} element ip swarm {set} {{ {text} }}")
}

/// The statements that lead a set from one state to another.
fn differences<T: Ord>(
    set: &str,
    old: &BTreeSet<T>,
    new: &BTreeSet<T>,
    text: impl Fn(&T) -> String,
) -> Vec<String> {
    let gone = old.difference(new).map(|gone| element("delete", set, text(gone)));
    gone.chain(new.difference(old).map(|come| element("add", set, text(come)))).collect()
}

impl method::Table for Table {
    /// Also a service on all ports without a mark is an error.
    fn of(network: &Network) -> Result<Self> {
        let network = network.checked()?;
        let mut table = Self::empty(network.gateway);
        for service in &network.services {
            table.add(service).ok_or_else(|| {
                let id = &service.id;
                network.invalid(format!("service {id} has no mark, by which ipvs would know it"))
            })?;
        }
        Ok(table)
    }

    fn fronts(&self) -> &Fronts {
        &self.fronts
    }
}

/// The nft table with all that is common to every network, but no service.
///
/// The VIP is the namespace's own address, so IPVS sees its packets in `input`, after ours: what established
/// connections send passes `refused`, which takes TCP's first packets only. IPVS refuses UDP itself, by ICMP, and would
/// TCP, but the kernel limits the rate of ICMP. What IPVS does not know, as the other ports of a VIP in `limited`, it
/// leaves to the namespace: so that is refused before, in a chain that packets for other VIPs do not pass. Masqueraded
/// packets come back by the bridge through `forward`.
fn skeleton(gateway: Ipv4Addr) -> String {
    format!(
        "table ip swarm {{
  map marks {{
    type ipv4_addr : mark
  }}
  set limited {{
    type ipv4_addr
  }}
  set ports {{
    type ipv4_addr . inet_proto . inet_service
  }}
  set refused {{
    type ipv4_addr
  }}
  set local_pairs {{
    type ipv4_addr . ipv4_addr
  }}
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    meta l4proto {{ tcp, udp }} meta mark set ip daddr map @marks
  }}
  chain limited {{
    meta l4proto {{ tcp, udp }} ip daddr . meta l4proto . th dport @ports accept
    meta l4proto tcp reject with tcp reset
    meta l4proto udp reject with icmp type port-unreachable
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    ip daddr @refused tcp flags & (fin | syn | rst | ack) == syn reject with tcp reset
    ip daddr @limited jump limited
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {}
  }}
}}",
        snat(gateway)
    )
}

fn snat(gateway: Ipv4Addr) -> String {
    format!("ip saddr . ip daddr @local_pairs snat to {gateway}")
}

/// A transaction that uses every statement the engine knows.
pub(super) fn sample() -> Vec<String> {
    let addr = |last| Ipv4Addr::new(192, 0, 2, last);
    let mut full = Table::empty(addr(1));
    full.marks.insert(addr(2), Mark::MIN);
    full.limited.insert(addr(3));
    full.ports.extend([Protocol::Tcp, Protocol::Udp].map(|protocol| (addr(3), protocol, 80)));
    full.refused.insert(addr(2));
    full.local.insert(addr(11));
    let empty = Table::empty(addr(4));
    [full.rebuild(), full.statements_to(&empty)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, method::Table as _, ports::only};

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);

    fn service(ports: Ports, backends: &[(Ipv4Addr, u16)]) -> VirtualService {
        let backends = backends.iter().map(|(addr, weight)| Backend {
            addr: (*addr).into(),
            weight: *weight,
            local: true,
        });
        VirtualService {
            id: "x".into(),
            name: "web".into(),
            mark: Some(0x101),
            vip: VIP.into(),
            ports,
            backends: backends.collect(),
        }
    }

    fn network(service: VirtualService) -> Network {
        let gateway = [10, 0, 1, 1].into();
        Network { id: "n".into(), netns: "/".into(), gateway, services: vec![service] }
    }

    fn table(ports: Ports, backends: &[(Ipv4Addr, u16)]) -> Table {
        Table::of(&network(service(ports, backends))).unwrap()
    }

    #[test]
    fn a_service_on_all_ports_without_a_mark_is_invalid() {
        let without = |ports| VirtualService { mark: None, ..service(ports, &[]) };
        let error = Table::of(&network(without(Ports::All))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "network n: service x has no mark, by which ipvs would know it"
        );
        Table::of(&network(without(only(&[(Protocol::Tcp, 80, 80)])))).unwrap();
        Table::of(&network(service(Ports::All, &[]))).unwrap();
    }

    #[test]
    fn only_what_differs_is_said() {
        let one = table(Ports::All, &[(A, 1)]);
        let two = table(Ports::All, &[(A, 1), (B, 2)]);
        assert_eq!(one.statements_to(&one), [""; 0]);
        assert_eq!(
            one.statements_to(&two),
            ["add element ip swarm local_pairs { 10.0.1.12 . 10.0.1.12 }"]
        );
        let drained = table(Ports::All, &[(A, 0)]);
        assert_eq!(one.statements_to(&drained), ["add element ip swarm refused { 10.0.1.2 }"]);
        let none = Table::empty(one.gateway);
        let added = none.statements_to(&one);
        assert_eq!(added[0], "add element ip swarm marks { 10.0.1.2 : 0x101 }");
    }

    #[test]
    fn a_named_port_is_a_service_of_its_own() {
        let ports = only(&[(Protocol::Tcp, 80, 8080), (Protocol::Udp, 53, 5353)]);
        let table = table(ports, &[(A, 1), (B, 0)]);
        let services: Vec<_> = table
            .services
            .iter()
            .flat_map(|(key, backends)| {
                backends.iter().map(move |(addr, weight)| format!("{key} {addr} {weight}"))
            })
            .collect();
        assert_eq!(
            services,
            [
                "TCP 10.0.1.2:80 10.0.1.11:8080 1",
                "TCP 10.0.1.2:80 10.0.1.12:8080 0",
                "UDP 10.0.1.2:53 10.0.1.11:5353 1",
                "UDP 10.0.1.2:53 10.0.1.12:5353 0",
            ]
        );
    }

    #[test]
    fn the_other_ports_of_a_vip_are_refused() {
        let all = table(Ports::All, &[(A, 1)]);
        let some = table(only(&[(Protocol::Tcp, 80, 8080)]), &[(A, 1)]);
        let more = table(only(&[(Protocol::Tcp, 80, 8080), (Protocol::Udp, 53, 5353)]), &[(A, 1)]);
        assert_eq!(
            all.statements_to(&some),
            [
                "delete element ip swarm marks { 10.0.1.2 }",
                "add element ip swarm limited { 10.0.1.2 }",
                "add element ip swarm ports { 10.0.1.2 . tcp . 80 }",
            ]
        );
        assert_eq!(
            some.statements_to(&more),
            ["add element ip swarm ports { 10.0.1.2 . udp . 53 }"]
        );
        assert_eq!(
            more.statements_to(&all),
            [
                "add element ip swarm marks { 10.0.1.2 : 0x101 }",
                "delete element ip swarm limited { 10.0.1.2 }",
                "delete element ip swarm ports { 10.0.1.2 . tcp . 80 }",
                "delete element ip swarm ports { 10.0.1.2 . udp . 53 }",
            ]
        );
    }
}
