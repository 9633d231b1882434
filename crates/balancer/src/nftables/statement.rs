//! One nft statement: what can be said about a network's table, and its text (see nft(8)).

use std::{
    fmt::{self, Display, Formatter, Write},
    net::Ipv4Addr,
};

use crate::fronts::{Front, Target};

/// Comments are for people; nftables takes 128 bytes at most.
const MAX_COMMENT: usize = 100;

/// A service's chain: one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    /// The service's name, for people.
    pub(super) name: String,
    /// The port that backends are called on, and the only protocol that is led here; none if calls keep their port.
    pub(super) target: Target,
    /// Backends in the order of their turns; not empty.
    pub(super) slots: Vec<Ipv4Addr>,
}

impl Chain {
    /// The name of a service's chain after `svc_`. No id has a slash.
    pub(super) fn label(id: &str, target: Target) -> String {
        match target {
            None => id.to_owned(),
            Some((protocol, port)) => format!("{id}/{protocol}/{port}"),
        }
    }
}

/// A statement of a transaction on `table ip swarm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement<'a> {
    /// Makes sure that there is a table, so that it can be deleted.
    AddTable,
    /// Deletes the table with all in it.
    DeleteTable,
    /// The table with all that is common to every network, SNAT to the gateway included, but no service.
    Skeleton(Ipv4Addr),
    /// Takes the SNAT rule away.
    FlushSnat,
    /// The rule that gives a task which reaches itself the gateway's address.
    AddSnat(Ipv4Addr),
    /// An empty chain for a service.
    AddChain(&'a str),
    /// Takes a service's rule away.
    FlushChain(&'a str),
    /// The rule by which a service's backends take turns.
    AddRule(&'a str, &'a Chain),
    /// Deletes a service's chain with its rule.
    DeleteChain(String),
    /// Leads what comes for a VIP, or one of its ports, to a service's chain.
    AddRoute(Front, &'a str),
    /// Leads it nowhere.
    DeleteRoute(Front),
    /// Refuses what comes for a VIP and is led nowhere.
    AddRefused(Ipv4Addr),
    /// No longer refuses it.
    DeleteRefused(Ipv4Addr),
    /// A backend that runs here.
    AddLocal(Ipv4Addr),
    /// It no longer does.
    DeleteLocal(Ipv4Addr),
}

impl Display for Statement<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable => write!(f, "add table ip swarm"),
            Self::DeleteTable => write!(f, "delete table ip swarm"),
            Self::Skeleton(gateway) => skeleton(f, *gateway),
            Self::FlushSnat => write!(f, "flush chain ip swarm postrouting"),
            Self::AddSnat(gateway) => write!(f, "add rule ip swarm postrouting {}", Snat(*gateway)),
            Self::AddChain(id) => write!(f, "add chain ip swarm svc_{id}"),
            Self::FlushChain(id) => write!(f, "flush chain ip swarm svc_{id}"),
            Self::AddRule(id, chain) => rule(f, id, chain),
            Self::DeleteChain(id) => write!(f, "delete chain ip swarm svc_{id}"),
            Self::AddRoute(front, id) => {
                let (map, key) = place(*front);
                write!(f, "add element ip swarm {map} {{ {key} : goto svc_{id} }}")
            }
            Self::DeleteRoute(front) => {
                let (map, key) = place(*front);
                write!(f, "delete element ip swarm {map} {{ {key} }}")
            }
            Self::AddRefused(vip) => write!(f, "add element ip swarm refused {{ {vip} }}"),
            Self::DeleteRefused(vip) => write!(f, "delete element ip swarm refused {{ {vip} }}"),
            Self::AddLocal(addr) => {
                write!(f, "add element ip swarm local_pairs {{ {addr} . {addr} }}")
            }
            Self::DeleteLocal(addr) => {
                write!(f, "delete element ip swarm local_pairs {{ {addr} . {addr} }}")
            }
        }
    }
}

/// The map that leads on from a front, and its key there.
fn place(front: Front) -> (&'static str, String) {
    match front {
        Front::All(vip) => ("services", vip.to_string()),
        Front::Port(vip, protocol, port) => ("ports", format!("{vip} . {protocol} . {port}")),
    }
}

