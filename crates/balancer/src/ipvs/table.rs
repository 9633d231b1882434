//! What nftables and IPVS of one network should hold, and which tracked connections may exist beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::steps::{Mark, Services};
use crate::{
    Network, Result, VirtualService, method,
    netlink::{Answerers, Entry},
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The desired state of a network, in the kernel's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// The source address of tasks that reach themselves.
    gateway: Ipv4Addr,
    /// Every VIP's mark.
    marks: BTreeMap<Ipv4Addr, Mark>,
    /// VIPs of services that take no new connections.
    refused: BTreeSet<Ipv4Addr>,
    /// Backends that run here.
    local: BTreeSet<Ipv4Addr>,
    /// IPVS's part, the draining backends too.
    pub(super) services: Services,
}

impl Table {
    fn empty(gateway: Ipv4Addr) -> Self {
        Self {
            gateway,
            marks: BTreeMap::new(),
            refused: BTreeSet::new(),
            local: BTreeSet::new(),
            services: Services::new(),
        }
    }

    fn add(&mut self, mark: Mark, service: &VirtualService<Ipv4Addr>) {
        let backends = &service.backends;
        self.marks.insert(service.vip, mark);
        if backends.iter().all(|backend| backend.weight == 0) {
            self.refused.insert(service.vip);
        }
        self.local
            .extend(backends.iter().filter(|backend| backend.local).map(|backend| backend.addr));
        let weights = backends.iter().map(|backend| (backend.addr, backend.weight.into()));
        self.services.insert(mark, weights.collect());
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
        let mut element = |action: &str, set: &str, text: String| {
            statements.push(format!("{action} element ip swarm {set} {{ {text} }}"));
        };
        let pair = |addr: &Ipv4Addr| format!("{addr} . {addr}");
        for (vip, _) in self.marks.iter().filter(|(vip, mark)| new.marks.get(*vip) != Some(*mark)) {
            element("delete", "marks", vip.to_string());
        }
        self.refused
            .difference(&new.refused)
            .for_each(|vip| element("delete", "refused", vip.to_string()));
        self.local
            .difference(&new.local)
            .for_each(|addr| element("delete", "local_pairs", pair(addr)));
        for (vip, mark) in
            new.marks.iter().filter(|(vip, mark)| self.marks.get(*vip) != Some(*mark))
        {
            element("add", "marks", format!("{vip} : {mark:#x}"));
        }
        new.refused
            .difference(&self.refused)
            .for_each(|vip| element("add", "refused", vip.to_string()));
        new.local
            .difference(&self.local)
            .for_each(|addr| element("add", "local_pairs", pair(addr)));
        statements
    }

    fn owners(&self, vip: Ipv4Addr) -> Option<&BTreeMap<Ipv4Addr, u32>> {
        self.services.get(self.marks.get(&vip)?)
    }

    /// Whether new connections to a VIP are balanced.
    fn takes(&self, vip: Ipv4Addr) -> bool {
        self.marks.contains_key(&vip) && !self.refused.contains(&vip)
    }
}

impl method::Table for Table {
    /// Also a service without a mark is an error.
    fn of(network: &Network) -> Result<Self> {
        let network = network.checked()?;
        let mut table = Self::empty(network.gateway);
        for service in &network.services {
            let mark = service.mark.and_then(Mark::new).ok_or_else(|| {
                let id = &service.id;
                network.invalid(format!("service {id} has no mark, by which ipvs would know it"))
            })?;
            table.add(mark, service);
        }
        Ok(table)
    }

    fn stranded_by(&self, new: &Self) -> Answerers {
        let none = BTreeMap::new();
        let lost = self.marks.keys().flat_map(|vip| {
            let kept = new.owners(*vip).unwrap_or(&none);
            let owners = self.owners(*vip).into_iter().flat_map(BTreeMap::keys);
            owners.filter(move |addr| !kept.contains_key(*addr)).copied()
        });
        // Before a service came, or its first backend, its VIP may have been tracked as the namespace's own address.
        let first = new.marks.keys().filter(|vip| new.takes(**vip) && !self.takes(**vip));
        Answerers::These(lost.chain(first.copied()).collect())
    }

