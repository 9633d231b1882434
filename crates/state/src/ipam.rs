//! The addresses of one network: which are taken, and which is next.
//!
//! Next fit: the search goes on where the last one ended, so that a freed address is reused last. Were
//! it handed out again at once, a peer's neighbour table or a client's DNS cache could still mean the
//! former owner.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The addresses of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressPool {
    first: u32,
    last: u32,
    next: u32,
    taken: BTreeSet<u32>,
}

impl AddressPool {
    /// The pool of `range` within `subnet`; network, broadcast and gateway address are taken.
    pub(crate) fn new(subnet: Ipv4Net, range: Ipv4Net, gateway: Ipv4Addr) -> AddressPool {
        let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
        let reserved = [subnet.network(), subnet.broadcast(), gateway].map(u32::from);
        let taken = reserved.into_iter().filter(|a| (first..=last).contains(a)).collect();
        AddressPool { first, last, next: first, taken }
    }

    /// Takes the next free address.
    pub(crate) fn allocate(&mut self) -> Option<Ipv4Addr> {
        if self.free() == 0 {
            return None;
        }
        let mut candidate = self.next;
        while self.taken.contains(&candidate) {
            candidate = self.after(candidate);
        }
        self.taken.insert(candidate);
        self.next = self.after(candidate);
        Some(Ipv4Addr::from(candidate))
    }

    /// Marks an address as taken: one that a restored snapshot says is.
    pub(crate) fn take(&mut self, addr: Ipv4Addr) {
        self.taken.insert(u32::from(addr));
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, addr: Ipv4Addr) {
        self.taken.remove(&u32::from(addr));
    }

    /// How many addresses are free.
    pub(crate) fn free(&self) -> u64 {
        let size = u64::from(self.last - self.first) + 1;
        size - self.taken.range(self.first..=self.last).count() as u64
    }

    /// Where the next search begins; part of a snapshot, as replicas must agree on it.
    pub(crate) fn cursor(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.next)
    }

    /// Restores [`Self::cursor`].
    pub(crate) fn set_cursor(&mut self, cursor: Ipv4Addr) {
        let cursor = u32::from(cursor);
        if (self.first..=self.last).contains(&cursor) {
            self.next = cursor;
        }
    }

    fn after(&self, addr: u32) -> u32 {
        if addr == self.last { self.first } else { addr + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(subnet: &str) -> AddressPool {
        let subnet: Ipv4Net = subnet.parse().unwrap();
        AddressPool::new(subnet, subnet, subnet.hosts().next().unwrap())
    }

    #[test]
    fn a_29_has_five_addresses_and_a_freed_one_comes_last() {
        let mut pool = pool("10.0.1.0/29");
        let first = pool.allocate().unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 0, 1, 2));
        pool.release(first);
        let rest: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(rest.len(), 5);
        assert_eq!(rest.last(), Some(&first));
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(steps in proptest::collection::vec(any::<Option<u8>>(), 1..200)) {
            let mut pool = pool("10.0.1.0/27");
            let mut held: Vec<Ipv4Addr> = Vec::new();
            for step in steps {
                match step {
                    Some(which) if !held.is_empty() => {
                        let at = usize::from(which) % held.len();
                        pool.release(held.swap_remove(at));
                    }
                    _ => match pool.allocate() {
                        Some(addr) => {
                            prop_assert!(!held.contains(&addr));
                            held.push(addr);
                        }
                        None => prop_assert_eq!(held.len(), 29),
                    },
                }
                prop_assert_eq!(pool.free(), 29 - held.len() as u64);
            }
        }
    }
}