/// A transaction's text: a statement a line.
pub(super) fn script(statements: &[Statement<'_>]) -> String {
    let mut text = String::new();
    for statement in statements {
        writeln!(text, "{statement}").expect("writing to a string cannot fail");
    }
    text
}

/// What a map leads away never comes to `input`, nor do answers: whatever is for a VIP there was not balanced. A refused
/// packet is dropped before its connection is confirmed, so no tracked connection outlives the refusal and keeps the flow
/// from a backend that comes later: hence `input`, though the namespace would refuse by itself.
fn skeleton(f: &mut Formatter<'_>, gateway: Ipv4Addr) -> fmt::Result {
    write!(
        f,
        "table ip swarm {{
  map services {{
    type ipv4_addr : verdict
  }}
  map ports {{
    type ipv4_addr . inet_proto . inet_service : verdict
  }}
  set refused {{
    type ipv4_addr
  }}
  set local_pairs {{
    type ipv4_addr . ipv4_addr
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto {{ tcp, udp }} ip daddr vmap @services
    meta l4proto {{ tcp, udp }} ip daddr . meta l4proto . th dport vmap @ports
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    ip daddr @refused meta l4proto tcp reject with tcp reset
    ip daddr @refused meta l4proto udp reject with icmp type port-unreachable
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {}
  }}
}}",
        Snat(gateway)
    )
}

struct Snat(Ipv4Addr);

impl Display for Snat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "ct status dnat ip saddr . ip daddr @local_pairs snat to {}", self.0)
    }
}

fn rule(f: &mut Formatter<'_>, id: &str, chain: &Chain) -> fmt::Result {
    write!(f, "add rule ip swarm svc_{id} ")?;
    match chain.target {
        None => write!(f, "dnat to")?,
        // Only a rule that matches a protocol may change ports.
        Some((protocol, _)) => write!(f, "meta l4proto {protocol} dnat ip to")?,
    }
    write!(f, " numgen inc mod {} map {{ ", chain.slots.len())?;
    for (turn, backend) in chain.slots.iter().enumerate() {
        let separator = if turn == 0 { "" } else { ", " };
        write!(f, "{separator}{turn} : {backend}")?;
        if let Some((_, port)) = chain.target {
            write!(f, " . {port}")?;
        }
    }
    write!(f, " }} comment \"{}\"", comment(&chain.name))
}

/// Leaves of a name what needs no quoting.
fn comment(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_-. /".contains(c) { c } else { '?' };
    name.chars().take(MAX_COMMENT).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    #[test]
    fn backends_take_turns_by_a_map() {
        let slots = vec![[10, 0, 1, 11].into(), [10, 0, 1, 12].into()];
        let chain = Chain { name: "web".into(), target: None, slots };
        let text = script(&[Statement::AddChain("x1"), Statement::AddRule("x1", &chain)]);
        assert_eq!(
            text,
            "add chain ip swarm svc_x1\n\
             add rule ip swarm svc_x1 dnat to numgen inc mod 2 map { 0 : 10.0.1.11, 1 : 10.0.1.12 } comment \"web\"\n"
        );
    }

    #[test]
    fn a_named_port_is_led_to_its_target() {
        let vip = Ipv4Addr::new(10, 0, 1, 2);
        let front = Front::Port(vip, Protocol::Tcp, 80);
        let target = Some((Protocol::Tcp, 8080));
        let slots = vec![[10, 0, 1, 11].into(), [10, 0, 1, 12].into()];
        let chain = Chain { name: "web".into(), target, slots };
        let label = Chain::label("x1", target);
        let text = script(&[
            Statement::AddRule(&label, &chain),
            Statement::AddRoute(front, &label),
            Statement::DeleteRoute(front),
            Statement::AddRoute(Front::All(vip), "x1"),
        ]);
        assert_eq!(
            text,
            "add rule ip swarm svc_x1/tcp/8080 meta l4proto tcp dnat ip to numgen inc mod 2 map \
             { 0 : 10.0.1.11 . 8080, 1 : 10.0.1.12 . 8080 } comment \"web\"\n\
             add element ip swarm ports { 10.0.1.2 . tcp . 80 : goto svc_x1/tcp/8080 }\n\
             delete element ip swarm ports { 10.0.1.2 . tcp . 80 }\n\
             add element ip swarm services { 10.0.1.2 : goto svc_x1 }\n"
        );
    }

    #[test]
    fn a_name_cannot_end_its_comment() {
        assert_eq!(comment("a\" drop\n;{é"), "a? drop????");
        assert_eq!(comment(&"x".repeat(500)).len(), MAX_COMMENT);
    }
}
