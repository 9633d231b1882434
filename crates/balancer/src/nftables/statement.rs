//! One nft statement: what can be said about a network's table, and its text (see nft(8)).

use std::{
    fmt::{self, Display, Formatter, Write},
    net::Ipv4Addr,
};

/// Comments are for people; nftables takes 128 bytes at most.
const MAX_COMMENT: usize = 100;

/// A service's chain: one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    /// The service's name, for people.
    pub(super) name: String,
    /// Backends in the order of their turns; not empty.
    pub(super) slots: Vec<Ipv4Addr>,
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
    /// Leads a VIP to a service's chain.
    AddRoute(Ipv4Addr, &'a str),
    /// Leads a VIP nowhere.
    DeleteRoute(Ipv4Addr),
    /// Refuses new connections to a VIP.
    AddRefused(Ipv4Addr),
    /// No longer refuses them.
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
            Self::AddRoute(vip, id) => {
                write!(f, "add element ip swarm services {{ {vip} : goto svc_{id} }}")
            }
            Self::DeleteRoute(vip) => write!(f, "delete element ip swarm services {{ {vip} }}"),
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

/// A transaction's text: a statement a line.
pub(super) fn script(statements: &[Statement<'_>]) -> String {
    let mut text = String::new();
    for statement in statements {
        writeln!(text, "{statement}").expect("writing to a string cannot fail");
    }
    text
}

/// A refused packet is dropped before its connection is confirmed, so no tracked connection outlives the refusal and
/// keeps the flow from a backend that comes later: hence `input`, though the namespace would refuse by itself.
fn skeleton(f: &mut Formatter<'_>, gateway: Ipv4Addr) -> fmt::Result {
    write!(
        f,
        "table ip swarm {{
  map services {{
    type ipv4_addr : verdict
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
    write!(f, "add rule ip swarm svc_{id} dnat to numgen inc mod {} map {{ ", chain.slots.len())?;
    for (turn, backend) in chain.slots.iter().enumerate() {
        let separator = if turn == 0 { "" } else { ", " };
        write!(f, "{separator}{turn} : {backend}")?;
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

    #[test]
    fn backends_take_turns_by_a_map() {
        let slots = vec![[10, 0, 1, 11].into(), [10, 0, 1, 12].into()];
        let chain = Chain { name: "web".into(), slots };
        let text = script(&[Statement::AddChain("x1"), Statement::AddRule("x1", &chain)]);
        assert_eq!(
            text,
            "add chain ip swarm svc_x1\n\
             add rule ip swarm svc_x1 dnat to numgen inc mod 2 map { 0 : 10.0.1.11, 1 : 10.0.1.12 } comment \"web\"\n"
        );
    }

    #[test]
    fn a_name_cannot_end_its_comment() {
        assert_eq!(comment("a\" drop\n;{é"), "a? drop????");
        assert_eq!(comment(&"x".repeat(500)).len(), MAX_COMMENT);
    }
}