    /// Whether it was balanced to what is no backend (any more), or was
    /// taken for one of the namespace itself while its VIP balances now. The namespace has no other destination NAT.
    fn disowns(&self, entry: &Entry) -> bool {
        if entry.balanced_elsewhere() {
            let owners = self.owners(entry.destination);
            return owners.is_none_or(|owners| !owners.contains_key(&entry.answerer));
        }
        [TCP, UDP].contains(&entry.protocol) && self.takes(entry.destination)
    }
}

/// The nft table with all that is common to every network, but no service.
///
/// The VIP is the namespace's own address, so IPVS sees its packets in `input`, after ours: what established
/// connections send passes `refused`, which takes TCP's first packets only. IPVS refuses UDP itself, by ICMP, and would
/// TCP, but the kernel limits the rate of ICMP. Masqueraded packets come back by the bridge through `forward`.
fn skeleton(gateway: Ipv4Addr) -> String {
    format!(
        "table ip swarm {{
  map marks {{
    type ipv4_addr : mark
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
  chain input {{
    type filter hook input priority filter; policy accept;
    ip daddr @refused tcp flags & (fin | syn | rst | ack) == syn reject with tcp reset
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
    let mark = Mark::MIN;
    let mut full = Table::empty(addr(1));
    full.marks.insert(addr(2), mark);
    full.refused.insert(addr(2));
    full.local.insert(addr(11));
    let empty = Table::empty(addr(3));
    [full.rebuild(), full.statements_to(&empty)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backend;
    use crate::method::Table as _;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);

    fn table(backends: &[(Ipv4Addr, u16)]) -> Table {
        let backends = backends.iter().map(|(addr, weight)| Backend {
            addr: (*addr).into(),
            weight: *weight,
            local: true,
        });
        let service = VirtualService {
            id: "1".into(),
            name: "web".into(),
            mark: Some(0x101),
            vip: VIP.into(),
            backends: backends.collect(),
        };
        Table::of(&network(vec![service])).unwrap()
    }

    fn network(services: Vec<VirtualService>) -> Network {
        Network { id: "n".into(), netns: "/".into(), gateway: [10, 0, 1, 1].into(), services }
    }

    #[test]
    fn a_service_without_a_mark_is_invalid() {
        let mut service = VirtualService {
            id: "x".into(),
            name: "web".into(),
            mark: None,
            vip: VIP.into(),
            backends: vec![],
        };
        let error = Table::of(&network(vec![service.clone()])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "network n: service x has no mark, by which ipvs would know it"
        );
        service.mark = Some(1);
        Table::of(&network(vec![service])).unwrap();
    }

    #[test]
    fn only_what_differs_is_said() {
        let (one, two) = (table(&[(A, 1)]), table(&[(A, 1), (B, 2)]));
        assert_eq!(one.statements_to(&one), [""; 0]);
        assert_eq!(
            one.statements_to(&two),
            ["add element ip swarm local_pairs { 10.0.1.12 . 10.0.1.12 }"]
        );
        let drained = table(&[(A, 0)]);
        assert_eq!(one.statements_to(&drained), ["add element ip swarm refused { 10.0.1.2 }"]);
        let none = Table::empty(one.gateway);
        let added = none.statements_to(&one);
        assert_eq!(added[0], "add element ip swarm marks { 10.0.1.2 : 0x101 }");
    }

    #[test]
    fn connections_to_gone_backends_are_stranded_and_disowned() {
        let (old, new) = (table(&[(A, 1), (B, 1)]), table(&[(B, 0)]));
        assert_eq!(old.stranded_by(&new), Answerers::These([A].into()));
        assert!(new.disowns(&Entry::balanced(VIP, A, UDP)));
        assert!(!new.disowns(&Entry::balanced(VIP, B, UDP)), "draining");
        let elsewhere = Ipv4Addr::new(10, 0, 1, 3);
        assert!(new.disowns(&Entry::balanced(elsewhere, A, TCP)), "its service is gone");
    }

    #[test]
    fn what_was_tracked_as_the_namespaces_own_is_disowned_once_there_are_backends() {
        let own = |protocol| {
            let mut entry = Entry::balanced(VIP, VIP, protocol);
            entry.dnat = false;
            entry
        };
        let (refused, first) = (table(&[(A, 0)]), table(&[(A, 1)]));
        assert_eq!(refused.stranded_by(&first), Answerers::These([VIP].into()));
        assert!(first.disowns(&own(UDP)) && !refused.disowns(&own(UDP)));
        assert!(!first.disowns(&own(1)), "an echo is answered by the namespace");
    }
}
