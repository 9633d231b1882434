//! The addresses of one network: which are taken, and which is next.
//!
//! Next fit: the search goes on where the last one ended, so that a freed address is reused last. Were
//! it handed out again at once, a peer's neighbour table or a client's DNS cache could still mean the
//! former owner.

use std::net::{IpAddr, Ipv4Addr};

use imbl::OrdMap;
use ipnet::IpNet;
use swarm_model::{Invalid, ipv4_addr, ipv4_net};

/// The addresses of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressPool {
    first: u32,
    last: u32,
    next: u32,
    /// The ranges of free addresses, by their first one; no two adjoin.
    free: OrdMap<u32, u32>,
    /// How many addresses are free.
    left: u64,
}

impl AddressPool {
    /// The pool of `range` within `subnet`; network, broadcast and gateway address are taken.
    pub(crate) fn new(
        subnet: IpNet,
        range: IpNet,
        gateway: IpAddr,
    ) -> Result<AddressPool, Invalid> {
        let subnet = ipv4_net("subnet", subnet)?;
        let range = ipv4_net("ip range", range)?;
        let gateway = ipv4_addr("gateway", gateway)?;
        let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
        let (free, left) = (OrdMap::unit(first, last), u64::from(last - first) + 1);
        let mut pool = AddressPool { first, last, next: first, free, left };
        for reserved in [subnet.network(), subnet.broadcast(), gateway] {
            pool.take(reserved.into());
        }
        Ok(pool)
    }

    /// Takes the next free address.
    pub(crate) fn allocate(&mut self) -> Option<IpAddr> {
        let following = || self.free.get_next(&self.next).or_else(|| self.free.iter().next());
        let candidate = match self.range_around(self.next) {
            Some(_) => self.next,
            None => *following()?.0,
        };
        let addr = address(candidate);
        self.take(addr);
        self.next = if candidate == self.last { self.first } else { candidate + 1 };
        Some(addr)
    }

    /// Marks an address as taken: one that a restored snapshot says is, say.
    pub(crate) fn take(&mut self, addr: IpAddr) {
        let Some(addr) = self.number(addr) else { return };
        let Some((first, last)) = self.range_around(addr) else { return };
        self.free.remove(&first);
        if first < addr {
            self.free.insert(first, addr - 1);
        }
        if addr < last {
            self.free.insert(addr + 1, last);
        }
        self.left -= 1;
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, addr: IpAddr) {
        let Some(addr) = self.number(addr) else { return };
        if self.range_around(addr).is_some() {
            return;
        }
        let (mut first, mut last) = (addr, addr);
        if let Some(before) = addr.checked_sub(1).and_then(|addr| self.range_around(addr)) {
            first = before.0;
        }
        if let Some(after) = addr.checked_add(1).and_then(|addr| self.range_around(addr)) {
            self.free.remove(&after.0);
            last = after.1;
        }
        self.free.insert(first, last);
        self.left += 1;
    }

    /// How many addresses are free.
    pub(crate) fn free(&self) -> u64 {
        self.left
    }

    /// An address of the pool's range as it is kept here; none for any other.
    fn number(&self, addr: IpAddr) -> Option<u32> {
        let IpAddr::V4(addr) = addr else { return None };
        Some(u32::from(addr)).filter(|addr| (self.first..=self.last).contains(addr))
    }

    /// The range of free addresses that this one is part of.
    fn range_around(&self, addr: u32) -> Option<(u32, u32)> {
        let (first, last) = self.free.get_prev(&addr)?;
        (*last >= addr).then_some((*first, *last))
    }

    /// Where the next search begins; part of a snapshot, as replicas must agree on it.
    pub(crate) fn cursor(&self) -> IpAddr {
        address(self.next)
    }

    /// Restores [`Self::cursor`].
    pub(crate) fn set_cursor(&mut self, cursor: IpAddr) {
        self.next = self.number(cursor).unwrap_or(self.next);
    }
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(number).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool_of(subnet: &str) -> Result<AddressPool, Invalid> {
        let subnet: IpNet = subnet.parse().unwrap();
        AddressPool::new(subnet, subnet, subnet.hosts().next().unwrap())
    }

    fn pool(subnet: &str) -> AddressPool {
        pool_of(subnet).unwrap()
    }

    #[test]
    fn there_is_no_pool_of_ipv6() {
        let refusal = pool_of("fd00::/64").unwrap_err().to_string();
        assert_eq!(refusal, "subnet fd00::/64 is IPv6, which is not served yet");
        let mut pool = pool("10.0.1.0/29");
        let untouched = pool.clone();
        let other: IpAddr = "::10.0.1.3".parse().unwrap();
        pool.take(other);
        pool.release(other);
        pool.set_cursor(other);
        assert_eq!(pool, untouched);
    }

    #[test]
    fn a_29_has_five_addresses_and_a_freed_one_comes_last() {
        let mut pool = pool("10.0.1.0/29");
        let first = pool.allocate().unwrap();
        assert_eq!(first, IpAddr::from([10, 0, 1, 2]));
        pool.release(first);
        let rest: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(rest.len(), 5);
        assert_eq!(rest.last(), Some(&first));
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(steps in proptest::collection::vec(any::<Option<u8>>(), 1..200)) {
            let mut pool = pool("10.0.1.0/27");
            let mut held: Vec<IpAddr> = Vec::new();
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
                prop_assert_eq!(pool.free.iter().map(|(a, b)| u64::from(b - a) + 1).sum::<u64>(), pool.free());
            }
        }
    }
}
